"""The PyTorch operators, imported together since the gradient of each is made of others."""

from gocor.plugins.local_correlation.torch_op import local_correlation
from gocor.plugins.local_correlation_transpose.torch_op import local_correlation_transpose
from gocor.plugins.local_gocor.torch_op import local_gocor

__all__ = ["local_correlation", "local_correlation_transpose", "local_gocor"]

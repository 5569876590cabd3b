"""The PyTorch operators, imported together since the gradient of each is made of the other."""

from gocor.plugins.local_correlation.torch_op import local_correlation
from gocor.plugins.local_correlation_transpose.torch_op import local_correlation_transpose

__all__ = ["local_correlation", "local_correlation_transpose"]

"""All operators of the domain: the lists that export, checks and tests go through."""

from gocor.plugins.local_correlation.schema import SCHEMA as LOCAL_CORRELATION
from gocor.plugins.local_correlation_transpose.schema import SCHEMA as LOCAL_CORRELATION_TRANSPOSE
from gocor.plugins.local_gocor.schema import SCHEMA as LOCAL_GOCOR
from gocor.plugins.schema import OpSchema

CORRELATIONS: dict[str, OpSchema] = {
    schema.name: schema for schema in (LOCAL_CORRELATION, LOCAL_CORRELATION_TRANSPOSE)
}
OPERATORS: dict[str, OpSchema] = CORRELATIONS | {LOCAL_GOCOR.name: LOCAL_GOCOR}
KERNELS = OPERATORS  # those that have a CUDA kernel, and with it TensorRT plugins

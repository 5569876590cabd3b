"""All operators of the domain: the one list that export, checks and tests go through."""

from gocor.plugins.local_correlation.schema import SCHEMA as LOCAL_CORRELATION
from gocor.plugins.local_correlation_transpose.schema import SCHEMA as LOCAL_CORRELATION_TRANSPOSE
from gocor.plugins.schema import OpSchema

OPERATORS: dict[str, OpSchema] = {
    schema.name: schema for schema in (LOCAL_CORRELATION, LOCAL_CORRELATION_TRANSPOSE)
}

"""How the PyTorch operators appear in an exported graph: as one node of our domain."""

import torch
from torch import Tensor

from gocor.plugins.schema import DOMAIN, OpSchema


def exporting() -> bool:
    """Whether torch.onnx.export is tracing."""
    return torch.onnx.is_in_onnx_export()


def onnx_node(schema: OpSchema, first: Tensor, second: Tensor, radius: int) -> Tensor:
    """Stands for the operator while torch.onnx.export traces.

    A function in the exporter's ``custom_translation_table`` loses the attributes (torch 2.13); a symbolic
    node keeps them.
    """
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{schema.name}",
        (first, second),
        attrs=dict(schema.node_attributes(radius)),
        dtype=first.dtype,
        shape=schema.check(first.shape, second.shape, radius),
        version=schema.version,
    )

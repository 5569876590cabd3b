"""How the PyTorch operators appear in an exported graph: as one node of our domain."""

import torch
from torch import Tensor

from gocor.plugins.schema import DOMAIN, OpSchema


def exporting() -> bool:
    """Whether torch.onnx.export is tracing."""
    return torch.onnx.is_in_onnx_export()


def onnx_node(schema: OpSchema, *inputs: Tensor, **values: int) -> Tensor:
    """Stands for the operator while torch.onnx.export traces.

    A function in the exporter's ``custom_translation_table`` loses the attributes (torch 2.13); a symbolic
    node keeps them.
    """
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{schema.name}",
        inputs,
        attrs=dict(schema.node_attributes(**values)),
        dtype=inputs[0].dtype,
        shape=schema.check(*(tensor.shape for tensor in inputs), **values),
        version=schema.version,
    )

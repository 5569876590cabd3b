"""What an engine is made of: layers of the parsed network, and those that the engine inspector tells of."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gocor.core.errors import ModelError
from gocor.plugins.registry import KERNELS
from gocor.runtime.metadata import TensorSpec

# TensorRT's words for dtypes: in the API, and in the inspector, 11 and before, short and in whole sentences.
_DTYPES = {
    "float32": r"FLOAT|FP32", "float16": r"HALF|FP16", "bfloat16": r"BF16|BFLOAT16", "int8": r"INT8",
    "int32": r"INT32", "int64": r"INT64", "uint8": r"UINT8", "bool": r"BOOL", "fp8": r"FP8", "fp4": r"FP4",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One layer of a finished engine.

    Attributes:
        name: made by TensorRT of the names of the nodes in it.
        kind: its type, as ``Convolution`` or ``Reformat``.
        dtype: of its first output; empty if the inspector does not say.
        plugin: operator that it computes in a plugin; empty for a layer of TensorRT's own.
    """

    name: str
    kind: str
    dtype: str
    plugin: str


@dataclass(frozen=True)
class EngineLayers:
    """What the inspector says of a finished engine.

    Attributes:
        counts: number of layers of each type and dtype, as ``Convolution float16``, most frequent first.
        fp32_islands: names of layers that give float32 in an engine that also computes in float16.
        reformats: names of layers that only change the layout or dtype of a tensor.
        plugins: number of plugin layers of each operator.
    """

    counts: Mapping[str, int]
    fp32_islands: Sequence[str]
    reformats: Sequence[str]
    plugins: Mapping[str, int]

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> "EngineLayers":
        """Sums layers up."""
        mixed = any(layer.dtype == "float16" for layer in layers)
        return cls(
            counts=_counted(f"{layer.kind} {layer.dtype}".strip() for layer in layers),
            fp32_islands=[layer.name for layer in layers if mixed and layer.dtype == "float32"],
            reformats=[layer.name for layer in layers if "reformat" in layer.kind.lower()],
            plugins=_counted(layer.plugin for layer in layers if layer.plugin),
        )


def network_counts(network: Any) -> dict[str, int]:
    """Number of layers of each type and dtype in a parsed network, as ``convolution float32``."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return _counted(
        f"{layer.type.name.lower()} {dtype_name(layer.get_output(0).dtype.name) if layer.num_outputs else ''}"
        for layer in layers
    )


def network_tensors(network: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a parsed network."""
    inputs = (network.get_input(index) for index in range(network.num_inputs))
    outputs = (network.get_output(index) for index in range(network.num_outputs))
    return tuple(map(_tensor, inputs)), tuple(map(_tensor, outputs))


def plugin_names(network: Any) -> list[str]:
    """Names of the plugin layers of a parsed network."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return [layer.name for layer in layers if layer.type.name.startswith("PLUGIN")]


def read_layers(text: str, plugins: Mapping[str, str], where: object) -> list[Layer]:
    """Layers of the inspector's JSON, of TensorRT 10 and 11.

    Args:
        text: what the inspector said.
        plugins: operator of each plugin layer of the parsed network, by the layer's name.
        where: the engine, for errors.

    Raises:
        ModelError: the text is something else.
    """
    try:
        entries = json.loads(text)["Layers"]
        return [_layer(entry, plugins) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        got = f"the engine inspector says nothing of its layers ({type(error).__name__}: {error})"
        raise ModelError(where, got, "report this, with the version of TensorRT") from error


def dtype_name(text: str) -> str:
    """NumPy's name of a dtype that TensorRT calls ``FLOAT`` or ``Channel major FP16 format``."""
    for name, pattern in _DTYPES.items():
        if re.search(rf"\b(?:{pattern})\b", text, re.IGNORECASE):
            return name
    return text.lower()


def _layer(entry: Mapping[str, Any] | str, plugins: Mapping[str, str]) -> Layer:
    if isinstance(entry, str):  # of a layer that it knows no more of than the name
        entry = {"Name": entry}
    outputs = entry.get("Outputs") or [{}]
    kind, name = str(entry.get("LayerType", "unknown")), str(entry.get("Name", ""))
    return Layer(name, kind, _tensor_dtype(outputs[0]), _plugin(entry, name, plugins))


def _plugin(entry: Mapping[str, Any], name: str, plugins: Mapping[str, str]) -> str:
    """The operator, by the plugin's type or else by the names of the nodes that the layer was made of.

    Those names alone say little: copies before and after a plugin have its name in theirs, and so has a
    layer of TensorRT's own that was made of the function body.
    """
    if (kind := entry.get("PluginType")) in KERNELS:
        return str(kind)
    of_plugin = "plugin" in str(entry.get("LayerType", "plugin")).lower()
    if not of_plugin or name.lower().startswith("reformat"):
        return ""
    made_of = f"{name} {entry.get('Metadata', '')}"
    names = (plugin for plugin in plugins if re.search(rf"(?<![\w/.]){re.escape(plugin)}(?![\w/.])", made_of))
    return next((plugins[plugin] for plugin in names), "")


def _tensor_dtype(tensor: Mapping[str, Any]) -> str:
    """One field told format and dtype up to TensorRT 10, and two do since."""
    fields = ("DataType", "Datatype", "Format/Datatype", "Format/DataType", "Format")
    return next((dtype_name(str(tensor[field])) for field in fields if tensor.get(field)), "")


def _tensor(tensor: Any) -> TensorSpec:
    return TensorSpec(tensor.name, dtype_name(tensor.dtype.name), tuple(tensor.shape))


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(name.strip() for name in names).most_common())

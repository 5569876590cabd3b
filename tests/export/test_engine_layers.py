import json
from types import SimpleNamespace
from typing import Any

import pytest

from gocor.core.errors import ModelError
from gocor.export.engine_layers import EngineLayers, Layer, dtype_name, network_counts, read_layers

# As TensorRT 10 and 11 write them: the field that told format and dtype became two.
TEN = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to conv1a.0/Conv",
            "LayerType": "Reformat",
            "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP32"}],
            "Outputs": [{"Name": "y", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
        },
        {"Name": "conv1a.0/Conv + conv1a.1/LeakyRelu", "LayerType": "CaskConvolution",
         "Outputs": [{"Name": "z", "Format/Datatype": "Half"}]},
        {"Name": "local_corr_2/LocalCorrelation", "LayerType": "PluginV3", "PluginType": "LocalCorrelation",
         "Outputs": [{"Name": "v", "Format/Datatype": "Row major linear FP16 format"}]},
        {"Name": "warp/GridSample", "LayerType": "GridSample",
         "Outputs": [{"Name": "w", "Format/Datatype": "Float"}]},
    ],
    "Bindings": ["x", "w"],
}  # fmt: skip
ELEVEN = {
    "Layers": [
        {"Name": "conv1a.0/Conv", "LayerType": "gemm", "Outputs": [{"Name": "z", "DataType": "Float"}]},
        {"Name": "__myl_Plug_1", "LayerType": "PluginV3", "Outputs": [{"Name": "z", "Datatype": "Half"}],
         "Metadata": "[ONNX Layer: local_corr_3/LocalCorrelation]"},
        {"Name": "end", "LayerType": "NoOp", "Outputs": []},
    ],
    "I/O Tensors": [{"Name": "x", "DataType": "Float"}],
}  # fmt: skip
NODE = "local_corr_3/LocalCorrelation"


def read(content: object, plugins: dict[str, str] | None = None) -> list[Layer]:
    return read_layers(json.dumps(content), plugins or {}, "m.engine")


def test_layers_of_tensorrt_10() -> None:
    layers = read(TEN)
    assert [(layer.kind, layer.dtype, layer.plugin) for layer in layers] == [
        ("Reformat", "float16", ""),
        ("CaskConvolution", "float16", ""),
        ("PluginV3", "float16", "LocalCorrelation"),
        ("GridSample", "float32", ""),
    ]


def test_layers_of_tensorrt_11_and_a_plugin_known_by_its_node() -> None:
    layers = read(ELEVEN, {"local_corr_3/LocalCorrelation": "LocalCorrelation"})
    assert [(layer.kind, layer.dtype, layer.plugin) for layer in layers] == [
        ("gemm", "float32", ""),
        ("PluginV3", "float16", "LocalCorrelation"),
        ("NoOp", "", ""),
    ]


def test_the_names_of_other_nodes_are_no_plugins() -> None:
    assert [layer.plugin for layer in read(ELEVEN)] == ["", "", ""]
    longer = {"corr_3/LocalCorrelation": "LocalCorrelation", "local_corr_3/LocalCorr": "LocalCorrelation"}
    assert [layer.plugin for layer in read(ELEVEN, longer)] == ["", "", ""]


@pytest.mark.parametrize(
    "entry",
    [
        {"Name": "__myl_Move_1", "LayerType": "kgen", "Metadata": f"[ONNX Layer: {NODE}]"},
        {"Name": f"Reformatting CopyNode for Input Tensor 0 to {NODE}", "LayerType": "Reformat"},
        {"Name": f"Reformatting CopyNode for Output Tensor 0 to {NODE}", "LayerType": "NoOp"},
        {"Name": f"Reformatting CopyNode for Input Tensor 0 to {NODE}"},
        f"Reformatting CopyNode for Input Tensor 0 to {NODE}",
        {"Name": NODE, "LayerType": "CaskConvolution", "PluginType": ""},
    ],
)
def test_layers_of_tensorrts_own_are_no_plugins_whatever_their_names(entry: object) -> None:
    assert [layer.plugin for layer in read({"Layers": [entry]}, {NODE: "LocalCorrelation"})] == [""]


@pytest.mark.parametrize("kind", ["PluginV3", "PLUGIN_V2", "kPLUGIN", "AotPlugin"])
def test_a_plugin_of_a_name_of_its_own_is_known_by_its_node(kind: str) -> None:
    entry = {"Name": NODE, "LayerType": kind, "PluginType": "gocor::LocalCorrelation"}
    assert [layer.plugin for layer in read({"Layers": [entry]}, {NODE: "LocalCorrelation"})] == [
        "LocalCorrelation"
    ]


def test_layers_are_summed_up() -> None:
    found = EngineLayers.of(read(TEN))
    assert found.counts == {
        "Reformat float16": 1, "CaskConvolution float16": 1, "PluginV3 float16": 1, "GridSample float32": 1,
    }  # fmt: skip
    assert found.fp32_islands == ["warp/GridSample"]
    assert found.reformats == ["Reformatting CopyNode for Input Tensor 0 to conv1a.0/Conv"]
    assert found.plugins == {"LocalCorrelation": 1}


def test_an_engine_of_float32_has_no_islands() -> None:
    layers = [Layer("a", "Convolution", "float32", ""), Layer("b", "Convolution", "float32", "")]
    assert EngineLayers.of(layers).fp32_islands == []
    assert EngineLayers.of(layers).counts == {"Convolution float32": 2}


def test_layers_of_which_only_the_name_is_known() -> None:
    layers = read({"Layers": ["conv1a", {"Name": "level/Corr"}]}, {"level/Corr": "LocalCorrelation"})
    assert layers == [
        Layer("conv1a", "unknown", "", ""),
        Layer("level/Corr", "unknown", "", "LocalCorrelation"),
    ]


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"Layers": [1]}', '{"Layers": 1}'])
def test_an_inspector_that_says_nothing_is_an_error(text: str) -> None:
    with pytest.raises(ModelError, match=r"m\.engine: the engine inspector says nothing of its layers \("):
        read_layers(text, {}, "m.engine")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("FLOAT", "float32"),
        ("Float", "float32"),
        ("HALF", "float16"),
        ("BF16", "bfloat16"),
        ("Two wide channel vectorized row major FP16 format", "float16"),
        ("Four wide channel vectorized row major Int8 format", "int8"),
        ("INT64", "int64"),
        ("UINT8", "uint8"),
        ("E8M0", "e8m0"),
    ],
)
def test_dtypes_have_numpy_names(text: str, name: str) -> None:
    assert dtype_name(text) == name


def test_layers_of_a_network_are_counted() -> None:
    def layer(kind: str, dtype: str | None) -> Any:
        output = SimpleNamespace(dtype=SimpleNamespace(name=dtype))
        named = SimpleNamespace(name=kind)
        return SimpleNamespace(type=named, num_outputs=int(dtype is not None), get_output=lambda i: output)

    layers = [
        layer("CONVOLUTION", "HALF"),
        layer("CAST", "FLOAT"),
        layer("CAST", "FLOAT"),
        layer("ASSERTION", None),
    ]
    network = SimpleNamespace(num_layers=4, get_layer=layers.__getitem__)
    assert network_counts(network) == {"cast float32": 2, "convolution float16": 1, "assertion": 1}

import pytest
from toy_models import METADATA, metadata

from gocor.core.errors import ModelError
from gocor.runtime.metadata import Int8, ModelMetadata, Repair, TensorSpec


def test_properties_are_strings_and_read_back() -> None:
    properties = METADATA.to_properties()
    assert all(isinstance(value, str) for value in properties.values())
    assert properties["gocor.network"] == "PWCNet_GOCor"  # as a person would write it, no JSON quotes
    assert ModelMetadata.from_properties(properties, "m.onnx") == METADATA


def test_other_properties_do_not_disturb() -> None:
    properties = {"author": "someone", **METADATA.to_properties()}
    assert ModelMetadata.from_properties(properties, "m.onnx") == METADATA


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "m.onnx: was not made by gocor (no gocor.network property); run gocor export"),
        ({"format": "2"}, "m.onnx: has metadata of format 2; this gocor reads format 1; export again"),
        ({"network": "RAFT"}, "m.onnx: has damaged gocor metadata (network: unknown name 'RAFT'"),
        ({"batch": "0"}, "m.onnx: has damaged gocor metadata (batch 0); export again"),
        ({"height": "true"}, "m.onnx: has damaged gocor metadata (height True); export again"),
        ({"width": "6 4"}, "m.onnx: has damaged gocor metadata (Extra data"),
        ({"io": "video"}, "m.onnx: has damaged gocor metadata (io 'video'); export again"),
        (
            {"local_iterations": '"3"'},
            "m.onnx: has damaged gocor metadata (local_iterations '3'); export again",
        ),
        ({"precision": "int4"}, "m.onnx: has damaged gocor metadata (precision 'int4'); export again"),
        ({"operators": "[]"}, "m.onnx: has damaged gocor metadata (operators []); export again"),
        (
            {"int8": '{"samples": 3}'},
            'm.onnx: has damaged gocor metadata (int8 {"samples": 3}); export again',
        ),
        ({"repair": "[7]"}, "m.onnx: has damaged gocor metadata (repair [7]); export again"),
    ],
)
def test_damaged_metadata_is_one_clear_line(change: dict[str, str] | None, message: str) -> None:
    properties = METADATA.to_properties() if change is not None else {}
    properties |= {f"gocor.{name}": value for name, value in (change or {}).items()}
    with pytest.raises(ModelError) as caught:
        ModelMetadata.from_properties(properties, "m.onnx")
    assert str(caught.value).startswith(message)


def test_a_missing_property_is_named() -> None:
    properties = METADATA.to_properties()
    del properties["gocor.batch"]
    with pytest.raises(ModelError, match=r"no gocor\.batch"):
        ModelMetadata.from_properties(properties, "m.onnx")


def test_files_that_say_no_precision_are_fp32() -> None:
    properties = metadata(precision="fp16").to_properties()
    assert ModelMetadata.from_properties(properties, "m.onnx").precision == "fp16"
    del properties["gocor.precision"]
    assert ModelMetadata.from_properties(properties, "m.onnx").precision == "fp32"


def test_what_was_done_for_lower_precision_is_read_back() -> None:
    assert METADATA.to_properties().keys().isdisjoint({"gocor.int8", "gocor.repair"})
    repair = Repair(0.1, 0.09, ("conv2a.0",))
    described = metadata(repair=repair, int8=Int8("cpu", "minmax", 8, 47, repair))
    properties = described.to_properties()
    assert ModelMetadata.from_properties(properties, "m.onnx") == described
    properties["gocor.int8"] = '{"method": "entropy", "samples": 9, "convolutions": 2, "later": true}'
    assert ModelMetadata.from_properties(properties, "m.onnx").int8 == Int8("tensorrt", "entropy", 9, 2)


def test_interface_of_an_images_model() -> None:
    described = metadata(network="GLUNet", height=256, width=320, batch=2)
    assert described.inputs == (
        TensorSpec("reference", "uint8", (2, 256, 320, 3)),
        TensorSpec("query", "uint8", (2, 256, 320, 3)),
    )
    assert described.output_names == ("flow", "orientation_score")
    assert described.flow == TensorSpec("flow", "float32", (2, 2, 256, 320))


def test_interface_of_a_tensors_model() -> None:
    described = metadata(network="GLUNet_GOCor", height=264, width=320, io="tensors")
    assert [(i.name, i.shape) for i in described.inputs] == [
        ("reference", (1, 3, 264, 320)),
        ("query", (1, 3, 264, 320)),
        ("reference_256", (1, 3, 256, 256)),
        ("query_256", (1, 3, 256, 256)),
    ]
    assert described.output_names == ("flow4", "flow3", "flow2", "flow1", "orientation_score")
    assert str(described.flow) == "flow1 float32 (1, 2, 66, 80)"


def test_pwcnet_has_no_orientation_score() -> None:
    assert metadata(io="tensors", height=64).output_names == ("flow6", "flow5", "flow4", "flow3", "flow2")

import importlib.util
from pathlib import Path

import pytest
from toy_models import metadata, save_toy

from gocor.core.errors import CheckpointError, DependencyError, ModelError
from gocor.export import inspection
from gocor.export.inspection import CheckpointInspection, ModelInspection, inspect_file
from gocor.runtime.metadata import TensorSpec

onnx = pytest.importorskip("onnx")

FOREIGN = """
<ir_version: 9, opset_import: ["" : 19, "acme" : 1], producer_name: "someone">
graph (float[N, 4] x, bool c) => (float[N, 4] y)
<float[4] w = {1, 2, 3, 4}>
{
    b = Constant<value = float[2] {1, 2}>()
    z = acme.Twice(x)
    s = Add(z, w)
    y = If(c) <then_branch = t () => (t1) { t1 = Add(s, w) }, else_branch = e () => (e1) { e1 = Mul(s, w) }>
}
<domain: "acme", opset_import: ["" : 19]>
Twice (v) => (o) { o = Add(v, v) }
"""


def test_a_model_of_ours(tmp_path: Path) -> None:
    described = metadata(network="GLUNet", height=256, width=256)
    found = inspect_file(save_toy(tmp_path / "toy.onnx", described))
    assert isinstance(found, ModelInspection)
    assert found.metadata == described
    assert found.inputs == list(described.inputs)
    assert [output.name for output in found.outputs] == ["flow", "orientation_score"]
    assert found.bytes == (tmp_path / "toy.onnx").stat().st_size
    assert len(found.sha256) == 64


def test_a_model_of_someone_else(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(onnx.parser.parse_model(FOREIGN), path)
    found = inspect_file(path)
    assert isinstance(found, ModelInspection)
    assert found.metadata is None
    assert found.inputs == [TensorSpec("x", "float32", ("N", 4)), TensorSpec("c", "bool", ())]
    assert found.contents == inspection.Contents(
        ir_version=9,
        opsets={"ai.onnx": 19, "acme": 1},
        producer="someone",
        stored_values=6,
        operators={"Add": 2, "Constant": 1, "acme::Twice": 1, "If": 1, "Mul": 1},
        functions={"acme::Twice": 1},
    )


def test_onnxruntime_alone_reads_interface_and_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    path = save_toy(tmp_path / "toy.onnx")
    both = inspect_file(path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    alone = inspect_file(path)
    assert isinstance(both, ModelInspection)
    assert isinstance(alone, ModelInspection)
    assert (alone.metadata, alone.inputs, alone.outputs) == (both.metadata, both.inputs, both.outputs)
    assert alone.contents is None


@pytest.mark.parametrize("content", [b"garbage" * 50, b"\x08\x09", None])
def test_no_onnx_file(tmp_path: Path, content: bytes | None) -> None:
    path = save_toy(tmp_path / "toy.onnx")
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ModelError, match=r"toy.onnx: is (damaged or )?no ONNX model.*; give a file"):
        inspect_file(path)


def test_other_files(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(ModelError) as caught:
        inspect_file(text)
    assert (
        str(caught.value) == f"{text}: has the unknown suffix '.txt'; "
        "known are .onnx .engine .plan .xml .pth .pt .tar .safetensors"
    )
    with pytest.raises(ModelError, match="no such file"):
        inspect_file(tmp_path / "absent.pth")


def test_a_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from gocor.export.checkpoint import seeded_network

    network = seeded_network("PWCNet_GOCor")
    torch.save({"state_dict": network.state_dict(), "iterations": 5}, tmp_path / "their.pth.tar")
    found = inspect_file(tmp_path / "their.pth.tar")
    assert isinstance(found, CheckpointInspection)
    assert found.network == "PWCNet_GOCor"
    assert found.local_iterations == 5
    assert found.weights_sha256 == network.info.weights_sha256
    assert found.parameters == sum(p.numel() for p in network.parameters())


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is no checkpoint of a network known here"):
        inspect_file(tmp_path / "other.pth")


def test_a_checkpoint_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "their.pth"
    path.write_bytes(b"PK")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        DependencyError, match=r'torch: is not installed; pip install "gocor-deploy\[export\]"'
    ):
        inspect_file(path)


def test_a_type_of_tensors_that_this_onnx_does_not_know(tmp_path: Path) -> None:
    model = onnx.load(save_toy(tmp_path / "toy.onnx"))
    model.graph.input[0].type.tensor_type.elem_type = 256
    onnx.save(model, tmp_path / "toy.onnx")
    found = inspect_file(tmp_path / "toy.onnx")
    assert isinstance(found, ModelInspection)
    assert found.inputs[0].dtype == "type 256"

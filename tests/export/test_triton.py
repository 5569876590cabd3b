"""Model repositories for Triton; every configuration is read by the public protobuf schema."""

import importlib.util
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_models import METADATA, metadata, save_toy

from gocor.core.errors import ConfigError, GocorError, ModelError, OutputError
from gocor.core.files import sha256
from gocor.export.triton import INDEX, triton_repository
from gocor.export.triton_config import TritonConfig
from gocor.runtime.images import save_image
from gocor.runtime.manifest import Shapes, manifest_path
from gocor.runtime.metadata import Range

pytest.importorskip("onnx")
from fake_gpu import save_engine

IMAGES = {"reference": [1, 32, 64, 3], "query": [1, 32, 64, 3]}


@pytest.fixture(scope="session")
def schema() -> ModuleType:
    """``model_config_pb2`` of tritonclient; of its package, which wants gRPC, nothing else is imported."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip('the schema of config.pbtxt comes with pip install "gocor-deploy[dev]" (tritonclient)')
    path = Path(next(iter(package.submodule_search_locations)), "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(schema: ModuleType, repository: Path, model: str) -> Any:
    """A model's configuration, once it is one."""
    from google.protobuf import text_format

    return text_format.Parse((repository / model / "config.pbtxt").read_text(), schema.ModelConfig())


def tensors(schema: ModuleType, specs: Any) -> dict[str, tuple[str, list[int]]]:
    return {spec.name: (schema.DataType.Name(spec.data_type), list(spec.dims)) for spec in specs}


def parameters(config: Any) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


def engine(folder: Path, name: str = "model.engine", **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    return save_engine(folder / name, **changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {f"{p.relative_to(folder)}": p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_model(schema: ModuleType, tmp_path: Path) -> None:
    model = save_toy(tmp_path / "toy.onnx")
    report = triton_repository([model], tmp_path / "models", TritonConfig(instances=3, threads=4))
    config = parsed(schema, report.path, "toy")
    assert (config.name, config.backend, config.platform) == ("toy", "onnxruntime", "onnxruntime_onnx")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert not config.HasField("optimization")
    assert tensors(schema, config.input) == {name: ("TYPE_UINT8", dims) for name, dims in IMAGES.items()}
    assert tensors(schema, config.output) == {"flow": ("TYPE_FP32", [1, 2, 32, 64])}
    (group,) = config.instance_group
    assert (group.count, group.kind) == (3, schema.ModelInstanceGroup.KIND_CPU)
    given = parameters(config)
    assert given["intra_op_thread_count"] == "4"
    assert given["gocor.precision"] == "fp32"
    assert given["gocor.weights_sha256"] == METADATA.weights_sha256
    assert (report.path / "toy/1/model.onnx").read_bytes() == model.read_bytes()
    assert [p.name for p in report.path.iterdir() if p.is_dir()] == ["toy"]


def test_the_warm_up_has_every_input(schema: ModuleType, tmp_path: Path) -> None:
    triton_repository([save_toy(tmp_path / "toy.onnx")], tmp_path / "models")
    (warmup,) = parsed(schema, tmp_path / "models", "toy").model_warmup
    assert warmup.batch_size == 1
    assert {name: list(value.dims) for name, value in warmup.inputs.items()} == IMAGES
    assert all(value.zero_data for value in warmup.inputs.values())
    assert {schema.DataType.Name(v.data_type) for v in warmup.inputs.values()} == {"TYPE_UINT8"}


@pytest.mark.parametrize("network", ["PWCNet_GOCor", "GLUNet_GOCor"])
def test_tensors_and_a_batch(schema: ModuleType, tmp_path: Path, network: str) -> None:
    described = metadata(network=network, io="tensors", batch=2, height=64, width=64)
    triton_repository([save_toy(tmp_path / "toy.onnx", described)], tmp_path / "models")
    config = parsed(schema, tmp_path / "models", "toy")
    assert tensors(schema, config.input) == {
        spec.name: ("TYPE_FP32", list(spec.shape)) for spec in described.inputs
    }
    assert [spec.name for spec in config.output] == list(described.output_names)
    assert all(spec.dims[0] == 2 for spec in (*config.input, *config.output))


def test_on_a_gpu(schema: ModuleType, tmp_path: Path) -> None:
    model = save_toy(tmp_path / "toy.onnx")
    triton_repository([model], tmp_path / "models", TritonConfig(name="flow", provider="cuda"))
    config = parsed(schema, tmp_path / "models", "flow")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("cuda", {"use_tf32": "0"})
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
    assert "docker run --rm --gpus all" in (tmp_path / "models/README.md").read_text()


def test_an_engine(schema: ModuleType, tmp_path: Path) -> None:
    plan = engine(tmp_path / "built", version_compatible=True)
    report = triton_repository([plan], tmp_path / "models")
    config = parsed(schema, report.path, "model")
    assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU
    assert tensors(schema, config.output) == {"flow": ("TYPE_FP32", [1, 2, 32, 64])}
    served = report.path / "model/1/model.plan"
    assert served.read_bytes() == plan.read_bytes()
    assert manifest_path(served).read_bytes() == manifest_path(plan).read_bytes()
    guide = (report.path / "README.md").read_text()
    assert "TensorRT 11.4.0.106, or a later one of the same major version" in guide
    assert "--backend-config=tensorrt,version-compatible=true" in guide


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_openvino(schema: ModuleType, tmp_path: Path, precision: str) -> None:
    from openvino_models import save_xml

    xml = save_xml(tmp_path / "toy.xml", inference_precision=precision)
    report = triton_repository([xml], tmp_path / "models", TritonConfig(threads=2))
    config = parsed(schema, report.path, "toy")
    assert (config.backend, config.platform) == ("openvino", "")
    given = parameters(config)
    assert given["INFERENCE_NUM_THREADS"] == "2"
    assert given["gocor.inference_precision"] == precision
    assert given.get("HINT_BF16") == {"f32": None, "bf16": "YES"}[precision]
    assert bool(report.notes) == (precision == "f32")
    folder = report.path / "toy/1"
    assert {p.name for p in folder.iterdir()} == {"model.xml", "model.bin", "model.xml.json"}
    assert (folder / "model.bin").read_bytes() == xml.with_suffix(".bin").read_bytes()


def test_a_model_built_otherwise_is_another_version(tmp_path: Path) -> None:
    from openvino_models import save_xml

    xml, root = tmp_path / "toy.xml", tmp_path / "models"
    triton_repository([save_xml(xml)], root)
    graph = xml.read_bytes()
    save_xml(xml, inference_precision="bf16")
    assert xml.read_bytes() == graph, "the precision is in the manifest alone"
    assert [e.version for e in triton_repository([xml], root, update=True).added] == [2]
    with pytest.raises(ModelError, match=r"is version 2 of toy already; .* go into .*/toy/config\.pbtxt$"):
        triton_repository([xml], root, update=True)


def test_weights_that_change_while_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openvino_models import save_xml

    copy = shutil.copyfile
    monkeypatch.setattr(
        shutil, "copyfile",
        lambda source, name: copy(source, name) if name.suffix != ".bin" else name.write_bytes(b"half"),
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"toy\.xml: was changed while it was copied; try again"):
        triton_repository([save_xml(tmp_path / "toy.xml")], tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_several_models_and_their_index(tmp_path: Path) -> None:
    models = [save_toy(tmp_path / "toy.onnx"), engine(tmp_path / "built")]
    report = triton_repository(models, tmp_path / "models")
    index = json.loads((report.path / INDEX).read_text())
    assert [(m["model"], m["version"], m["file"]) for m in index["models"]] == [
        ("toy", 1, "toy/1/model.onnx"),
        ("model", 1, "model/1/model.plan"),
    ]
    assert all(m["sha256"] == sha256(report.path / m["file"]) for m in index["models"])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_an_update_adds_versions_and_models(schema: ModuleType, tmp_path: Path) -> None:
    root = tmp_path / "models"
    first, other = save_toy(tmp_path / "toy.onnx"), tmp_path / "new"
    other.mkdir()
    triton_repository([first], root)
    second = save_toy(other / "toy.onnx", metadata(weights_sha256="ee" * 32))
    report = triton_repository(
        [second, engine(tmp_path / "built")], root, TritonConfig(instances=2), update=True
    )
    assert [(e.model, e.version) for e in report.added] == [("toy", 2), ("model", 1)]
    assert (root / "toy/1/model.onnx").read_bytes() == first.read_bytes()
    assert (root / "toy/2/model.onnx").read_bytes() == second.read_bytes()
    config = parsed(schema, root, "toy")
    assert config.instance_group[0].count == 2
    assert parameters(config)["gocor.weights_sha256"] == "ee" * 32
    assert len(json.loads((root / INDEX).read_text())["models"]) == 3
    third = save_toy(other / "toy.onnx", metadata(weights_sha256="ff" * 32))
    triton_repository([third], root, update=True)
    assert "TensorRT 11.4.0.106" in (root / "README.md").read_text(), "the engine of before is still served"


def bad_inputs(folder: Path) -> dict[str, tuple[list[Path], dict[str, Any], type[GocorError], str]]:
    toy = save_toy(folder / "toy.onnx")
    apart = folder / "apart"
    apart.mkdir()
    twin = save_toy(apart / "toy.onnx")
    spaced = save_toy(apart / "my model.onnx")
    foreign = save_toy(apart / "foreign.onnx", properties={})
    text = apart / "text.txt"
    text.write_text("text")
    checkpoint = apart / "their.pth"
    checkpoint.write_bytes(b"zip")
    plan = engine(folder / "plan")
    rtx = engine(folder / "rtx", backend="tensorrt-rtx")
    changed = engine(folder / "changed")
    changed.write_bytes(b"another")
    library = engine(folder / "library", plugins="library")
    return {
        "none": ([], {}, ConfigError, "models: none given"),
        "clash": ([toy, twin], {}, ConfigError, "models: 2 are named 'toy' ("),
        "name for two": ([toy, plan], {"name": "flow"}, ConfigError, "--name: is for one model, and"),
        "name of a path": ([toy], {"name": "../flow"}, ConfigError, "--name: is '../flow'; letters, digits"),
        "stem": ([spaced], {}, ConfigError, "would be the model 'my model', which is no name"),
        "instances": ([toy], {"instances": 0}, ConfigError, "--instances: is 0; 1 to 1024"),
        "provider": ([toy], {"provider": "gpu"}, ConfigError, "--provider: is 'gpu'; cpu or cuda"),
        "threads": ([toy], {"threads": 0}, ConfigError, "--threads: is 0; at least 1"),
        "provider of an engine": ([plan], {"provider": "cuda"}, ConfigError, "--provider: is for .onnx"),
        "threads of an engine": ([plan], {"threads": 2}, ConfigError, "--threads: are those of the CPU, and"),
        "missing": ([folder / "no.onnx"], {}, ModelError, "no.onnx: no such file"),
        "foreign": ([foreign], {}, ModelError, "foreign.onnx: was not made by gocor"),
        "suffix": ([text], {}, ModelError, "has the unknown suffix '.txt'; models are"),
        "checkpoint": ([checkpoint], {}, ModelError, "is a checkpoint; make a model of it"),
        "rtx": ([rtx], {}, ModelError, "is an engine of TensorRT-RTX, which Triton has no backend for"),
        "changed": ([changed], {}, ModelError, "is not the file that was built"),
        "library": ([library], {}, ModelError, "needs libgocor_plugins.so, which Triton cannot load"),
    }  # fmt: skip


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    for name, (models, options, kind, text) in bad_inputs(tmp_path).items():
        with pytest.raises(kind) as caught:
            triton_repository(models, tmp_path / "models", TritonConfig(**options))
        assert text in str(caught.value), name
        assert "\n" not in str(caught.value), name
        assert not (tmp_path / "models").exists(), name


def test_dynamic_shapes_are_refused(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(save_toy(tmp_path / "toy.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, tmp_path / "toy.onnx")
    with pytest.raises(ModelError, match=r"has reference uint8 .*; static shapes of uint8 or float32"):
        triton_repository([tmp_path / "toy.onnx"], tmp_path / "models")


def test_a_batch_that_varies_is_the_servers(schema: ModuleType, tmp_path: Path) -> None:
    described = metadata(
        network="GLUNet", io="tensors", height=256, width=256,
        dynamic={"batch": Range(1), "height": Range(256)},
    )  # fmt: skip
    triton_repository([save_toy(tmp_path / "toy.onnx", described)], tmp_path / "models")
    config = parsed(schema, tmp_path / "models", "toy")
    assert config.max_batch_size == 8
    assert config.HasField("dynamic_batching")
    given = tensors(schema, config.input)
    assert given["reference"] == ("TYPE_FP32", [3, -1, 256])
    assert given["reference_256"] == ("TYPE_FP32", [3, 256, 256])
    outputs = {spec.name: spec for spec in config.output}
    assert list(outputs["flow1"].dims) == [2, -1, 64]
    assert list(outputs["orientation_score"].dims) == [1]
    assert outputs["orientation_score"].HasField("reshape")
    (warmup,) = config.model_warmup
    assert list(warmup.inputs["reference"].dims) == [3, 256, 256]
    assert "begins with `batch`" in (tmp_path / "models" / "README.md").read_text()


def test_the_batches_of_an_engine_are_those_it_was_built_for(schema: ModuleType, tmp_path: Path) -> None:
    described = metadata(dynamic={"batch": Range(1)})
    built = engine(tmp_path, described=described, shapes=Shapes((1, 32, 64), (2, 32, 64), (5, 32, 64)))
    triton_repository([built], tmp_path / "models")
    config = parsed(schema, tmp_path / "models", "model")
    assert config.max_batch_size == 5
    assert list(config.model_warmup[0].inputs["reference"].dims) == [32, 64, 3]
    built = engine(tmp_path, described=described, shapes=Shapes((2, 32, 64), (2, 32, 64), (5, 32, 64)))
    with pytest.raises(ModelError) as caught:
        triton_repository([built], tmp_path / "others")
    assert str(caught.value) == (
        f"{built}: takes batches of 2 to 5, and Triton would also bring smaller ones; build it with --shapes "
        "from a batch of 1"
    )


def test_folders_that_are_refused(tmp_path: Path) -> None:
    root, toy = tmp_path / "models", save_toy(tmp_path / "toy.onnx")
    triton_repository([toy], root)
    before = contents(root)
    cases = [
        (root, False, OutputError, "is a model repository already; --update adds a version to it"),
        (root, True, ModelError, "toy.onnx: is version 1 of toy already; nothing to do; other options go"),
        (toy, True, OutputError, "toy.onnx: is a file; the path of a folder"),
        (tmp_path, True, OutputError, f"holds other files (no {INDEX}); a new or empty folder"),
        (toy / "models", False, OutputError, "cannot be written (a folder of its path is a file)"),
    ]
    for path, update, kind, text in cases:
        with pytest.raises(kind) as caught:
            triton_repository([toy], path, update=update)
        assert text in str(caught.value)
    save_toy(toy, metadata(width=128))
    with pytest.raises(
        ModelError, match=r"has not the backend, inputs and outputs of version 1 of toy; .*--name"
    ):
        triton_repository([toy], root, update=True)
    assert contents(root) == before


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"format": 2}', '{"format": 1, "models": [{}]}', '{"format": 1, "models": 3}']
)
def test_a_damaged_index(tmp_path: Path, text: str) -> None:
    toy = save_toy(tmp_path / "toy.onnx")
    triton_repository([toy], tmp_path / "models")
    (tmp_path / "models" / INDEX).write_text(text)
    with pytest.raises(
        OutputError, match=r"gocor-triton\.json: is damaged \(.*\); write the repository anew"
    ):
        triton_repository([toy], tmp_path / "models", update=True)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = save_toy(tmp_path / "toy.onnx")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
        triton_repository([toy], tmp_path / "models")
    assert [p.name for p in tmp_path.iterdir()] == ["toy.onnx"]


def test_an_update_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    toy, root = save_toy(tmp_path / "toy.onnx"), tmp_path / "models"
    triton_repository([toy], root)
    before = contents(root)
    save_toy(toy, metadata(weights_sha256="ee" * 32))
    monkeypatch.setattr("shutil.copyfile", fail)
    with pytest.raises(OutputError, match=r"models: cannot be written \(No space left on device\)"):
        triton_repository([toy], root, update=True)
    assert contents(root) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models", "toy.onnx"]


def test_a_model_that_changes_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = save_toy(tmp_path / "toy.onnx")
    monkeypatch.setattr(shutil, "copyfile", lambda source, name: Path(name).write_bytes(b"half"))
    with pytest.raises(ModelError, match="was changed while it was copied; try again"):
        triton_repository([toy], tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_an_update_that_was_cut_short_does_not_block_the_next(tmp_path: Path) -> None:
    toy, root = save_toy(tmp_path / "toy.onnx"), tmp_path / "models"
    triton_repository([toy], root)
    (root / "toy/2").mkdir()
    (root / "toy/2/model.onnx").write_bytes(toy.read_bytes())  # there, but not in the index yet
    save_toy(toy, metadata(weights_sha256="ee" * 32))
    assert [e.version for e in triton_repository([toy], root, update=True).added] == [3]


def test_a_link_stays_a_link_and_an_empty_folder_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, link = save_toy(tmp_path / "toy.onnx"), tmp_path / "link"
    (tmp_path / "models").mkdir()
    link.symlink_to(tmp_path / "models")
    triton_repository([toy], link)
    assert link.is_symlink()
    assert (tmp_path / "models/toy/1/model.onnx").is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    triton_repository([toy], ".")
    assert (tmp_path / "here/toy/1/model.onnx").is_file()


class FakeServer:
    """As much of ``tritonclient.http`` as the client uses; its flow is the images' means."""

    def __init__(self, url: str) -> None:
        assert url == "localhost:8000"

    def __enter__(self) -> "FakeServer":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get_model_metadata(self, model: str) -> dict[str, Any]:
        names = ("reference_256",) if model == "tensors" else ("reference", "query")
        return {"inputs": [{"name": n, "shape": ["2", "32", "64", "3"], "datatype": "UINT8"} for n in names]}

    def infer(self, model: str, inputs: list[Any], outputs: list[str]) -> Any:
        assert (model, outputs) == ("toy", ["flow"])
        means = [i.array.mean(axis=(1, 2, 3)) for i in inputs]
        flow = np.broadcast_to(np.stack(means, 1)[..., None, None], (2, 2, 32, 64)).astype(np.float32)
        return SimpleNamespace(as_numpy=lambda name: flow)


class FakeInput:
    def __init__(self, name: str, shape: list[int], datatype: str) -> None:
        self.name, self.shape, self.datatype = name, shape, datatype

    def set_data_from_numpy(self, array: np.ndarray) -> None:
        assert (list(array.shape), str(array.dtype).upper()) == (self.shape, self.datatype)
        self.array = array


def test_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    fake = SimpleNamespace(InferenceServerClient=FakeServer, InferInput=FakeInput, InferRequestedOutput=str)
    package = SimpleNamespace(http=fake)
    monkeypatch.setitem(sys.modules, "tritonclient", package)  # type: ignore[misc]
    monkeypatch.setitem(sys.modules, "tritonclient.http", fake)  # type: ignore[misc]
    triton_repository([save_toy(tmp_path / "toy.onnx")], tmp_path / "models")
    for name, value, size in (("r", 3, (32, 64)), ("q", 4, (32, 64)), ("small", 4, (16, 64))):
        save_image(tmp_path / f"{name}.png", np.full((*size, 3), value, np.uint8))
    client = str(tmp_path / "models/client.py")

    def run(model: str, query: str) -> None:
        names = (tmp_path / "r.png", tmp_path / query, tmp_path / "flow.npy")
        monkeypatch.setattr(sys, "argv", [client, model, *map(str, names)])
        runpy.run_path(client, run_name="__main__")

    run("toy", "q.png")
    flow = np.load(tmp_path / "flow.npy")
    assert flow.shape == (2, 32, 64)
    assert flow[:, 0, 0].tolist() == [3, 4]
    assert "64x32, mean length 5.00 px" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"small.png: is \(16, 64\); the model takes \(32, 64\)"):
        run("toy", "small.png")
    with pytest.raises(SystemExit, match="takes tensors; this client has images"):
        run("tensors", "q.png")


def test_the_client_is_clean(tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    triton_repository([save_toy(tmp_path / "toy.onnx")], tmp_path / "models")
    check = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "110"]
    done = subprocess.run([*check, tmp_path / "models/client.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

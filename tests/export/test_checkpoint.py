import copy
import logging
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden_network, state_dict_shapes
from safetensors.torch import save_file
from torch import Tensor, nn

from gocor.core.errors import CheckpointError, ConfigError
from gocor.core.files import sha256
from gocor.export import checkpoint
from gocor.export.checkpoint import load_network, read_checkpoint, recognize, seeded_network, weights_sha256
from gocor.export.networks import Network, create_network
from gocor.export.networks.info import CheckpointInfo
from gocor.runtime.spec import SPECS

NAMES = pytest.mark.parametrize("name", SPECS)
StateDict = dict[str, Tensor]


def weights(name: str = "PWCNet_GOCor") -> StateDict:
    """A state_dict of the golden weights, free to be changed."""
    return {key: value.clone() for key, value in golden_network(name).state_dict().items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of PWCNet_GOCor that says nothing about itself."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.pth"
    torch.save(weights(), path)
    return path


@pytest.mark.parametrize(
    ("version", "warned"), [("2.9.1+cpu", True), ("2.10.0", False), ("2.11.0a0+git1", False)]
)
def test_a_pytorch_that_a_checkpoint_can_harm_is_named(
    version: str, warned: bool, small: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    read_checkpoint(small)
    assert [f"{small}: PyTorch {version} can be made to" in text for text in caplog.messages] == [
        True
    ] * warned


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of GLUNet_GOCor, likewise."""
    path = tmp_path_factory.mktemp("checkpoint") / "large.pth"
    torch.save(weights("GLUNet_GOCor"), path)
    return path


def assert_same_weights(network: nn.Module, expected: StateDict) -> None:
    assert network.state_dict().keys() == expected.keys()
    for key, value in network.state_dict().items():
        assert torch.equal(value, expected[key]), key


# ── what is read


def save_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_training(state_dict: StateDict, path: Path) -> None:
    """What training scripts write: everything, and NumPy numbers among it."""
    extra = {"epoch": 3, "optimizer": {"state": {}}, "best_epe": np.float64(1.5), "best": np.float32(0.5)}
    torch.save({"state_dict": OrderedDict(state_dict), "arch": "pwc", **extra}, path)


def save_parallel(state_dict: StateDict, path: Path) -> None:
    torch.save({"state_dict": {f"module.{key}": value for key, value in state_dict.items()}}, path)


FORMATS: dict[str, tuple[str, Callable[[StateDict, Path], None]]] = {
    "bare": ("a.pth", torch.save),
    "before PyTorch 1.6": ("a.pth", save_legacy),
    "training": ("a.pth.tar", save_training),
    "data parallel": ("a.pth.tar", save_parallel),
    "safetensors": ("a.safetensors", save_file),
    "safetensors under another name": ("a.ckpt", save_file),
}


@pytest.mark.parametrize(("filename", "save"), FORMATS.values(), ids=FORMATS)
def test_formats(tmp_path: Path, filename: str, save: Callable[[StateDict, Path], None]) -> None:
    path = tmp_path / filename
    save(weights(), path)
    network = load_network(path)
    assert_same_weights(network, weights())
    assert network.info == CheckpointInfo(path, sha256(path), weights_sha256(golden_network("PWCNet_GOCor")))
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_come_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "a.safetensors"
    save_file({key: value.to(dtype) for key, value in weights().items()}, path)
    rounded = {key: value.to(dtype).float() for key, value in weights().items()}
    assert_same_weights(load_network(path), rounded)


@NAMES
def test_every_network_is_recognised(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.pth"
    torch.save({key: torch.zeros(shape) for key, shape in state_dict_shapes(name).items()}, path)
    network = load_network(path)
    assert type(network) is type(create_network(name))
    assert network.spec.name == name


def test_a_string_is_a_path_too(small: Path) -> None:
    assert load_network(str(small)).info.path == small  # type: ignore[union-attr]


def test_network_overrides_what_would_be_recognised(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "recognize", None)  # must not even be asked
    assert load_network(small, network="PWCNet_GOCor").spec.name == "PWCNet_GOCor"


# ── iterations


def save_with(path: Path, name: str = "GLUNet_GOCor", **facts: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights(name), path, {key: str(value) for key, value in facts.items()})
    else:
        torch.save({"state_dict": weights(name), **facts}, path)
    return path


@pytest.mark.parametrize("filename", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, (None, None)),
        ({"iterations": 5}, (5, 5)),
        ({"global_iterations": 2, "local_iterations": 7}, (2, 7)),
        ({"iterations": 4, "local_iterations": 0}, (4, 0)),
        ({"iterations": 250_000}, (None, None)),  # training steps
        ({"iterations": "many"}, (None, None)),
        ({"iterations": -1}, (None, None)),
        ({"iterations": None}, (None, None)),
    ],
    ids=str,
)
def test_recorded_iterations(
    tmp_path: Path, filename: str, facts: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    path = tmp_path / filename
    tensors = {"a": torch.zeros(1)}
    if path.suffix == ".safetensors":
        save_file(tensors, path, {key: str(value) for key, value in facts.items()})
    else:
        torch.save({"state_dict": tensors, **facts}, path)
    found = read_checkpoint(path)
    assert (found.global_iterations, found.local_iterations) == expected


@pytest.mark.parametrize("filename", ["a.pth", "a.safetensors"])
def test_recorded_iterations_are_the_default(
    tmp_path: Path, filename: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_with(tmp_path / filename, global_iterations=2, local_iterations=0)
    network = load_network(path)
    assert (network.global_iterations, network.local_iterations) == (2, 0)
    assert network.info is not None
    assert (network.info.global_iterations, network.info.local_iterations) == (2, 0)
    assert not caplog.records


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (3, 3)),
        ({"iterations": 5}, (5, 5)),
        ({"iterations": 0}, (0, 0)),
        ({"iterations": 5, "global_iterations": 1}, (1, 5)),
        ({"local_iterations": 2}, (3, 2)),
        ({"global_iterations": 4, "local_iterations": 6}, (4, 6)),
    ],
    ids=str,
)
def test_asked_iterations(
    large: Path, asked: dict[str, int], expected: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    network = load_network(large, **asked)
    assert (network.global_iterations, network.local_iterations) == expected
    assert not caplog.records  # the checkpoint says nothing that this could differ from


def test_another_count_than_the_trained_one_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_with(tmp_path / "a.pth", global_iterations=3, local_iterations=2)
    network = load_network(path, iterations=3)
    assert (network.global_iterations, network.local_iterations) == (3, 3)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("gocor", logging.WARNING)
    expected = "a.pth was trained with 2 local iterations and will run with 3, which costs accuracy"
    assert record.getMessage() == expected
    caplog.clear()
    load_network(path, iterations=7)
    assert [record.getMessage() for record in caplog.records] == [
        "a.pth was trained with 2 local iterations and will run with 7, which costs accuracy",
        "a.pth was trained with 3 global iterations and will run with 7, which costs accuracy",
    ]


@pytest.mark.parametrize(
    "asked", [{"iterations": 5}, {"global_iterations": 1}, {"iterations": 1, "local_iterations": 2}], ids=str
)
def test_iterations_of_a_network_without_gocor_are_noted_once(
    tmp_path: Path, asked: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    path = save_with(tmp_path / "a.pth", "PWCNet")
    assert load_network(path, **asked).local_iterations is None
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["PWCNet has no GOCor module: the number of iterations has no effect"]


@pytest.mark.parametrize(
    ("asked", "notes"),
    [
        ({"iterations": 5}, 0),
        ({"local_iterations": 5}, 0),
        ({"global_iterations": 5}, 1),
        ({"global_iterations": 5, "local_iterations": 2}, 1),
    ],
    ids=str,
)
def test_global_iterations_of_a_network_without_global_gocor(
    small: Path, asked: dict[str, int], notes: int, caplog: pytest.LogCaptureFixture
) -> None:
    load_network(small, **asked)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["PWCNet_GOCor has no global GOCor: its number of iterations has no effect"] * notes


@pytest.mark.parametrize("option", ["global_iterations", "local_iterations"])
def test_a_negative_count(small: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')}: is -2; a whole number from 0"):
        load_network(small, **{option: -2})


# ── what does not fit


def refusal(path: Path, **options: Any) -> str:
    """Text of the error without the file's name."""
    with pytest.raises(CheckpointError) as caught:
        load_network(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def refused(tmp_path: Path, content: object, **options: Any) -> str:
    path = tmp_path / "a.pth"
    torch.save(content, path)
    return refusal(path, **options)


def test_wrong_keys(tmp_path: Path) -> None:
    changed = weights()
    for key in [key for key in changed if key.startswith("dc_conv7")]:
        changed[f"model.{key}"] = changed.pop(key)
    changed["deconv2.bias"] = torch.zeros(3)
    assert refused(tmp_path, changed) == (
        "is no checkpoint of a network known here; nearest is PWCNet_GOCor "
        "(missing: dc_conv7.weight, dc_conv7.bias; "
        "unexpected: model.dc_conv7.weight, model.dc_conv7.bias; "
        "misshaped: deconv2.bias [3] instead of [2]); "
        "known are PWCNet, PWCNet_GOCor, GLUNet, GLUNet_GOCor"
    )


@NAMES
def test_the_nearest_network_is_named(tmp_path: Path, name: str) -> None:
    """Even where it is only part of another one's keys: GLU-Net-GOCor without its pyramid is no GLU-Net."""
    incomplete = {key: torch.zeros(shape) for key, shape in state_dict_shapes(name).items()}
    for key in list(incomplete)[:7]:
        del incomplete[key]
    text = refused(tmp_path, incomplete)
    assert f"nearest is {name} (missing: " in text
    assert " and 4 more)" in text


def test_a_key_with_and_without_the_prefix(tmp_path: Path) -> None:
    text = refused(tmp_path, {"b": torch.zeros(1), "module.a": torch.zeros(1), "a": torch.ones(1)})
    assert text == "holds both a and module.a; one of them"


def test_only_a_few_keys_are_named(tmp_path: Path) -> None:
    text = refused(tmp_path, {f"layer{i}": torch.zeros(1) for i in range(50)})
    assert re.search(r"\(missing: \S+, \S+, \S+ and \d+ more; unexpected: \S+, \S+, \S+ and 47 more\)", text)
    assert len(text) < 400


def test_another_network_asked_for(small: Path) -> None:
    text = refusal(small, network="PWCNet")
    assert text.startswith("does not fit PWCNet (unexpected: local_corr_6.filter_initializer.scaling, ")
    assert text.endswith("; it fits PWCNet_GOCor: leave out --network")


def test_a_network_asked_for_that_nothing_fits(tmp_path: Path) -> None:
    text = refused(tmp_path, {"a": torch.zeros(1)}, network="GLUNet")
    assert text.startswith("does not fit GLUNet (missing: ")
    assert text.endswith("; a checkpoint of GLUNet")


def test_an_unknown_network(small: Path) -> None:
    with pytest.raises(ConfigError, match="network: unknown name 'raft'; one of PWCNet, "):
        load_network(small, network="raft")


# ── what is no checkpoint


class WantsToRun:
    """Unpickling an instance calls a function of the file's choosing."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def write_down(path: str) -> None:
    Path(path).write_text("executed")


@pytest.mark.parametrize("save", [torch.save, save_legacy], ids=["zip", "legacy"])
@pytest.mark.parametrize("function", [write_down, open, exec], ids=["own", "open", "exec"])
def test_pickled_code_is_refused_and_never_run(
    tmp_path: Path, save: Callable[[object, Path], None], function: Callable[..., Any]
) -> None:
    trace = tmp_path / "trace"
    arguments = {open: (str(trace), "w"), exec: (f"open({str(trace)!r}, 'w')",)}.get(function, (str(trace),))
    path = tmp_path / "a.pth"
    save({"state_dict": {"a": torch.zeros(1)}, "hook": WantsToRun(function, *arguments)}, path)
    text = refusal(path)
    assert re.match(r"holds pickled code, which is never run \(\S*(write_down|open|exec)\); where you", text)
    assert not trace.exists()
    if save is save_legacy:  # the test is one: who does not refuse runs it
        torch.load(path, weights_only=False)
        assert trace.exists()


def test_a_plain_pickle_is_never_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "a.pth", tmp_path / "trace"
    path.write_bytes(pickle.dumps(WantsToRun(write_down, str(trace))))
    assert refusal(path) == "is no checkpoint; a .pth, .pth.tar or .safetensors file"
    assert not trace.exists()


def test_a_whole_pickled_module(tmp_path: Path) -> None:
    text = refused(tmp_path, copy.deepcopy(golden_network("PWCNet_GOCor")))
    assert text == (
        "holds pickled code, which is never run (gocor.export.networks.pwcnet.PWCNet_GOCor); "
        "where you trust it: load it, torch.save(its state_dict, 'weights.pth') and use that"
    )


def test_torchscript(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "a.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        torch.jit.save(torch.jit.trace(nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)), str(path))
    text = refusal(path)
    assert text.startswith("holds pickled code, which is never run (__torch__.")
    assert "False" not in text  # torch advises to load it with weights_only=False
    assert not recwarn  # and warns, but one line is enough


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([torch.ones(1)], "holds a list; tensors by name, or a 'state_dict'"),
        (torch.ones(1), "holds a Tensor; tensors by name, or a 'state_dict'"),
        ({}, "holds no state_dict; tensors by name, bare or under 'state_dict'"),
        ({"state_dict": {}}, "holds no state_dict; tensors by name, bare or under 'state_dict'"),
        ({0: torch.ones(1)}, "holds no state_dict; tensors by name, bare or under 'state_dict'"),
        ({"net": {"a": torch.ones(1)}}, "holds no state_dict; tensors by name, bare or under 'state_dict'"),
    ],
    ids=["list", "tensor", "nothing", "no tensors", "numbers as keys", "other name"],
)
def test_something_else_that_was_pickled(tmp_path: Path, content: object, text: str) -> None:
    assert refused(tmp_path, content) == text


@pytest.mark.parametrize("filename", ["a.pth", "a.pth.tar", "a.ckpt"])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(64), b"\x80\x02nonsense"],
    ids=["empty", "text", "image", "almost a pickle"],
)
def test_other_files(tmp_path: Path, filename: str, content: bytes) -> None:
    path = tmp_path / filename
    path.write_bytes(content)
    assert refusal(path) == "is no checkpoint; a .pth, .pth.tar or .safetensors file"


@pytest.mark.parametrize("save", [torch.save, save_legacy, save_file], ids=["zip", "legacy", "safetensors"])
def test_a_truncated_file(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    path = tmp_path / ("a.safetensors" if save is save_file else "a.pth")
    save({"a": torch.zeros(10_000)}, path)
    path.write_bytes(path.read_bytes()[:-10_000])
    text = refusal(path)
    expected = r"is (damaged or no checkpoint|no readable safetensors file) \(.+\); download or copy it again"
    assert re.fullmatch(expected, text)
    assert len(text) < 200  # torch's advice is left out


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes/readme.txt", "hello")
    assert refusal(path).startswith("is damaged or no checkpoint (")


def test_an_empty_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.touch()
    assert refusal(path).startswith("is no readable safetensors file (")


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "is a folder; give a checkpoint file, or pwcnet-gocor-demo"
    assert refusal(tmp_path / "missing.pth") == "no such file; give a checkpoint file, or pwcnet-gocor-demo"


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    path.touch()

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # the tests may run as root, who may read everything
    assert refusal(path) == "cannot be read (Permission denied); a file that you may read"


# ── identity of weights


def test_weights_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "a.safetensors")
    save_training(weights(), tmp_path / "a.pth.tar")
    first, second = (load_network(tmp_path / name).info for name in ("a.safetensors", "a.pth.tar"))
    assert first is not None
    assert second is not None
    assert first.weights_sha256 == second.weights_sha256 == weights_sha256(golden_network("PWCNet_GOCor"))
    assert first.sha256 != second.sha256
    assert re.fullmatch("[0-9a-f]{64}", first.weights_sha256)


def change_one_value(network: Network) -> None:
    network.get_parameter("dc_conv7.bias").data[1] += 1e-6


def exchange_two_tensors(network: Network) -> None:
    first, second = (network.get_parameter(f"conv{level}aa.0.bias").data for level in (1, 2))
    kept = second[: len(first)].clone()
    second[: len(first)] = first
    first.copy_(kept)


@pytest.mark.parametrize("change", [change_one_value, exchange_two_tensors])
def test_weights_sha256_notices_every_change(change: Callable[[Network], None]) -> None:
    network = copy.deepcopy(golden_network("PWCNet_GOCor"))
    before = weights_sha256(network)
    change(network)
    assert weights_sha256(network) != before


def test_seeded_networks_are_reproducible() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = seeded_network("PWCNet"), seeded_network("PWCNet"), seeded_network("PWCNet", seed=1)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers change
    assert_same_weights(again, dict(first.state_dict()))
    assert first.info == CheckpointInfo(None, "", weights_sha256(first))
    assert other.info != first.info
    assert not first.training
    assert seeded_network("GLUNet_GOCor", iterations=1).global_iterations == 1


def test_recognize_says_the_name(small: Path) -> None:
    assert recognize(read_checkpoint(small)) == "PWCNet_GOCor"


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    broken = weights()
    broken["conv3a.0.weight"][5, 1, 2, 0] = torch.nan
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(
        CheckpointError, match=r"broken\.pth: has NaN or infinite values in conv3a\.0\.weight; "
    ):
        load_network(tmp_path / "broken.pth")


def test_a_negative_count_for_both_names_the_option_that_gave_it(small: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--iterations: is -1; a whole number from 0$"):
        load_network(small, iterations=-1)

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gocor.commands.export import parse_size
from gocor.core.errors import ConfigError

Invoke = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("text", ["384x512", "384X512", "384×512"])
def test_a_size_is_height_x_width(text: str) -> None:
    assert parse_size(text) == (384, 512)


@pytest.mark.parametrize("text", ["384", "384x", "-384x512", "384.0x512", "384x512x3", "a x b", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match=re.escape(f"--size: is {text!r}; height x width in pixels, as 384x512")
    ):
        parse_size(text)


def test_the_summary_says_what_was_written(exported) -> None:
    facts = dict(re.findall(r"^(\w+)\s{2,}(.+?)\s*$", exported.summary, re.MULTILINE))
    assert facts["model"] == str(exported.model)
    assert facts["network"] == "PWCNet_GOCor"
    assert facts["iterations"] == "local 1"
    assert facts["inputs"] == "reference uint8 (1, 64, 64, 3)"
    assert facts["outputs"] == "flow"
    assert facts["precision"] == "fp32"
    assert facts["size"].startswith(f"{exported.model.stat().st_size / 1e6:.1f} MB, ")


def test_the_model_knows_its_checkpoint(exported, invoke: Invoke) -> None:
    code, out, _ = invoke("inspect", exported.model)
    assert code == 0
    assert exported.checkpoint.name in out


def test_what_is_asked_of_the_flow_reaches_the_library(
    monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    from gocor.calibration.half import HalfConfig

    def export_within(network: object, path: Path, config: object, asked: HalfConfig, show: object) -> None:
        assert (config.precision, config.height) == ("bf16", 64)  # type: ignore[attr-defined]
        assert (asked.budget, asked.sensitivity) == (0.02, True)
        raise ConfigError("here", "is far enough")

    monkeypatch.setattr("gocor.calibration.half.export_within", export_within)
    line = "export pwcnet-gocor-demo -o m.onnx --size 64x64 --precision bf16 --sensitivity --budget"
    assert invoke(*line.split(), "0.02 px")[::2] == (2, "error: here: is far enough\n")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--budget 0.1px", "--budget: is for lower precision, and this is fp32; add --precision fp16"),
        ("--sensitivity", "--sensitivity: is for lower precision, and this is fp32; add --precision fp16"),
        ("--precision fp16 --budget -1", "--budget: is '-1'; pixels above 0, as 0.1px"),
        ("--precision fp16 --budget much", "--budget: is 'much'; pixels above 0, as 0.1px"),
        ("--precision fp16 --pairs a.mp4 --budget 1", "a.mp4: "),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    options: str, text: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = invoke(*["export", "their.pth", "-o", "m.onnx", "--size", "64x64"], *options.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {text}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_options_reach_the_library(monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> None:
    """Stops before the export itself, which takes seconds."""
    calls = {}

    def load_network(path: Path, iterations: int | None, **options: object) -> object:
        calls["load"] = (path, iterations, options)
        return type("Network", (), {"spec": type("Spec", (), {"name": "GLUNet_GOCor"})})

    def export_onnx(network: object, path: Path, **options: object) -> None:
        assert callable(options.pop("progress"))
        calls["export"] = (path, options)
        raise ConfigError("here", "is far enough")

    monkeypatch.setattr("gocor.export.checkpoint.load_network", load_network)
    monkeypatch.setattr("gocor.export.onnx_export.export_onnx", export_onnx)
    code, _, err = invoke(
        *("export", "their.pth", "-o", "m.onnx", "--size", "256x320", "--iterations", "4", "--batch", "2"),
        *(
            "--global-iterations",
            "5",
            "--local-iterations",
            "6",
            "--io",
            "tensors",
            "--network",
            "GLUNet_GOCor",
            "--precision",
            "fp16",
            "--dynamic",
            "height,batch",
        ),
    )
    assert (code, err) == (2, "error: here: is far enough\n")
    assert calls["load"] == (
        Path("their.pth"), 4, {"global_iterations": 5, "local_iterations": 6, "network": "GLUNet_GOCor"},
    )  # fmt: skip
    options = {
        "height": 256,
        "width": 320,
        "batch": 2,
        "io": "tensors",
        "precision": "fp16",
        "gocor": "fused",
        "dynamic": ("height", "batch"),
    }
    assert calls["export"] == (Path("m.onnx"), options)

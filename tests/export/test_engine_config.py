import enum
from pathlib import Path
from types import SimpleNamespace

import pytest

from gocor.core.errors import ConfigError
from gocor.export.engine_config import EngineConfig, compute_capability, parse_bytes


class Capabilities(enum.Enum):
    NONE, CURRENT, SM75, SM86, SM89, SM120 = range(6)


RTX = SimpleNamespace(__version__="1.7.1.116", ComputeCapability=Capabilities)
TENSORRT = SimpleNamespace(__version__="11.4.0.106")


def refusal(**options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        EngineConfig(**options).check()  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "openvino"}, "--backend: is 'openvino'; tensorrt or tensorrt-rtx"),
        ({"plugins": "all"}, "--plugins: is 'all'; auto or none"),
        ({"optimization_level": 6}, "--optimization-level: is 6; 0 to 5"),
        ({"optimization_level": -1}, "--optimization-level: is -1; 0 to 5"),
        ({"workspace": 0}, "--workspace: is 0; a size, as 4GiB"),
        (
            {"plugins": "none", "plugin_library": Path("p.so")},
            "--plugin-library: was given with --plugins none; one of them",
        ),
        ({"plugin_library": Path("p.so")}, "--plugin-library: p.so is no file; libgocor_plugins.so"),
    ],
)
def test_values_that_make_no_sense(options: dict[str, object], message: str) -> None:
    assert refusal(**options) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"timing_cache": Path("t")},
            "--timing-cache: is not there in TensorRT-RTX; its builder",
        ),
        ({"hardware_compatible": True}, "--hardware-compatible: is not there in TensorRT-RTX; leave it out"),
        ({"version_compatible": True}, "--version-compatible: is not there in TensorRT-RTX; build an engine"),
        ({"plugin_library": Path(__file__)}, "--plugin-library: is not there in TensorRT-RTX; it takes no"),
    ],
)
def test_what_rtx_lacks_is_refused_and_not_ignored(options: dict[str, object], message: str) -> None:
    EngineConfig(**options).check()  # type: ignore[arg-type]
    assert refusal(backend="tensorrt-rtx", **options).startswith(message)


def test_targets_of_rtx() -> None:
    asked = EngineConfig("tensorrt-rtx", compute_capabilities=("sm_75", "sm_120"))
    assert asked.targets(RTX) == {"sm_75": Capabilities.SM75, "sm_120": Capabilities.SM120}


def test_rtx_builds_for_all_from_ampere_on_if_told_nothing() -> None:
    assert list(EngineConfig("tensorrt-rtx").targets(RTX)) == ["sm_86", "sm_89", "sm_120"]


def test_a_target_that_the_library_does_not_know() -> None:
    with pytest.raises(ConfigError) as caught:
        EngineConfig("tensorrt-rtx", compute_capabilities=("sm_90",)).targets(RTX)
    assert str(caught.value) == (
        "--compute-capability: is sm_90; TensorRT-RTX knows sm_75, sm_86, sm_89, sm_120"
    )


def test_tensorrt_builds_for_its_own_gpu() -> None:
    assert EngineConfig().targets(TENSORRT) == {}
    with pytest.raises(ConfigError) as caught:
        EngineConfig(compute_capabilities=("sm_90",)).targets(TENSORRT)
    assert str(caught.value) == (
        "--compute-capability: is not there in TensorRT 11.4.0.106; it builds for the GPU that it builds on"
    )


@pytest.mark.parametrize(
    ("options", "plugins"),
    [({}, True), ({"plugins": "none"}, False), ({"backend": "tensorrt-rtx"}, False)],
)
def test_who_takes_plugins(options: dict[str, str], plugins: bool) -> None:
    assert EngineConfig(**options).with_plugins is plugins  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["sm_89", "SM89", "89", "8.9", " sm_89 "])
def test_spellings_of_a_compute_capability(text: str) -> None:
    assert compute_capability(text) == "sm_89"
    assert compute_capability("12.0") == compute_capability("sm120") == "sm_120"


@pytest.mark.parametrize("text", ["", "8", "ada", "sm_8x", "sm_90a", "8.9.1"])
def test_what_is_no_compute_capability(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--compute-capability: is {text!r}; as sm_89 or 8.9"):
        compute_capability(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GiB", 4 << 30),
        ("4G", 4 << 30),
        ("4GB", 4 << 30),
        ("512 MiB", 512 << 20),
        ("1.5K", 1536),
        ("99", 99),
    ],
)
def test_sizes_in_bytes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GiB", "-4GiB", "4 giraffes", "4PiB", "1e9"])
def test_what_is_no_size_in_bytes(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--workspace: is {text!r}; a size, as 4GiB or 512MiB"):
        parse_bytes(text)

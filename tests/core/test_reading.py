import contextlib
import json
import os
import threading
from pathlib import Path

import pytest

from gocor.core.errors import ConfigError, ModelError
from gocor.core.reading import LIMITS, MANIFEST, MIB, Limit, check_size, parse_json, read_bytes, read_json

LIMIT = Limit("model", 1)
TOO_LARGE = "is too large for a model (2 MiB, and 1 are read); where you trust it: GOCOR_MAX_MODEL_MIB=2"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of two MiB, none of which is on the disk."""
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 2 * MIB)
    return path


def test_a_file_as_large_as_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(MIB))
    check_size(tmp_path / "file", LIMIT, ModelError)
    assert read_bytes(tmp_path / "file", LIMIT, ModelError) == bytes(MIB)


@pytest.mark.parametrize("read", [check_size, read_bytes, read_json])
def test_a_larger_one_is_not_and_the_text_says_how_to(read: object, large: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read(large, LIMIT, ModelError)  # type: ignore[operator]
    assert str(caught.value) == f"{large}: {TOO_LARGE}"


def test_the_variable_raises_the_limit(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOCOR_MAX_MODEL_MIB", "2")
    assert len(read_bytes(large, LIMIT, ModelError)) == 2 * MIB


@pytest.mark.parametrize("text", ["", "0x10", "-1", "1e3", "a lot", "9" * 30])
def test_a_variable_that_makes_no_sense(text: str, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOCOR_MAX_MODEL_MIB", text)
    with pytest.raises(ConfigError, match=r"GOCOR_MAX_MODEL_MIB: is '.*'; a number of MiB"):
        check_size(large, LIMIT, ModelError)


def test_a_pipe_is_read_to_its_end_and_not_beyond_the_limit(tmp_path: Path) -> None:
    for size in (100_000, 3 * MIB):
        pipe = tmp_path / f"pipe{size}"
        os.mkfifo(pipe)
        writer = threading.Thread(target=_write, args=(pipe, bytes(size)))
        writer.start()
        if size < MIB:
            assert read_bytes(pipe, LIMIT, ModelError) == bytes(size)
        else:
            with pytest.raises(ModelError, match="too large for a model"):
                read_bytes(pipe, LIMIT, ModelError)
        writer.join()


def _write(path: Path, content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        path.write_bytes(content)


def test_a_device_without_end() -> None:
    with pytest.raises(ModelError, match="/dev/zero: is too large for a model"):
        read_bytes("/dev/zero", LIMIT, ModelError)


def test_json_reads_as_always(tmp_path: Path) -> None:
    content = {"a": [1, -2.5e3, None, True, "ä\ud800"], "b": {}}
    (tmp_path / "file.json").write_text(json.dumps(content))
    assert read_json(tmp_path / "file.json", MANIFEST, ModelError) == content


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[NaN]", "NaN is no number of JSON"),
        ("-Infinity", "-Infinity is no number of JSON"),
        ("{", "Expecting property name"),
        ("9" * 5000, "Exceeds the limit"),
    ],
)
def test_what_is_no_json_is_one_kind_of_error(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_every_limit_has_a_variable_of_its_own() -> None:
    assert len({limit.variable for limit in LIMITS}) == len(LIMITS)

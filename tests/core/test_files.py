import errno
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from full_disk import files_up_to

from gocor.core.errors import OutputError
from gocor.core.files import atomic_folder, atomic_path, check_writable, sha256, write_text, write_together


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files may grow to 4 KiB, as on a disk that is about to be full."""
    with files_up_to(4096):
        yield


def write_half_and_fail(path: Path, failure: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise failure


def test_the_file_appears_whole_under_its_name(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "flow.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path / "new"
        temporary.write_bytes(b"whole")
        assert not (tmp_path / "new" / "flow.png").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["flow.png"]
    assert (tmp_path / "new" / "flow.png").read_bytes() == b"whole"


@pytest.mark.parametrize("failure", [ValueError("bad"), KeyboardInterrupt()])
def test_a_failure_keeps_the_earlier_file_and_leaves_nothing_else(
    tmp_path: Path, failure: BaseException
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"earlier")
    with pytest.raises(type(failure)):
        write_half_and_fail(path, failure)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("earlier")
    with pytest.raises(
        OutputError, match=r"report\.json: cannot be written \(File too large\); give a writable"
    ):
        write_text(path, "x" * 8192)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_disk_inside_the_block_counts_as_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left on device"), atomic_path(tmp_path / "flow.flo"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with (
        pytest.raises(OutputError, match=r"flow\.flo: cannot be written \(a folder of its path is a file\)"),
        atomic_path(tmp_path / "taken/flow.flo"),
    ):
        pytest.fail("the block must not run")


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    for folder in (tmp_path / "model.onnx", Path("."), Path("/")):
        with (
            pytest.raises(OutputError, match=r"cannot be written \(it is a folder\); the path of a file"),
            atomic_path(folder),
        ):
            pytest.fail("the block must not run")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link, file = tmp_path / "latest.json", tmp_path / "elsewhere/report.json"
    link.symlink_to(file)
    for text in ("first", "second"):  # of which only the second finds the file
        write_text(link, text)
        assert link.is_symlink()
        assert file.read_text() == text
    assert list((tmp_path / "elsewhere").iterdir()) == [file]


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as threads:
        read = threads.submit(pipe.read_text)  # opening either end waits for the other
        write_text(pipe, "report")
        assert read.result() == "report"
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_checking_beforehand_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    check_writable(path)
    assert not list(tmp_path.iterdir())
    path.write_text("earlier")
    check_writable(path)
    assert path.read_text() == "earlier"
    with pytest.raises(OutputError, match=r"report\.json/b: cannot be written"):
        check_writable(path / "b")


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "report.json", "Größe ±1")
    assert (tmp_path / "report.json").read_bytes().decode() == "Größe ±1"


def test_the_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "weights.pth").write_bytes(content)
    assert sha256(tmp_path / "weights.pth") == hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("small_disk")
def test_files_that_belong_together_are_written_together(tmp_path: Path) -> None:
    first, second = tmp_path / "model.xml.json", tmp_path / "model.xml"
    write_together({first: b"1", second: b"1"})
    with pytest.raises(OutputError, match=r"model\.xml: cannot be written \(File too large\)"):
        write_together({first: b"2", second: b"2" * 8192})
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"1")
    second.unlink()
    second.mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        write_together({first: b"2", second: b"2"})
    assert first.read_bytes() == b"1"
    assert sorted(tmp_path.iterdir()) == [second, first]


def build_half_and_fail(folder: Path, failure: BaseException) -> None:
    with atomic_folder(folder, replace=True) as built:
        (built / "file").write_text("half")
        raise failure


def test_a_folder_appears_whole_under_its_name(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "new" / "package") as built:
        (built / "file").write_text("whole")
        assert not (tmp_path / "new" / "package").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["package"]
    assert (tmp_path / "new" / "package" / "file").read_text() == "whole"


@pytest.mark.parametrize("failure", [ValueError("bad"), KeyboardInterrupt()])
def test_a_failure_keeps_the_earlier_folder(tmp_path: Path, failure: BaseException) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "file").write_text("earlier")
    with pytest.raises(type(failure)):
        build_half_and_fail(folder, failure)
    assert [path.name for path in tmp_path.iterdir()] == ["package"]
    assert (folder / "file").read_text() == "earlier"


def test_a_folder_is_replaced_only_if_asked(tmp_path: Path) -> None:
    folder, link = tmp_path / "package", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    with atomic_folder(link) as built:  # an empty one may be there
        (built / "first").touch()
    with pytest.raises(OutputError, match="link: is there already, and not empty; a new folder"):
        atomic_folder(link).__enter__()
    with atomic_folder(link, replace=True) as built:
        (built / "second").touch()
    assert link.is_symlink()
    assert [path.name for path in folder.iterdir()] == ["second"]
    with pytest.raises(OutputError, match="second: is a file; the path of a folder"):
        atomic_folder(folder / "second").__enter__()


def test_a_folder_that_cannot_get_its_name_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "package", Path.rename
    folder.mkdir()
    (folder / "file").write_text("earlier")

    def refuse(path: Path, target: Path) -> Path:
        if (path / "new").exists():
            raise OSError(errno.EACCES, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with (
        pytest.raises(OutputError, match=r"cannot be written \(Permission denied\)"),
        atomic_folder(folder, replace=True) as built,
    ):
        (built / "new").touch()
    assert (folder / "file").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["package"]

"""Fixtures that several folders of tests share."""

import contextlib
import fcntl
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class Exported(NamedTuple):
    """A checkpoint and its model."""

    checkpoint: Path
    model: Path
    summary: str


@pytest.fixture(autouse=True)
def own_logger() -> Iterator[None]:
    """``gocor --verbose`` in one test is not heard in the next."""
    logger = logging.getLogger("gocor")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: ``invoke("inspect", path)`` gives code, stdout, stderr."""
    from gocor.__main__ import invoke as invoke_in_process

    def run(*arguments: object) -> tuple[int, str, str]:
        code = invoke_in_process([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """PWC-Net-GOCor with seeded weights and its model for images of 64x64. Do not write to them.

    Made by ``gocor export``, once for all worker processes, since it takes seconds.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    made = Exported(folder / "seeded.pth", folder / "model.onnx", "")
    with locked(folder):
        if not (folder / "summary.txt").exists():
            (folder / "summary.txt").write_text(_export(made))
    return made._replace(summary=(folder / "summary.txt").read_text())


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one process at a time through."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _export(made: Exported) -> str:
    import torch

    from gocor.__main__ import invoke as invoke_in_process
    from gocor.export.checkpoint import seeded_network

    torch.save(seeded_network("PWCNet_GOCor").state_dict(), made.checkpoint)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = invoke_in_process(
            ["export", str(made.checkpoint), "-o", str(made.model), "--size", "64x64", "--iterations", "1"]
        )
    assert code == 0
    return out.getvalue()

"""Engines of TensorRT, where it is installed: built by ``gocor build`` and timed by ``gocor bench``."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gocor.core.errors import DependencyError, GocorError
from gocor.export.checkpoint import seeded_network
from gocor.export.onnx_export import export_onnx
from on_gpu.levels import SIZES
from on_gpu.results import EngineRow
from on_gpu.timing import timing

PLUGINS = ("auto", "none")


class CommandError(GocorError):
    """A command of ``gocor`` failed."""


def time_engines(name: str, rounds: int) -> Iterator[EngineRow]:
    """One network from images to flow, with our plugins and without.

    Raises:
        DependencyError: TensorRT is not installed.
        CommandError: a command failed; the text is its own last line.
    """
    if importlib.util.find_spec("tensorrt") is None:
        raise DependencyError("engines", "TensorRT is not installed", 'pip install "gocor-deploy[tensorrt]"')
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / f"{name}.onnx"
        export_onnx(seeded_network(name), model, height=SIZES[name][0], width=SIZES[name][1])
        for plugins in PLUGINS:
            yield _time_engine(name, model, plugins, rounds)


def _time_engine(name: str, model: Path, plugins: str, rounds: int) -> EngineRow:
    engine, report = model.with_suffix(f".{plugins}.engine"), model.with_suffix(".json")
    built = json.loads(gocor("build", model, "-o", engine, "--plugins", plugins, "--json"))
    gocor("bench", engine, "--provider", "tensorrt", "--rounds", rounds, "--json", report)
    times_ms = json.loads(report.read_text())["results"][0]["times_ms"]
    times = {"engine": timing([1000 * time for time in times_ms], 1)}
    version = built["manifest"]["library_version"]
    return EngineRow(name, SIZES[name], plugins, version, built["build_seconds"], times)


def gocor(*arguments: Any) -> str:
    """What a command prints.

    Raises:
        CommandError: it fails.
    """
    command = [sys.executable, "-m", "gocor", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["said nothing"]
        raise CommandError(f"gocor {arguments[0]}", f"failed with exit code {done.returncode}", lines[-1])
    return done.stdout

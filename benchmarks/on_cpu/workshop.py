"""Where models are made, and kept if a folder for them is given: nothing of this is timed."""

import json
from collections.abc import Callable
from pathlib import Path

from gocor.calibration.calibrate import CalibrationConfig, calibrate
from gocor.export.checkpoint import seeded_network
from gocor.export.onnx_export import export_onnx
from gocor.export.openvino import build_openvino
from gocor.runtime.benchmark import peak_memory_mib
from gocor.runtime.report import write_json
from gocor.runtime.spec import SPECS

SYNTHETIC_PAIRS = 2  # to calibrate with: ranges do not change how long 8 bits take
Size = tuple[int, int]


class Workshop:
    """Models of seeded networks, from preprocessed tensors to all flows; each is made once.

    Attributes:
        folder: that they are in.
        threads: that every candidate may use.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder, self.threads = folder, threads
        folder.mkdir(parents=True, exist_ok=True)

    def onnx(self, name: str, size: Size, iterations: int = 3, batch: int = 1) -> Path:
        """The exported network, at the size that it resizes such images to."""
        height, width = SPECS[name].working_size(*size)
        path = self.folder / f"{name}-{height}x{width}-i{iterations}-b{batch}.onnx"
        if not path.exists():
            network = seeded_network(name, iterations)
            export_onnx(network, path, height=height, width=width, batch=batch, io="tensors")
        return path

    def int8(self, model: Path) -> Path:
        """The same with 8-bit convolutions, in the form that CPUs are fast in."""
        path = model.with_suffix(".int8.onnx")
        if not path.exists():
            config = CalibrationConfig(target="cpu", synthetic=SYNTHETIC_PAIRS, threads=self.threads)
            calibrate(model, path, config=config)
        return path

    def openvino(self, model: Path) -> Path:
        """The same for OpenVINO, which is told to compute in float32."""
        path = model.with_suffix(".xml")
        if not path.exists():
            build_openvino(model, path, "f32")
        return path

    def memory(self, key: str, function: Callable[..., object], *arguments: object) -> float | None:
        """Peak memory of a fresh process, measured once."""
        file = self.folder / "memory.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        if key not in known:
            known[key] = peak_memory_mib(function, *arguments)
            write_json(file, known)
        value: float | None = known[key]
        return value

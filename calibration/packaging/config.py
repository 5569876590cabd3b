"""What is to be in a package."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

from gocor.core.errors import ConfigError
from gocor.export.engine_config import EngineConfig
from gocor.runtime.metadata import Axis
from gocor.runtime.package import BACKENDS, PackagedBackend
from gocor.runtime.pairs import PairSource

Lowered = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Lowered, ...] = get_args(Lowered)
ENGINES: tuple[PackagedBackend, ...] = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class PackageConfig:
    """What is to be in a package.

    Attributes:
        sizes: height and width of the images; every size gets models of its own.
        precisions: some of ``PRECISIONS``; float32 models are there in any case.
        backends: some of ``BACKENDS``; models for ONNX Runtime are there in any case.
        batch: image pairs in a call.
        dynamic: axes of one more float32 model, for ONNX Runtime, that vary; none if empty.
        synthetic: calibrate 8-bit models with so many generated pairs rather than given ones.
        samples: calibrate with at most so many of the pairs that are given.
        tolerance: AEPE that models in lower precision are allowed, px; that of ``gocor verify`` when None.
        licence: what is known about the licence of the checkpoint; the usual remark when None.
        threads: on the CPU; one for each physical core when None.
        overwrite: take the place of a package that is there.
    """

    sizes: tuple[tuple[int, int], ...]
    precisions: tuple[Lowered, ...] = ("fp32",)
    backends: tuple[PackagedBackend, ...] = ("onnxruntime",)
    batch: int = 1
    dynamic: tuple[Axis, ...] = ()
    synthetic: int | None = None
    samples: int = 64
    tolerance: float | None = None
    licence: str | None = None
    threads: int | None = None
    overwrite: bool = False

    @property
    def all_precisions(self) -> tuple[Lowered, ...]:
        """Those that were asked for and float32, which others are made from and measured by."""
        return tuple(precision for precision in PRECISIONS if precision in ("fp32", *self.precisions))

    @property
    def builds(self) -> tuple[PackagedBackend, ...]:
        """Backends with files of their own."""
        return tuple(backend for backend in BACKENDS if backend in self.backends and backend != "onnxruntime")

    @property
    def engines(self) -> tuple[PackagedBackend, ...]:
        """Backends that take TensorRT's form of 8-bit models."""
        return tuple(backend for backend in self.builds if backend in ENGINES)

    def check(self, pairs: PairSource | None) -> None:
        """Raises ConfigError if that makes no sense."""
        if not self.sizes:
            raise ConfigError("--size", "is missing", "at least once, as --size 384x512")
        for option, values in (
            ("--size", tuple(f"{height}x{width}" for height, width in self.sizes)),
            ("--precision", self.precisions), ("--backend", self.backends),
        ):  # fmt: skip
            if twice := [value for value, count in Counter(values).items() if count > 1]:
                raise ConfigError(option, f"has {twice[0]} twice", "each once")
        for option, values, known in (
            ("--precision", self.precisions, PRECISIONS),
            ("--backend", self.backends, BACKENDS),
        ):
            if unknown := [value for value in values if value not in known]:
                raise ConfigError(option, f"has {unknown[0]!r}", f"some of {','.join(known)}")
        if self.licence is not None and not (self.licence.isprintable() and 0 < len(self.licence) < 1000):
            raise ConfigError("--licence", "is no line of text", "one line, of at most 1000 characters")
        if self.threads is not None and self.threads < 1:
            raise ConfigError("--threads", f"is {self.threads}", "at least 1")
        self._check_calibration(pairs)
        self._check_tolerance()

    def _check_calibration(self, pairs: PairSource | None) -> None:
        if self.samples < 1:
            raise ConfigError("--samples", f"is {self.samples}", "at least 1")
        if "int8" not in self.precisions:
            if self.synthetic is not None:
                raise ConfigError("--synthetic", "is to calibrate with", "add int8 to --precision")
            return
        if pairs is None and self.synthetic is None:
            raise ConfigError(
                "--precision", "has int8, and nothing to calibrate with", "--pairs or --synthetic 64"
            )
        if pairs is not None and self.synthetic is not None:
            raise ConfigError("--synthetic", "was given with --pairs", "one or the other")
        if self.synthetic is not None and self.synthetic < 1:
            raise ConfigError("--synthetic", f"is {self.synthetic}", "at least 1")

    def _check_tolerance(self) -> None:
        if self.tolerance is None:
            return
        if not 0 < self.tolerance < math.inf:
            raise ConfigError("--tolerance", f"is {self.tolerance}", "pixels above 0, such as 0.2")
        if self.all_precisions == ("fp32",):
            raise ConfigError("--tolerance", "is for lower precision, and this is fp32", "leave it out")


def check_libraries(config: PackageConfig) -> None:
    """Finds out before long work whether what builds and generates the parts of a package works here.

    Raises:
        DependencyError: a library is not installed.
        ProviderError: TensorRT finds no GPU.
    """
    from gocor.runtime.onnxruntime_session import check_provider

    check_provider("cpu")
    if config.synthetic is not None:
        from gocor.evaluation.synthetic.photographs import data_folder

        data_folder("--synthetic")
    for backend in config.builds:
        if backend == "openvino":
            from gocor.runtime.openvino_session import import_openvino

            import_openvino()
            continue
        from gocor.runtime import cuda
        from gocor.runtime.tensorrt_library import import_library

        import_library(backend)  # type: ignore[arg-type]
        EngineConfig(backend=backend).check()  # type: ignore[arg-type]
        if backend == "tensorrt":
            cuda.current_device()

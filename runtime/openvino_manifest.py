"""What ``gocor build --backend openvino`` made: ``model.xml``, its weights ``model.bin``, ``model.xml.json``.

OpenVINO reads its files of older versions, but not of newer ones, and runs them in whatever precision it is
told to: both are in the manifest.
"""

import hashlib
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from gocor.core.errors import MachineError, ModelError
from gocor.core.reading import MODEL, read_bytes
from gocor.runtime.manifest import EngineManifest, Manifest, release

InferencePrecision = Literal["f32", "bf16"]
INFERENCE_PRECISIONS: tuple[InferencePrecision, ...] = ("f32", "bf16")
OPENVINO: Final = "openvino"
OPENVINO_SUFFIX = ".xml"


@dataclass(frozen=True)
class OpenVINOManifest(Manifest):
    """Facts about a model of OpenVINO.

    Attributes:
        backend: the library that reads it.
        xml_sha256: SHA-256 of the graph, the ``.xml`` file.
        bin_sha256: SHA-256 of the weights, the ``.bin`` file.
        inference_precision: that operators compute in unless the model says int8 or told otherwise. Always
            given to OpenVINO, which else takes bfloat16 where the processor has it.
    """

    KIND: ClassVar[str] = "OpenVINO model"

    backend: Literal["openvino"]
    xml_sha256: str
    bin_sha256: str
    inference_precision: InferencePrecision

    @property
    def library(self) -> str:
        """Name and version of the library that wrote the model."""
        return f"OpenVINO {self.library_version}"

    @property
    def weights(self) -> Path:
        """The ``.bin`` file."""
        return weights_path(self.path)

    def check_file(self) -> None:
        """Raises ModelError unless graph and weights are, byte for byte, the files that were built."""
        self.read_checked()

    def read_checked(self) -> tuple[bytes, bytes]:
        """Graph and weights, read once: the bytes that are run are the bytes that were checked.

        Raises:
            ModelError: one is missing or is not, byte for byte, the file that was built.
        """
        return self._read(self.path, self.xml_sha256), self._read(self.weights, self.bin_sha256)

    def check_runs_on(self, library_version: str) -> None:
        """Raises MachineError if the installed OpenVINO is older than the one that wrote the model."""
        if release(library_version)[:2] < release(self.library_version)[:2]:
            got = f"was built with {self.library}; {library_version} is installed, which is older"
            raise MachineError(self.path, got, f"update OpenVINO, or rebuild the model: {self.rebuild}")

    @property
    def rebuild(self) -> str:
        """The command that builds the model again, of the ONNX model beside it."""
        command = ["gocor", "build", str(self.path.parent / self.model), "-o", str(self.path)]
        command += ["--backend", OPENVINO]
        if self.inference_precision != "f32":
            command += ["--inference-precision", self.inference_precision]
        return shlex.join(command)

    def _read(self, path: Path, expected: str) -> bytes:
        try:
            content = read_bytes(path, MODEL, ModelError)
        except FileNotFoundError as error:
            hint = f"copy it, too, or rebuild the model: {self.rebuild}"
            raise ModelError(path, f"is missing, the weights of {self.path}", hint) from error
        if (came := hashlib.sha256(content).hexdigest()) != expected:
            raise self._changed(path, came, expected)
        return content

    @classmethod
    def _known(cls) -> Mapping[str, Collection[str]]:
        return {"backend": (OPENVINO,), "inference_precision": INFERENCE_PRECISIONS}


def weights_path(graph: str | Path) -> Path:
    """Path of the weights of ``model.xml``, ``model.bin``."""
    return Path(graph).with_suffix(".bin")


def read_manifest(built: str | Path) -> EngineManifest | OpenVINOManifest:
    """Reads the manifest beside any file that ``gocor build`` made.

    Raises:
        ModelError: there is none, or it is damaged or of a newer format.
    """
    kind = OpenVINOManifest if Path(built).suffix == OPENVINO_SUFFIX else EngineManifest
    return kind.of(built)

"""A model file as something to call: two images in, their flow out."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from gocor.core.errors import ConfigError, ModelError, ProviderError, ShapeError
from gocor.core.reading import CHECKPOINT, MODEL, check_size
from gocor.runtime.metadata import ORIENTATION_SCORE, ModelMetadata, Precision, TensorSpec
from gocor.runtime.onnx_file import check_self_contained
from gocor.runtime.openvino_manifest import OPENVINO, OPENVINO_SUFFIX
from gocor.runtime.preprocess import as_batches, postprocess, preprocess, resize_flow, resize_images

PROVIDERS = ("cpu", "cuda", "tensorrt")
ENGINE_PROVIDERS = ("tensorrt", "tensorrt-rtx")
ENGINE_SUFFIXES = (".engine", ".plan")
BUILT_SUFFIXES = (*ENGINE_SUFFIXES, OPENVINO_SUFFIX)  # files of gocor build, which know where they run
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".tar", ".safetensors")

logger = logging.getLogger("gocor")


@dataclass(frozen=True)
class Estimate:
    """What a model says about a pair, or with a leading axis about N pairs.

    Attributes:
        flow: float32 ``(2, H, W)`` on the reference grid, in pixels, channel 0 = x.
        orientation_score: float32, how well the pair fits as it is (GLU-Net family); None otherwise.
    """

    flow: np.ndarray
    orientation_score: np.ndarray | None


class FlowEstimator(ABC):
    """A loaded model. Thread-safe: any number of threads may call one estimator.

    Attributes:
        path: of the model file.
        metadata: what the file says about itself.
        provider: where it runs: ``cpu``, ``cuda``, ``tensorrt``, ``tensorrt-rtx`` or ``openvino``.
        placement: number of operators on each of the library's own providers; empty if it does not say.
        streams: batches that one call with many pairs computes side by side.
    """

    streams = 1

    def __init__(
        self, path: Path, metadata: ModelMetadata, provider: str, placement: Mapping[str, int]
    ) -> None:
        self.path, self.metadata, self.provider, self.placement = path, metadata, provider, placement
        self._closed = self._size_noted = False

    def __call__(self, reference: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Estimates the flow of a pair of images, or of a batch of them.

        Images of another size than the model's are resized by the network's own rule, and the flow back. A
        model whose sizes vary takes all images at their own, and all pairs of a batch in one call if it can.

        Args:
            reference: uint8 RGB ``(H, W, 3)`` or ``(N, H, W, 3)`` with any N.
            query: likewise, of the same shape.

        Returns:
            float32 ``(2, H, W)`` or ``(N, 2, H, W)`` in pixels, channel 0 = x:
            ``reference(x) ≈ query(x + flow(x))``.

        Raises:
            ShapeError: the images are no uint8 RGB arrays of one shape, or out of the model's range of sizes.
            ModelError: the estimator was closed, or the model failed.
        """
        return self.estimate(reference, query).flow

    def estimate(self, reference: np.ndarray, query: np.ndarray) -> Estimate:
        """Like calling the estimator, with everything the model says about the pairs."""
        single = np.ndim(reference) == 3
        reference, query = as_batches(reference, query)
        count, height, width, _ = reference.shape
        self._note_size(height, width)
        flow = np.empty((count, 2, height, width), np.float32)
        score = np.empty(count, np.float32) if self.metadata.spec.family == "glunet" else None

        step = self.metadata.for_images(count, height, width).batch

        def run_batch(start: int) -> None:
            pairs = slice(start, start + step)
            used = len(reference[pairs])
            described = self.metadata.for_images(used, height, width)
            outputs = self.run(model_inputs(described, reference[pairs], query[pairs]))
            flow[pairs] = _flow(described, outputs, height, width)[:used]
            if score is not None:
                score[pairs] = outputs[ORIENTATION_SCORE][:used]

        self._each(run_batch, range(0, count, step))
        if single:
            return Estimate(flow[0], None if score is None else score[0])
        return Estimate(flow, score)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model on its own inputs (``metadata.inputs``) and returns every output by name.

        Raises:
            ShapeError: an input is missing, unknown, or of the wrong dtype or shape.
            ModelError: the estimator was closed, or the model failed.
        """
        self._check_names(inputs)
        sized = self.metadata.for_inputs({name: array.shape for name, array in inputs.items()})
        for spec in sized.inputs:
            name = spec.name
            if inputs[name].dtype != spec.dtype or inputs[name].shape != spec.shape:
                raise ShapeError(
                    name,
                    f"is {inputs[name].dtype} {inputs[name].shape}",
                    f"{self.path} takes {spec.dtype} {spec.shape}",
                )
        outputs = self._run(inputs)
        self._check_results(sized, outputs)
        return outputs

    @property
    def precision(self) -> Precision:
        """That convolutions and correlations have, as the model says or as they were told to run."""
        return self.metadata.precision

    def note_no_size(self) -> None:
        """Keeps the estimator from logging that images are resized, for who knows it already."""
        self._size_noted = True

    def close(self) -> None:
        """Gives the model's memory back. Calls that run in other threads finish; later ones are errors."""
        self._closed = True
        self._release()

    def __enter__(self) -> "FlowEstimator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        described = self.metadata
        return (
            f"<{type(self).__name__} {described.network} {described.height}x{described.width} "
            f"batch {described.batch} on {self.provider}, {self.path}>"
        )

    @abstractmethod
    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model on checked inputs."""

    @abstractmethod
    def _release(self) -> None:
        """Drops the model; calls in other threads may still run."""

    def _each(self, run: Callable[[int], None], starts: Iterable[int]) -> None:
        """Runs every batch of a call."""
        for start in starts:
            run(start)

    def _check_names(self, inputs: Mapping[str, object]) -> None:
        """Refuses calls of a closed estimator, and inputs that are missing or unknown."""
        if self._closed:
            raise self._was_closed()
        expected = [spec.name for spec in self.metadata.inputs]
        if inputs.keys() != set(expected):
            raise ShapeError(
                self.path, f"was given inputs {_list(inputs)}", f"its inputs are {_list(expected)}"
            )

    def _check_results(self, sized: ModelMetadata, outputs: Mapping[str, np.ndarray]) -> None:
        """Refuses results of another size than the model says, whatever file it is from."""
        for spec in (sized.flow, TensorSpec(ORIENTATION_SCORE, "float32", (sized.batch,))):
            if spec.name in outputs:
                came = np.asarray(outputs[spec.name])
                if (given := TensorSpec(spec.name, str(came.dtype), came.shape)) != spec:
                    raise ModelError(self.path, f"gave {given}", f"its metadata says {spec}; export again")

    def _was_closed(self) -> ModelError:
        return ModelError(self.path, "was closed", "load it again to go on")

    def _note_size(self, height: int, width: int) -> None:
        official = (height, width)
        if self.metadata.io == "tensors":
            official = self.metadata.spec.working_size(height, width)
        size = self.metadata.for_images(1, height, width).size
        if self._size_noted or official == size:
            return
        self._size_noted = True
        logger.warning(
            "%s is made for %dx%d; images of %dx%d are resized to that, and only a model exported with "
            "--size %dx%d gives the official result",
            *(self.path.name, *size, height, width, *official),
        )


def _flow(described: ModelMetadata, outputs: Mapping[str, np.ndarray], height: int, width: int) -> np.ndarray:
    flow = outputs[described.flow.name]
    if described.io == "tensors":
        return postprocess(described.spec, flow, height, width, described.size)
    return flow if (height, width) == described.size else resize_flow(flow, height, width)


def load(
    path: str | Path,
    provider: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
) -> FlowEstimator:
    """Loads a model that ``gocor export`` made, what ``gocor build`` made of one, or a package of them.

    Args:
        path: of the model, an ``.onnx`` file, of the engine, an ``.engine`` or ``.plan`` file, or of the
            model for OpenVINO, an ``.xml`` file. Or the folder of a package, of whose models each image takes
            the one that fits: ``gocor.runtime.package_choice`` is the rule.
        provider: ``cpu``, ``cuda`` or ``tensorrt`` for an ``.onnx`` file, in ONNX Runtime; ``cpu`` when None.
            Other files run on what they were built for, ``tensorrt``, ``tensorrt-rtx`` or ``openvino``;
            naming another is an error. A model runs there or not at all.
        threads: for the operators on the CPU; one for each physical core when None. An engine has no such
            operators, and takes None only.
        precision: of a package's models, ``fp32`` when None; a model has its own, and takes None only.

    Returns:
        The estimator; call it with two images, and close it (or use it in ``with``) to free its memory.

    Raises:
        ModelError: there is no such file, or it is damaged or none of ours; or it does not fit this machine.
        ProviderError: the provider is unknown or not available here.
        ConfigError: the number of threads makes no sense, or is given for an engine; or a package has nothing
            in that precision.
        DependencyError: the library that runs such models is not installed.
    """
    if threads is not None and threads < 1:
        raise ConfigError("threads", f"is {threads}", "at least 1")
    if Path(path).is_dir():
        from gocor.runtime.package_session import PackageEstimator

        return PackageEstimator(path, provider, threads, precision)  # type: ignore[arg-type]
    path = check_model_file(path)
    _check_provider(path, provider)
    if precision is not None:
        raise ConfigError("precision", f"chooses among a package's models, and {path} is one", "leave it out")
    if path.suffix == ".onnx":
        from gocor.runtime.onnxruntime_session import OnnxRuntimeEstimator

        return OnnxRuntimeEstimator(path, provider or "cpu", threads)
    if path.suffix == OPENVINO_SUFFIX:
        from gocor.runtime.openvino_session import OpenVINOEstimator

        return OpenVINOEstimator(path, provider, threads)
    if path.suffix in ENGINE_SUFFIXES:
        if threads is not None:
            raise ConfigError("threads", f"are those of the CPU, and {path} is an engine", "leave them out")
        from gocor.runtime.tensorrt_session import TensorRTEstimator

        return TensorRTEstimator(path, provider)
    if path.suffix in CHECKPOINT_SUFFIXES:
        raise ModelError(path, "is a checkpoint", f"make a model of it: gocor export {path} -o model.onnx")
    known = "models are .onnx, .engine or .xml files"
    raise ModelError(path, f"has the unknown suffix {path.suffix!r}", known)


def _check_provider(path: Path, provider: str | None) -> None:
    """Refuses names that are none, and for an ONNX file those that need another file."""
    built_for = dict.fromkeys(ENGINE_SUFFIXES, ENGINE_PROVIDERS) | {OPENVINO_SUFFIX: (OPENVINO,)}
    if provider is not None and provider not in (*PROVIDERS, *ENGINE_PROVIDERS, OPENVINO):
        known = built_for.get(path.suffix, PROVIDERS)
        raise ProviderError("provider", f"unknown name {provider!r}", f"one of {', '.join(known)}")
    if path.suffix != ".onnx":
        return
    for name, kind, output in (
        ("tensorrt-rtx", "engines", "model.engine"), (OPENVINO, "OpenVINO's own files", "model.xml"),
    ):  # fmt: skip
        if provider == name:
            hint = f"gocor build {path} -o {output} --backend {name}"
            raise ProviderError("provider", f"{name!r} runs {kind}, and {path} is a model", hint)


def model_inputs(metadata: ModelMetadata, reference: np.ndarray, query: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs of a model for up to ``batch`` pairs, resized; the last pair is repeated to fill the batch.

    Args:
        metadata: of the model, at fixed sizes.
        reference: uint8 RGB ``(N, H, W, 3)``.
        query: likewise.
    """
    if missing := metadata.batch - len(reference):
        reference, query = (np.concatenate([i, *[i[-1:]] * missing]) for i in (reference, query))
    if metadata.io == "tensors":
        return preprocess(metadata.spec, reference, query, metadata.size)
    family = metadata.spec.family
    return {
        "reference": resize_images(reference, *metadata.size, family),
        "query": resize_images(query, *metadata.size, family),
    }


def check_model_file(path: str | Path) -> Path:
    """Refuses what cannot be a model before a library with worse messages sees it.

    Raises:
        ModelError: no such file, a folder, empty, unreadable, larger than a limit, or an ONNX file that takes
            anything from other files.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ModelError(path, "is a folder", "give a model file; a package has them in models/")
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ModelError(path, "is no regular file", "give a model file")
        check_size(path, CHECKPOINT if path.suffix in CHECKPOINT_SUFFIXES else MODEL, ModelError)
        with path.open("rb") as file:
            if not file.read(1):
                raise ModelError(path, "is empty", "give a model made by gocor export")
        if path.suffix == ".onnx":
            check_self_contained(path)
    except FileNotFoundError as error:
        raise ModelError(path, "no such file", "give a model made by gocor export") from error
    except OSError as error:
        raise ModelError(path, f"cannot be read ({error.strerror})", "check its permissions") from error
    return path


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"

"""A package as something to call: for every image the model of it that fits."""

import contextlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from gocor.core.errors import ConfigError, ModelError, ShapeError
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.package import Package, PackagedModel, PackagedPrecision
from gocor.runtime.package_choice import Choice, choose, find_candidates
from gocor.runtime.preprocess import as_batches
from gocor.runtime.session import ENGINE_PROVIDERS, Estimate, FlowEstimator, load

OPEN_MODELS = 4  # at a time, by default

logger = logging.getLogger("gocor")


class PackageEstimator(FlowEstimator):
    """The models of a package that run on one provider in one precision; images decide on the size.

    A model is opened when the first image needs it, once its files are known to be those that were packaged.

    Attributes:
        package: what the folder holds.
        candidates: models that images are shared out among.
        metadata: of the first of them; all are of one network and its weights.
        chosen: for the last call; None before the first.
    """

    def __init__(
        self,
        folder: str | Path,
        provider: str | None = None,
        threads: int | None = None,
        precision: PackagedPrecision | None = None,
        *,
        open_models: int = OPEN_MODELS,
    ) -> None:
        """Reads the index of a package and decides on the provider.

        Args:
            folder: of the package.
            provider: see ``find_candidates``.
            threads: as for ``load``.
            precision: of the models; float32 when None.
            open_models: so many stay in memory, those that were used last; more only while calls in several
                threads need them at once.

        Raises:
            ModelError: the folder is no package, or a damaged one.
            ConfigError: it has no model in that precision, or a number makes no sense.
            ProviderError: it has none that runs on that provider, or on any here.
        """
        if open_models < 1:
            raise ConfigError("open_models", f"is {open_models}", "at least 1")
        self.package = Package.read(folder)
        found = find_candidates(self.package, precision, provider)
        if threads is not None and found.models[0].backend in ENGINE_PROVIDERS:
            raise ConfigError("threads", f"are those of the CPU, and {folder} runs engines", "leave them out")
        for name, reason in found.passed_over.items():
            logger.info("%s: %s does not run here: %s", self.package.folder, name, reason)
        self.candidates, self._threads = found.models, threads
        self.chosen: Choice | None = None
        self._noted: set[tuple[int, int]] = set()
        self._sessions = _Sessions(self._open, open_models)
        super().__init__(self.package.index, found.models[0].metadata, found.provider, {})

    def choose(self, height: int, width: int) -> Choice:
        """The model for images of a size, and why."""
        return choose(self.candidates, height, width)

    def estimate(self, reference: np.ndarray, query: np.ndarray) -> Estimate:
        """As any estimator, by the model that fits the images."""
        if self._closed:
            raise self._was_closed()
        height, width = as_batches(reference, query)[0].shape[1:3]
        choice = self.choose(height, width)
        self._note(choice)
        self.chosen = choice
        with self._sessions.session(choice.model) as estimator:
            return estimator.estimate(reference, query)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model that takes just these inputs.

        Raises:
            ShapeError: none does.
            ModelError: the estimator was closed, or the model failed.
        """
        if self._closed:
            raise self._was_closed()
        for model in self.candidates:
            if _takes_inputs(model.metadata, inputs):
                with self._sessions.session(model) as estimator:
                    return estimator.run(inputs)
        shapes = "; ".join(f"{name} {array.dtype} {array.shape}" for name, array in inputs.items())
        sizes = ", ".join(model.size for model in self.candidates)
        raise ShapeError(self.package.folder, f"has no model that takes {shapes}", f"its sizes are {sizes}")

    def note_no_size(self) -> None:
        """Keeps the estimator from logging which model runs, for who asks ``choose``."""
        self._size_noted = True

    def __repr__(self) -> str:
        sizes = ", ".join(model.size for model in self.candidates)
        what = f"{self.metadata.network} {sizes} on {self.provider}"
        return f"<{type(self).__name__} {what}, {self.package.folder}>"

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise NotImplementedError  # run knows which model

    def _release(self) -> None:
        self._sessions.close()

    def _open(self, model: PackagedModel) -> FlowEstimator:
        self.package.check_files(model.files)
        provider = self.provider if model.backend == "onnxruntime" else None
        estimator = load(self.package.folder / model.path, provider, self._threads)
        if estimator.metadata != model.metadata:
            estimator.close()
            hint = "make the package again: gocor package"
            raise ModelError(estimator.path, f"is not what {self.path.name} says of it", hint)
        estimator.note_no_size()
        return estimator

    def _note(self, choice: Choice) -> None:
        """Says which model runs, once for each size of images."""
        size = (choice.height, choice.width)
        if self._size_noted or size in self._noted:
            return
        self._noted.add(size)
        level = logging.INFO if choice.exact else logging.WARNING
        text = "%s: images of %dx%d run in %s on %s (%s)"
        logger.log(level, text, self.package.folder, *size, choice.model.path, self.provider, choice.why)


def _takes_inputs(described: ModelMetadata, inputs: Mapping[str, np.ndarray]) -> bool:
    try:
        specs = described.for_inputs({name: array.shape for name, array in inputs.items()}).inputs
    except ShapeError:
        return False
    given = {name: (str(array.dtype), array.shape) for name, array in inputs.items()}
    return given == {spec.name: (spec.dtype, spec.shape) for spec in specs}


class _Sessions:
    """Open models. A call borrows one; the ones that were not used for longest are closed when idle."""

    def __init__(self, open_model: Callable[[PackagedModel], FlowEstimator], limit: int) -> None:
        self._open_model, self._limit = open_model, limit
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Session] = OrderedDict()  # the last used comes last
        self._closed = False

    @contextlib.contextmanager
    def session(self, model: PackagedModel) -> Iterator[FlowEstimator]:
        """The open model, which stays open for the block at least."""
        with self._lock:
            session = self._open.setdefault(model.path, _Session())
            self._open.move_to_end(model.path)
            session.calls += 1
            self._close_idle()  # before the memory for another one is taken
        try:
            yield session.opened(lambda: self._open_model(model))
        finally:
            with self._lock:
                session.calls -= 1
                if session.estimator is None and not session.calls:  # it could not be opened
                    del self._open[model.path]
                self._close_idle()

    def close(self) -> None:
        """Closes every model, those in a call as soon as it returns."""
        with self._lock:
            self._closed = True
            self._close_idle()

    def _close_idle(self) -> None:
        surplus = len(self._open) - (0 if self._closed else self._limit)
        for path in [path for path, session in self._open.items() if not session.calls][: max(surplus, 0)]:
            if estimator := self._open.pop(path).estimator:
                estimator.close()


class _Session:
    """A model, once it is open, and the number of calls that it is in."""

    def __init__(self) -> None:
        self.estimator: FlowEstimator | None = None
        self.calls = 0
        self._lock = threading.Lock()

    def opened(self, open_model: Callable[[], FlowEstimator]) -> FlowEstimator:
        """The open model; opens it in the first thread that comes, for which the others wait."""
        with self._lock:
            if self.estimator is None:
                self.estimator = open_model()
            return self.estimator

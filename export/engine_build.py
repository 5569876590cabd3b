"""Building an engine in memory: TensorRT's and TensorRT-RTX's common interface, asked step by step.

Written for TensorRT from 10.9 on and 11, whose strongly typed networks take their precision from the model.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gocor.core.errors import ConfigError, DependencyError, GocorError, ModelError, ProviderError
from gocor.core.version import __version__
from gocor.export.engine_config import EngineConfig
from gocor.export.engine_layers import (
    EngineLayers,
    network_counts,
    network_tensors,
    plugin_names,
    read_layers,
)
from gocor.export.engine_monitor import BuildLog, Progress, Steps, progress_monitor, stoppable
from gocor.export.engine_plugins import check_built, check_gpu, check_parsed, offer_plugins
from gocor.export.engine_source import SourceModel
from gocor.runtime.manifest import LIBRARY_NAMES, PluginForm, Shapes
from gocor.runtime.metadata import TensorSpec
from gocor.runtime.tensorrt_library import library_log, listening, plain


@dataclass(frozen=True)
class Gpu:
    """The GPU that an engine is tuned on; without one all are empty.

    Attributes:
        name: of the GPU.
        sm: its compute capability, as ``sm_90``.
        driver: version of CUDA that its driver is for; 12040 is 12.4.
    """

    name: str = ""
    sm: str = ""
    driver: int = 0


@dataclass(frozen=True)
class Built:
    """An engine that is not written yet.

    Attributes:
        plan: its bytes, in a buffer of the library's.
        targets: compute capabilities that it is for.
        gpu: name of the GPU that it was tuned on; empty if it was not tuned on any.
        plugins: what computes our operators.
        plugin_sha256: which plugins those are.
        inputs: in order.
        outputs: in order.
        network: number of layers of each type and dtype in the parsed network.
        inspection: the engine inspector's JSON; empty where it cannot be asked.
        layers: the same, summed up.
        timing_cache: the new content of the timing cache, if there is one.
        parse_seconds: that the parser took.
        build_seconds: that the builder took.
    """

    plan: Any
    targets: tuple[str, ...]
    gpu: str
    plugins: PluginForm
    plugin_sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    network: Mapping[str, int]
    inspection: str
    layers: EngineLayers | None
    timing_cache: Any
    parse_seconds: float
    build_seconds: float


class EngineBuild:
    """One build with one library.

    Attributes:
        log: what the library said so far.
    """

    def __init__(self, library: Any, config: EngineConfig, model: SourceModel) -> None:
        self.log = BuildLog(verbose=logging.getLogger("gocor").isEnabledFor(logging.DEBUG))
        self._library, self._config, self._model = library, config, model
        self._name = LIBRARY_NAMES[config.backend]
        self._targets = config.targets(library)
        self._gpu = _gpu(config)
        self._plugin_library = config.plugin_library.resolve() if config.plugin_library else None
        self._kept: list[Any] = []  # what C++ refers to until the engine is built

    def run(self, progress: Progress | None) -> Built:
        """Parses the model, builds the engine and looks into it.

        Raises:
            ModelError: the library refuses the model, or did not make plugins of our operators.
            ConfigError: it cannot do what is asked for.
            ProviderError: it finds no GPU, and needs one.
        """
        steps = Steps(progress)
        with listening(self._library, self.log.hear), stoppable(steps):
            library_log(self._library).take_error()  # what somebody else left
            form, plugin_sha256 = self._offer_plugins()
            builder = self._builder()
            start = time.perf_counter()
            network = self._parse(builder)
            parsed = time.perf_counter()
            check_parsed(self._model.calls, plugin_names(network), form, self._model.path)
            settings = self._settings(builder, steps, form)
            plan = self._build(builder, network, settings, steps)
            done = time.perf_counter()
            inspection = self._inspect(plan)
            steps.raise_if_stopped()
        inputs, outputs = self._interface(network)
        return Built(
            plan=plan,
            targets=tuple(self._targets) or (self._gpu.sm,),
            gpu="" if self._targets else self._gpu.name,
            plugins=form,
            plugin_sha256=plugin_sha256,
            inputs=inputs,
            outputs=outputs,
            network=network_counts(network),
            inspection=inspection,
            layers=self._layers(inspection, form),
            timing_cache=settings.get_timing_cache().serialize() if self._config.timing_cache else None,
            parse_seconds=parsed - start,
            build_seconds=done - parsed,
        )

    def log_text(self) -> str:
        """What the library said, under what it was asked for."""
        head = (f"gocor {__version__}, {self._name} {self._library.__version__}", f"{self._model.path}")
        return "\n".join([*head, str(self._config), *self.log.lines]) + "\n"

    def _offer_plugins(self) -> tuple[PluginForm, str]:
        if not self._config.with_plugins:
            return "none", ""
        if self._model.calls:
            check_gpu(self._gpu.sm, self._gpu.driver)
        return offer_plugins(self._library, self._model.calls, self._plugin_library)

    def _builder(self) -> Any:
        try:
            return self._library.Builder(library_log(self._library))
        except TypeError as error:  # pybind11's word for a null pointer
            got = f"does not start ({self._reason()})"
            raise ProviderError(self._name, got, "see gocor doctor for the GPU and its driver") from error

    def _parse(self, builder: Any) -> Any:
        typed = self._library.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = builder.create_network(1 << int(typed))
        parser = self._library.OnnxParser(network, library_log(self._library))
        self._kept.append(parser)  # it owns the weights
        if not parser.parse(self._model.content):
            errors = [parser.get_error(index) for index in range(parser.num_errors)]
            reason = "; ".join(
                f"{error.node_name() or 'the model'}: {plain(error.desc())}" for error in errors
            )
            got = f"is refused by the parser of {self._name} {self._library.__version__}"
            raise ModelError(self._model.path, f"{got} ({reason or self._reason()})", "report this")
        self._check_interface(network)
        return network

    def _interface(self, network: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs, in which the library knows no names of sizes that vary, only the model does."""
        metadata = self._model.metadata
        names = self._model.outputs if metadata.dynamic else {}
        names = {spec.name: spec.shape for spec in metadata.inputs} | dict(names)
        named = []
        for specs in network_tensors(network):
            whole = (TensorSpec(spec.name, spec.dtype, names.get(spec.name, spec.shape)) for spec in specs)
            pairs = zip(specs, whole, strict=True)
            named.append(
                tuple(with_names if with_names.unnamed == s.unnamed else s for s, with_names in pairs)
            )
        return named[0], named[1]

    def _check_interface(self, network: Any) -> None:
        inputs, outputs = self._interface(network)
        metadata = self._model.metadata
        names = tuple(output.name for output in outputs)
        if inputs != metadata.inputs or names != metadata.output_names or metadata.flow not in outputs:
            raise ModelError(
                self._model.path,
                f"became a network of {'; '.join(map(str, (*inputs, *outputs)))} in {self._name}",
                f"its metadata says {'; '.join(map(str, metadata.inputs))}; {metadata.flow}",
            )

    def _settings(self, builder: Any, steps: Steps, form: PluginForm) -> Any:
        library, config = self._library, self._config
        settings, flags = builder.create_builder_config(), library.BuilderFlag
        monitor = progress_monitor(library, steps)
        self._kept.append(monitor)
        settings.progress_monitor = monitor
        settings.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # for the inspector
        (settings.set_flag if config.tf32 else settings.clear_flag)(flags.TF32)  # on by default
        if config.workspace is not None:
            settings.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, config.workspace)
        if config.optimization_level is not None:
            settings.builder_optimization_level = config.optimization_level
        if config.hardware_compatible:
            settings.hardware_compatibility_level = library.HardwareCompatibilityLevel.AMPERE_PLUS
        if config.version_compatible:
            settings.set_flag(flags.VERSION_COMPATIBLE)
            if form == "library":  # such an engine brings its plugins along
                settings.plugins_to_serialize = [str(self._plugin_library)]
        if config.shapes is not None:
            self._add_profile(builder, settings, config.shapes)
        if self._targets:
            settings.num_compute_capabilities = len(self._targets)
            for index, target in enumerate(self._targets.values()):
                settings.set_compute_capability(target, index)
        if config.timing_cache:
            self._attach_timing_cache(settings)
        return settings

    def _add_profile(self, builder: Any, settings: Any, shapes: Shapes) -> None:
        profile = builder.create_optimization_profile()
        sized = [self._model.metadata.at(*sizes).inputs for sizes in shapes]
        for specs in zip(*sized, strict=True):
            profile.set_shape(specs[0].name, *(spec.shape for spec in specs))
        if settings.add_optimization_profile(profile) < 0:
            raise ConfigError("--shapes", f"is refused by {self._name} ({self._reason()})", "other sizes")

    def _attach_timing_cache(self, settings: Any) -> None:
        file = self._config.timing_cache
        assert file is not None
        try:
            before = file.read_bytes() if file.is_file() else b""
        except OSError as error:
            got = f"{file} cannot be read ({error.strerror})"
            raise ConfigError("--timing-cache", got, "check its permissions") from error
        cache = settings.create_timing_cache(before)
        self._kept.append(cache)
        if cache is None or not settings.set_timing_cache(cache, ignore_mismatch=False):
            got = f"{file} is of another GPU or another version of {self._name} ({self._reason()})"
            raise ConfigError("--timing-cache", got, "another file, which will be made")

    def _build(self, builder: Any, network: Any, settings: Any, steps: Steps) -> Any:
        plan = builder.build_serialized_network(network, settings)
        steps.raise_if_stopped()
        if plan is None:
            got = f"cannot be built by {self._name} {self._library.__version__} ({self._reason()})"
            raise ModelError(self._model.path, got, "see the log beside the engine")
        return plan

    def _inspect(self, plan: Any) -> str:
        """The engine inspector's JSON; empty elsewhere than on the engine's GPU, which alone can open it."""
        if not self._gpu.sm:
            return ""
        runtime = self._library.Runtime(library_log(self._library))
        runtime.engine_host_code_allowed = self._config.version_compatible
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is not None:
            inspector = engine.create_engine_inspector()
            return str(inspector.get_engine_information(self._library.LayerInformationFormat.JSON))
        if self._config.backend == "tensorrt-rtx" and not self._config.inspect:
            return ""  # it may well have been built for other GPUs
        got = f"{self._name} cannot open the engine that it built ({self._reason()})"
        raise ModelError(self._model.path, got, "see the log beside the engine")

    def _layers(self, inspection: str, form: PluginForm) -> EngineLayers | None:
        if not inspection:
            return None
        operators = {call.name: call.operator for call in self._model.calls} if form != "none" else {}
        layers = EngineLayers.of(read_layers(inspection, operators, self._model.path))
        if form != "none":
            check_built(self._model.calls, layers.plugins, self._model.path)
        return layers

    def _reason(self) -> str:
        return library_log(self._library).take_error() or "it does not say why"


def _gpu(config: EngineConfig) -> Gpu:
    """The current GPU; TensorRT-RTX does without, unless its engine is to be inspected."""
    from gocor.runtime import cuda

    try:
        device = cuda.current_device()
        properties = cuda.check(cuda.import_cuda().cudaGetDeviceProperties(device))
        driver = cuda.check(cuda.import_cuda().cudaDriverGetVersion())
        return Gpu(properties.name.decode(), cuda.compute_capability(device), driver)
    except GocorError as error:
        needed = config.backend == "tensorrt" or config.inspect is not None
        if needed and isinstance(error, DependencyError):
            raise
        if config.backend == "tensorrt":
            got = f"builds on the GPU that the engine is for, and {error.got}"
            expected = "build there, or for RTX GPUs: --backend tensorrt-rtx"
            raise ProviderError("TensorRT", got, expected) from error
        if needed:
            got = f"opens the engine on its GPU, and {error.got}"
            raise ConfigError("--inspect", got, "leave it out") from error
        return Gpu()

"""What ``gocor build`` uses of TensorRT, as small fakes, for the branches that need a GPU.

Names and enums are held against NVIDIA's real bindings by ``tests/export/test_engine_build.py``. Networks are
parsed from ONNX, one layer for each node; a plan is a line of text.
"""

import enum
import importlib
import json
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from gocor.plugins.schema import DOMAIN

VERSION = "11.4.0.106"


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class DataType(enum.Enum):
    FLOAT, HALF, INT32, INT64, BOOL, UINT8 = range(6)


class LayerType(enum.Enum):
    CONVOLUTION, PLUGIN_V3 = range(2)


class BuilderFlag(enum.Enum):
    TF32, VERSION_COMPATIBLE = range(2)


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class HardwareCompatibilityLevel(enum.Enum):
    NONE, AMPERE_PLUS = range(2)


class ProfilingVerbosity(enum.Enum):
    LAYER_NAMES_ONLY, DETAILED = range(2)


class LayerInformationFormat(enum.Enum):
    ONELINE, JSON = range(2)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


ENUMS = (
    *(DataType, LayerType, BuilderFlag, MemoryPoolType, HardwareCompatibilityLevel, ProfilingVerbosity),
    *(LayerInformationFormat, NetworkDefinitionCreationFlag),
)
DTYPES = {np.dtype(name): DataType[name.upper()] for name in ("int32", "int64", "bool", "uint8")}
DTYPES |= {np.dtype("float32"): DataType.FLOAT, np.dtype("float16"): DataType.HALF}


class IProgressMonitor:
    pass


class IBuilderConfig:
    """Keeps what was set; nothing can be set that the real one has not."""

    __slots__ = (
        *("progress_monitor", "profiling_verbosity", "builder_optimization_level", "plugins_to_serialize"),
        *("hardware_compatibility_level", "flags", "limits", "cache"),
    )

    def __init__(self) -> None:
        self.flags, self.limits = {BuilderFlag.TF32}, {}  # type: ignore[var-annotated]

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.limits[pool] = pool_size

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        return SimpleNamespace(content=serialized_timing_cache)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return cache.content in (b"", b"measured")

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: memoryview(b"measured"))


# All that a build uses, by class.
USED: dict[str, list[str]] = {kind.__name__: list(kind.__members__) for kind in ENUMS} | {
    "ILogger": [severity.name for severity in Severity],
    "IProgressMonitor": ["phase_start", "phase_finish", "step_complete"],
    "IBuilderConfig": [
        *(name for name in IBuilderConfig.__slots__ if name not in ("limits", "cache")),
        *(name for name in vars(IBuilderConfig) if name.endswith(("_flag", "_cache", "_limit"))),
    ],
    "ITimingCache": ["serialize"],
    "Builder": ["create_network", "create_builder_config", "build_serialized_network"],
    "OnnxParser": ["parse", "num_errors", "get_error"],
    "ParserError": ["desc", "node_name"],
    "INetworkDefinition": [
        *("num_inputs", "num_outputs", "num_layers", "get_input", "get_output", "get_layer"),
    ],
    "ILayer": ["name", "type", "num_outputs", "get_output"],
    "ITensor": ["name", "dtype", "shape"],
    "Runtime": ["deserialize_cuda_engine", "engine_host_code_allowed"],
    "ICudaEngine": ["create_engine_inspector"],
    "EngineInspector": ["get_engine_information"],
    "IPluginRegistry": ["load_library", "all_creators"],
    "IPluginCreatorV3One": ["name", "plugin_version", "plugin_namespace"],
    "IHostMemory": ["nbytes"],
}


def missing_in(module: str, used: Mapping[str, list[str]]) -> list[str]:
    """Names that a real library lacks."""
    library = importlib.import_module(module)
    owners = {owner: getattr(library, owner, None) for owner in used}
    return [f"{owner}.{name}" for owner in used for name in used[owner] if not hasattr(owners[owner], name)]


class Network:
    """What the parser filled."""

    def __init__(self, flags: int) -> None:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.layers: list[Any] = []
        self.num_inputs = self.num_outputs = self.num_layers = 0

    def fill(self, model: onnx.ModelProto, plugins: set[str]) -> None:
        self.inputs = [_tensor(value) for value in model.graph.input]
        self.outputs = [_tensor(value) for value in model.graph.output]
        self.layers = [_layer(node, node.op_type in plugins) for node in model.graph.node]
        self.num_inputs, self.num_outputs = len(self.inputs), len(self.outputs)
        self.num_layers = len(self.layers)

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    def get_output(self, index: int) -> Any:
        return self.outputs[index]

    def get_layer(self, index: int) -> Any:
        return self.layers[index]


def _tensor(value: onnx.ValueInfoProto) -> Any:
    shape = tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return SimpleNamespace(name=value.name, dtype=DTYPES[dtype], shape=shape)


def _layer(node: onnx.NodeProto, plugin: bool) -> Any:
    kind = LayerType.PLUGIN_V3 if plugin else LayerType.CONVOLUTION
    output = SimpleNamespace(dtype=DataType.FLOAT)
    return SimpleNamespace(
        name=node.name, type=kind, num_outputs=1, operator=node.op_type, get_output=lambda index: output
    )


class FakeTensorRT(ModuleType):
    """The module ``tensorrt`` on a machine with a GPU.

    Attributes:
        plugins: operators whose plugins the parser finds.
        config: of the last build.
        fails: what the builder says instead of building; empty to let it build.
        shown: what the inspector says; None for a layer for each of the network's.
        in_library: operators that a plugin library has.
    """

    def __init__(self, version: str = VERSION) -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.ILogger, self.IProgressMonitor = ILogger, IProgressMonitor
        for kind in ENUMS:
            setattr(self, kind.__name__, kind)
        self.plugins: set[str] = set()
        self.config: Any = None
        self.network: Any = None
        self.fails = self.starts_not = ""
        self.shown: str | None = None
        self.in_library: set[str] = set()

    def Builder(self, logger: ILogger) -> Any:  # noqa: N802
        if self.starts_not:
            logger.log(Severity.ERROR, self.starts_not)
            raise TypeError("pybind11::init(): factory function returned nullptr")

        def build(network: Network, config: IBuilderConfig) -> Any:
            self.config, self.network = config, network
            config.progress_monitor.phase_start("Building engine", None, 2)
            go_on = config.progress_monitor.step_complete("Building engine", 0)
            if self.fails:
                logger.log(Severity.ERROR, self.fails)
            return None if self.fails or not go_on else memoryview(b"a plan")

        return SimpleNamespace(
            create_network=Network, create_builder_config=IBuilderConfig, build_serialized_network=build
        )

    def OnnxParser(self, network: Network, logger: ILogger) -> Any:  # noqa: N802
        def parse(model: bytes) -> bool:
            network.fill(onnx.load_model_from_string(model), self.plugins)
            return True

        return SimpleNamespace(parse=parse, num_errors=0)

    def Runtime(self, logger: ILogger) -> Any:  # noqa: N802
        def deserialize(plan: Any) -> Any:
            if self.shown == "":
                logger.log(Severity.ERROR, "the magic tag does not match")
                return None
            text = json.dumps({"Layers": [_shown(layer) for layer in self.network.layers]})
            inspector = SimpleNamespace(get_engine_information=lambda kind: self.shown or text)
            return SimpleNamespace(create_engine_inspector=lambda: inspector)

        return SimpleNamespace(deserialize_cuda_engine=deserialize, engine_host_code_allowed=False)

    def get_plugin_registry(self) -> Any:
        def load(plugin_path: str) -> object:
            if "/" not in plugin_path:  # dlopen looks for a bare name among the system's libraries
                return None
            self.plugins |= self.in_library
            return object() if self.in_library else None

        ours = [
            SimpleNamespace(name=name, plugin_version="1", plugin_namespace=DOMAIN) for name in self.plugins
        ]
        theirs = SimpleNamespace(name="ROIAlign_TRT", plugin_version="2", plugin_namespace="")
        return SimpleNamespace(load_library=load, all_creators=[theirs, *ours])


def _shown(layer: Any) -> Mapping[str, Any]:
    entry = {"Name": layer.name, "Outputs": [{"Name": "x", "DataType": "Float", "Format": "Row major"}]}
    if layer.type is LayerType.PLUGIN_V3:
        return entry | {"LayerType": "PluginV3", "PluginType": layer.operator}
    return entry | {"LayerType": "Convolution"}


def put_gpu(
    monkeypatch: pytest.MonkeyPatch, name: str = "NVIDIA H100", sm: str = "sm_90", driver: int = 13040
) -> None:
    """Lets this package find a GPU."""
    properties = SimpleNamespace(name=name.encode())
    runtime = SimpleNamespace(
        cudaGetDeviceProperties=lambda device: (0, properties), cudaDriverGetVersion=lambda: (0, driver)
    )
    monkeypatch.setattr("gocor.runtime.cuda.import_cuda", lambda: runtime)
    monkeypatch.setattr("gocor.runtime.cuda.current_device", lambda: 0)
    monkeypatch.setattr("gocor.runtime.cuda.compute_capability", lambda device: sm)


def take_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this package find none."""
    from gocor.core.errors import ProviderError

    def none() -> int:
        raise ProviderError("GPU", "no NVIDIA driver is installed on this machine", "see gocor doctor")

    monkeypatch.setattr("gocor.runtime.cuda.current_device", none)

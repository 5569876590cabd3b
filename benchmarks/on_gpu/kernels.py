"""Our kernels on memory of the GPU, launched as an engine does: the package's PTX and ``launch.py``."""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from gocor.core.errors import DependencyError
from gocor.plugins import ptx
from gocor.plugins.launch import Launch, entry_point
from gocor.plugins.local_correlation import launch as correlation
from gocor.plugins.local_correlation_transpose import launch as transpose
from gocor.plugins.local_gocor import launch as fused
from gocor.plugins.registry import KERNELS
from on_gpu.driver import Driver, DriverError, Kernel
from on_gpu.levels import ITERATIONS

LAUNCHES: dict[str, Callable[..., Launch]] = {
    "LocalCorrelation": correlation.launch,
    "LocalCorrelationTranspose": transpose.launch,
    "LocalGOCor": partial(fused.launch, iterations=ITERATIONS),
}
# (operator, dtype, radius) to the entry point and what the driver loads: PTX or machine code.
Source = Callable[[str, str, int], tuple[str, bytes]]


def packaged(operator: str, dtype: str, radius: int) -> tuple[str, bytes]:
    """The PTX that engines get."""
    name, text = ptx.read(operator, dtype, radius)
    return name, text.encode()


class Nvcc:
    """Compiles the kernels of the source tree with the toolkit's compiler, to try a change of them.

    Args:
        architecture: to compile for, such as ``sm_90``.

    Raises:
        DependencyError: there is no nvcc.
    """

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        if shutil.which("nvcc") is None:
            raise DependencyError("nvcc", "is not on PATH", "leave --nvcc out, or add the CUDA toolkit's bin")

    def __call__(self, operator: str, dtype: str, radius: int) -> tuple[str, bytes]:
        """Machine code of a kernel.

        Raises:
            DriverError: it does not compile; the text is the compiler's first error.
        """
        torch_name = KERNELS[operator].torch_name
        source = ptx.PLUGINS / torch_name / "kernel.cuh"
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "kernel.cubin"
            options = ("-cubin", f"-arch={self.architecture}", "-std=c++17", "-O3", f"-I{ptx.PLUGINS}")
            macros = (f"-DGOCOR_RADIUS={radius}", f"-DGOCOR_HALF={int(dtype == 'float16')}")
            command = ["nvcc", *options, *macros, "-x", "cu", str(source), "-o", str(output)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                errors = [line for line in done.stderr.splitlines() if "error" in line]
                raise DriverError(source, "nvcc does not compile it", (errors or ["no message"])[0])
            return entry_point(torch_name, dtype, radius), output.read_bytes()


class Kernels:
    """All operators with every dtype and radius; each kernel is loaded when it is first wanted.

    Args:
        driver: of the device that is current.
        source: where kernels come from.
    """

    def __init__(self, driver: Driver, source: Source = packaged) -> None:
        self.driver, self.source = driver, source
        self.loaded: dict[tuple[str, str, int], Kernel] = {}

    def kernel(self, operator: str, dtype: str, radius: int) -> Kernel:
        """A loaded kernel.

        Raises:
            GocorError: there is none, or the driver refuses it.
        """
        key = operator, dtype, radius
        if key not in self.loaded:
            self.prepare([key])
        return self.loaded[key]

    def prepare(self, keys: Iterable[tuple[str, str, int]]) -> None:
        """Loads many kernels; if they have to be compiled, then at the same time.

        Raises:
            GocorError: there is no such kernel, or the driver refuses it.
        """
        keys = list(keys)
        with ThreadPoolExecutor() as pool:
            for key, (name, image) in zip(keys, pool.map(lambda key: self.source(*key), keys), strict=True):
                self.loaded[key] = self.driver.load(image, name)

    def launch(
        self,
        operator: str,
        dtype: str,
        radius: int,
        shape: Sequence[int],
        addresses: Sequence[int],
        stream: int = 0,
    ) -> None:
        """Enqueues an operator.

        Args:
            operator: such as ``LocalCorrelation``.
            dtype: ``float32`` or ``float16``, of features and volumes.
            radius: 1..8.
            shape: of the query, ``(N, C, H, W)``.
            addresses: of all inputs and the output.
            stream: the driver's handle.

        Raises:
            GocorError: there is no such kernel, or the driver refuses.
        """
        geometry = LAUNCHES[operator](*shape, radius, dtype)
        *inputs, output = (ctypes.c_void_p(address) for address in addresses)
        numbers = (ctypes.c_int(number) for number in geometry.numbers)
        arguments: list[ctypes.c_void_p | ctypes.c_int] = [*inputs, *numbers, output]
        kernel = self.kernel(operator, dtype, radius)
        self.driver.launch(kernel, geometry.grid, geometry.block, geometry.shared, stream, arguments)

"""Which GPU, with what, from which source tree."""

import hashlib
import shutil
import subprocess
from typing import Any

from gocor.core.errors import DependencyError, ProviderError
from gocor.plugins import ptx

OLDEST = (8, 0)
CLOCKS = (
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
)


def require_gpu() -> None:
    """Finds out whether PyTorch has a GPU that the kernels run on.

    Raises:
        DependencyError: there is no PyTorch.
        ProviderError: there is no GPU, or one before Ampere.
    """
    try:
        import torch
    except ImportError as error:
        raise DependencyError(
            "torch", f"cannot be imported ({error})", 'pip install "gocor-deploy[export]"'
        ) from error
    if not torch.cuda.is_available():
        built = f"made for CUDA {torch.version.cuda}" if torch.version.cuda else "made without CUDA"
        raise ProviderError(
            "GPU", f"no CUDA GPU; PyTorch {torch.__version__}, {built}, finds none", "see nvidia-smi"
        )
    capability = torch.cuda.get_device_capability()
    if capability < OLDEST:
        got = f"{torch.cuda.get_device_name()} has compute capability {capability[0]}.{capability[1]}"
        raise ProviderError("GPU", got, "the kernels need 8.0 (Ampere) or later")


def gpu_facts() -> dict[str, Any]:
    """Of the GPU that PyTorch uses."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver": query("driver_version"),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": properties.L2_cache_size / 2**20,
    }


def clocks() -> dict[str, str]:
    """Of this moment, as nvidia-smi names and writes them; they are read, never set."""
    return {name: value for name in CLOCKS if (value := query(name))}


def query(field: str) -> str:
    """One field of the first GPU; empty where nvidia-smi does not tell."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={field}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def packaged_kernels() -> str:
    """What the package's PTX was made of, so that a result can be told from one of other kernels."""
    digest = "".join(sorted(ptx.index()["variants"].values()))
    stale = " (older than the sources: make ptx)" if ptx.stale_sources() else ""
    return f"PTX {hashlib.sha256(digest.encode()).hexdigest()[:12]}{stale}"

"""gocor-deploy: GOCor checkpoints to production.

The public names are loaded on first use, so that ``import gocor.runtime`` needs NumPy alone.
"""

import importlib
from typing import TYPE_CHECKING

from gocor.core.version import __version__

if TYPE_CHECKING:
    from gocor.core.errors import GocorError
    from gocor.export.checkpoint import load_network
    from gocor.export.onnx_export import export_onnx
    from gocor.export.verify import verify
    from gocor.runtime.session import FlowEstimator, load

_HOME = {
    "GocorError": "gocor.core.errors",
    "FlowEstimator": "gocor.runtime.session",
    "load": "gocor.runtime.session",
    "load_network": "gocor.export.checkpoint",
    "export_onnx": "gocor.export.onnx_export",
    "verify": "gocor.export.verify",
}

__all__ = ["FlowEstimator", "GocorError", "__version__", "export_onnx", "load", "load_network", "verify"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'gocor' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__

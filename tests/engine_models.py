"""Small models for building engines, and building in a process of its own."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from operator_models import FUNCTIONS
from toy_models import save_toy

from gocor.plugins.local_gocor.onnx_function import onnx_function as local_gocor
from gocor.plugins.registry import KERNELS
from gocor.plugins.schema import DOMAIN, displacements

NODES = {
    "LocalCorrelation": "level/LocalCorrelation",
    "LocalCorrelationTranspose": "level/Transpose",
    "LocalGOCor": "level/GOCor",
}
INPUTS = {
    "LocalCorrelation": ("features", "features"),
    "LocalCorrelationTranspose": ("volume", "features"),
    "LocalGOCor": ("features", "features", "map", "map", "map", "scalars"),
}


def save_with_operators(path: Path, radius: int = 1) -> Path:
    """A toy model with a node of each of our operators, beside what it computes."""
    model = onnx.load(save_toy(path))
    side = displacements(radius)
    sizes = {"features": (1, 4, 6, 8), "volume": (1, side, 6, 8), "map": (side,), "scalars": (4,)}
    for name, shape in sizes.items():
        value = helper.make_tensor(name, TensorProto.FLOAT, shape, [0.5] * math.prod(shape))
        model.graph.initializer.append(value)
    for operator, inputs in INPUTS.items():
        attributes = KERNELS[operator].node_attributes(radius=radius)
        node = helper.make_node(operator, inputs, [operator], NODES[operator], domain=DOMAIN, **attributes)
        model.graph.node.append(node)
    model.functions.extend(function() for function in FUNCTIONS.values())
    model.functions.append(local_gocor(iterations=3))
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, path)
    return path


def build_apart(model: Path, engine: Path, *options: str) -> dict[str, Any]:
    """Runs ``gocor build`` for TensorRT-RTX in a process of its own and gives its report."""
    done = try_apart(model, engine, *options)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def try_apart(model: Path, engine: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs ``gocor build`` for TensorRT-RTX in a process of its own.

    NVIDIA's libraries end the process on some graphs; so that is a failure of one test, with a reason.
    """
    command = [sys.executable, "-X", "faulthandler", "-m", "gocor", "build", str(model), "-o", str(engine)]
    return subprocess.run(
        [*command, "--backend", "tensorrt-rtx", "--json", *options],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip

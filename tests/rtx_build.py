"""Parses and builds ONNX files with TensorRT-RTX alone: ``python rtx_build.py sm_89 a.onnx b.onnx``.

Prints what became of each as JSON. A program of its own, since NVIDIA's libraries end the process on some
graphs.
"""

import json
import sys
import time
from pathlib import Path

from gocor.export.engine_layers import network_counts
from gocor.export.engine_monitor import BuildLog
from gocor.runtime.tensorrt_library import import_library, library_log, listening


def outcome(path: Path, target: str) -> dict[str, object]:
    """Warnings, layers, seconds and size."""
    library, log = import_library("tensorrt-rtx"), BuildLog(verbose=False)
    with listening(library, log.hear):
        builder = library.Builder(library_log(library))
        network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = library.OnnxParser(network, library_log(library))
        if not parser.parse(path.read_bytes()):
            return {"error": library_log(library).take_error()}
        settings = builder.create_builder_config()
        targets = library.ComputeCapability.__members__
        settings.num_compute_capabilities = 1
        settings.set_compute_capability(targets[target.replace("_", "").upper()], 0)
        settings.clear_flag(library.BuilderFlag.TF32)
        start = time.perf_counter()
        plan = builder.build_serialized_network(network, settings)
    if plan is None:
        return {"error": library_log(library).take_error()}
    seconds = time.perf_counter() - start
    layers = network_counts(network)
    return {"warnings": log.warnings, "layers": layers, "seconds": seconds, "bytes": plan.nbytes}


if __name__ == "__main__":
    target, *files = sys.argv[1:]
    print(json.dumps({file: outcome(Path(file), target) for file in files}))

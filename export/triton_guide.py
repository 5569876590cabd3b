"""The texts of a model repository for Triton: how to serve it, and a small client."""

from collections.abc import Sequence
from dataclasses import dataclass

_HEAD = """\
# Models for Triton Inference Server

Written by `gocor triton`. The server takes the highest version of each model.

| model | network | backend | built with | inputs and outputs |
|---|---|---|---|---|
{rows}

## Serve

Set `TRITON_IMAGE` to a release of [NVIDIA's container](https://catalog.ngc.nvidia.com/orgs/nvidia/containers/tritonserver),
one whose name ends in `-py3`.
{choice}

```console
$ docker run --rm{gpus} -p 8000:8000 -p 8001:8001 -p 8002:8002 \\
    -v "$PWD":/models:ro "$TRITON_IMAGE" \\
    tritonserver --model-repository=/models{options}
$ curl --fail localhost:8000/v2/health/ready
```
"""
_ASK = """
## Ask

```console
$ pip install "tritonclient[http]" pillow
$ python client.py {model} reference.png query.png flow.npy
```

Where the shape in the table begins with a number, a request brings that whole batch, and the server cannot
put requests together (`max_batch_size: 0`). Where it begins with `batch`, the server makes batches of
requests of one size, up to `max_batch_size`. Side by side they run in instances:
`gocor triton --instances N`.
"""
_OPENVINO = """
## OpenVINO's precision

The backend has no option for float32: on a processor with bfloat16 it computes in that, whatever
`gocor.inference_precision` says. Compare its flow with `gocor run` on that machine.
"""

CLIENT = '''\
"""Sends two images to a model that `gocor triton` put on a server, and saves their flow.

python client.py MODEL REFERENCE QUERY FLOW.npy [--url HOST:PORT]

FLOW.npy is float32 (2, H, W) in pixels, channel 0 = x: reference(x) is where query(x + flow(x)) is.
"""

import argparse

import numpy as np
import tritonclient.http as triton
from PIL import Image


def read(path, shape):
    """uint8 RGB, as often as the model has pairs in a batch."""
    image = np.asarray(Image.open(path).convert("RGB"))
    if image.shape != tuple(shape[1:]):
        raise SystemExit(f"{path}: is {image.shape[:2]}; the model takes {tuple(shape[1:3])} (height, width)")
    return np.ascontiguousarray(np.broadcast_to(image, shape))


def estimate(client, model, paths):
    """The flow of two images."""
    given = []
    for described in client.get_model_metadata(model)["inputs"]:
        if described["name"] not in paths:
            raise SystemExit(f"{model}: takes tensors; this client has images (gocor export --io images)")
        shape = [max(int(size), 1) for size in described["shape"]]  # -1 is a batch of any size
        tensor = triton.InferInput(described["name"], shape, described["datatype"])
        tensor.set_data_from_numpy(read(paths[described["name"]], shape))
        given.append(tensor)
    result = client.infer(model, given, outputs=[triton.InferRequestedOutput("flow")])
    return result.as_numpy("flow")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "reference", "query", "flow"):
        parser.add_argument(name)
    parser.add_argument("--url", default="localhost:8000")
    arguments = parser.parse_args()
    with triton.InferenceServerClient(arguments.url) as client:
        paths = {"reference": arguments.reference, "query": arguments.query}
        flow = estimate(client, arguments.model, paths)
    np.save(arguments.flow, flow)
    print(f"{arguments.flow}: {flow.shape[2]}x{flow.shape[1]}, mean length {np.hypot(*flow).mean():.2f} px")


if __name__ == "__main__":
    main()
'''


@dataclass(frozen=True)
class Entry:
    """One version of one model, as the index of the repository has it.

    Attributes:
        model: name that the server knows it by.
        version: from 1 on; the server takes the highest.
        backend: of the server: ``onnxruntime``, ``tensorrt`` or ``openvino``.
        kind: where instances run, ``KIND_CPU`` or ``KIND_GPU``.
        file: path in the repository.
        source: name of the file that it is a copy of.
        sha256: of that file; of a model of several files, of its manifest, which has their hashes.
        network: name of the network.
        library: that built it, with its version; empty for ``.onnx`` files.
        version_compatible: an engine that also runs with later versions of the same major version.
        interface: inputs and outputs, as text; the same in all versions.
    """

    model: str
    version: int
    backend: str
    kind: str
    file: str
    source: str
    sha256: str
    network: str
    library: str
    version_compatible: bool
    interface: tuple[str, ...]


def guide(models: Sequence[Entry]) -> str:
    """README of a repository.

    Args:
        models: the newest version of each.
    """
    rows = "\n".join(
        f"| {m.model} | {m.network} | {m.backend} | {m.library or '-'} | {'<br>'.join(m.interface)} |"
        for m in models
    )
    option = " \\\n      --backend-config=tensorrt,version-compatible=true"
    options = option * any(m.version_compatible for m in models)
    gpus = " --gpus all" if any(m.kind == "KIND_GPU" for m in models) else ""
    backends = {m.backend for m in models}
    text = _HEAD.format(rows=rows, choice=_choice(models), gpus=gpus, options=options)
    text += _ASK.format(model=models[0].model)
    return text + _OPENVINO * ("openvino" in backends)


def _choice(models: Sequence[Entry]) -> str:
    """Which release to take."""
    versions = sorted({m.library for m in models if m.backend == "tensorrt"})
    if not versions:
        return "Any release will do whose libraries are as new as those that the models were made with."
    release = f"Its TensorRT has to be that of the engines, {' and '.join(versions)}"
    if all(m.version_compatible for m in models if m.backend == "tensorrt"):
        release += ", or a later one of the same major version"
    return f"{release}:\nNVIDIA's support matrix says which release has which."

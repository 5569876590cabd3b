"""The texts of a package: its README, and the versions of what made it."""

import importlib.metadata
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gocor.calibration.packaging.models import Made
from gocor.core.files import sha256
from gocor.core.version import __version__
from gocor.export.weights import BUILT_IN, checkpoint_path
from gocor.runtime.environment import version
from gocor.runtime.metadata import ModelMetadata
from gocor.runtime.package import PackagedBackend, PackagedModel, PackagedPair, PackagedPrecision

# What has a say in the bytes of models, and in what is built of them.
PINNED = (
    "numpy",
    "pillow",
    "torch",
    "onnx",
    "onnxscript",
    "onnx-ir",
    "onnxruntime",
    "safetensors",
    "polygraphy",
)
PINNED_FOR: dict[PackagedBackend, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "cuda-python"),
    "tensorrt-rtx": ("tensorrt-rtx", "cuda-python"),
}
PINNED_FOR_INT8 = ("scikit-image", "scipy")  # generated pairs
REMARK = (
    "Whoever has a licence to the checkpoint has the same to these models, and no other: they are made of "
    "it. The official GOCor, GLU-Net and PWC-Net checkpoints are for non-commercial use only."
)
DEMO_REMARK = "The checkpoint comes with gocor-deploy and is Apache-2.0 licensed, and so are these models."


@dataclass(frozen=True)
class Guide:
    """What the texts are about.

    Attributes:
        name: of the package's folder.
        made: its models.
        pairs: its image pairs.
        hashes: SHA-256 of every model's file, by path.
        licence: what is known about the checkpoint's.
        ranges: command line that measured the ranges of 8-bit models; empty without any.
    """

    name: str
    made: Sequence[Made]
    pairs: Sequence[PackagedPair]
    hashes: Mapping[str, str]
    licence: str
    ranges: str

    @property
    def described(self) -> ModelMetadata:
        """Network and checkpoint."""
        return self.made[0].model.metadata

    @property
    def built_in(self) -> str:
        """Name of the built-in checkpoint that it is; empty if it is another."""
        return built_in(self.described)

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint, as commands take it."""
        return self.built_in or self.described.checkpoint

    @property
    def models(self) -> list[PackagedModel]:
        """As the index has them."""
        return [one.model for one in self.made]


def built_in(described: ModelMetadata) -> str:
    """Name of the built-in checkpoint that a model is made of; empty if it is another, whatever its name."""
    name = described.checkpoint.removesuffix(".safetensors")
    is_it = name in BUILT_IN and sha256(checkpoint_path(name)) == described.checkpoint_sha256
    return name if is_it else ""


def remark(described: ModelMetadata) -> str:
    """What is known about the licence of the checkpoint that a model is made of."""
    return DEMO_REMARK if built_in(described) else REMARK


def requirements(models: Sequence[PackagedModel]) -> str:
    """``requirements.txt``: the versions that the package was made with."""
    names = [*PINNED, *(name for model in models for name in PINNED_FOR.get(model.backend, ()))]
    if any(model.metadata.int8 for model in models):
        names += PINNED_FOR_INT8
    lines = [f"{name}=={release(name)}" for name in dict.fromkeys(names) if version(name)]
    python = platform.python_version()
    head = f"# What made this package, beside gocor-deploy {__version__} itself, with Python {python}."
    return "\n".join([head, *lines, ""])


def release(distribution: str) -> str:
    """Version of an installed distribution without what names a build of it, as ``+cpu``."""
    return importlib.metadata.version(distribution).partition("+")[0]


_README = """\
# {title}

{network} from the checkpoint `{checkpoint}`{counts}: models that take two RGB images and give the optical
flow between them. Made by gocor-deploy {version}.

**Licence.** {licence}

| model | images | precision | runs in | |
|---|---|---|---|---|
{rows}

The flow is float32 `(2, height, width)` in pixels of the reference, x first:
`reference(x) ≈ query(x + flow(x))`. How near each model is to PyTorch is in
[reports/report.md](reports/report.md).

## Is it whole, and does it work here?

```console
$ pip install "gocor-deploy[{extras}]"
$ gocor verify .
```

compares every file with its hash, and every model that this machine can run with the flows of PyTorch that
are in `pairs/`; it takes neither PyTorch nor the checkpoint. The exit code is 0 if all is well. Whoever gave
you this folder can tell you the SHA-256 of `package.json`: `gocor verify . --sha256 …` compares that, too.

## In Python

```python
import gocor
from gocor.runtime.images import load_image

with gocor.load(".") as estimator:
    reference, query = load_image("{reference}"), load_image("{query}")
    flow = estimator(reference, query)  # uint8 RGB (H, W, 3) → float32 (2, H, W)
    print(flow.shape, estimator.chosen.model.path, estimator.chosen.why)
```

It takes the float32 model of the images' own size, else one for any size, else the nearest, and says so in
the log; `precision="…"` takes another, `provider="…"` another library. `gocor inspect .` shows which model
runs for which images, and why. On the command line:

```console
$ gocor run . {reference} {query} -o ../out
```

## In C++

`cpp/` has libgocor, a small library with a C and a C++ interface, and a program that uses it:

```console
$ cmake -S cpp/runtime/cpp -B ../build/libgocor {cmake}
$ cmake --build ../build/libgocor
$ cmake --install ../build/libgocor --prefix ../gocor
$ cmake -S cpp/examples/cpp -B ../build/example -Dgocor_ROOT="$PWD/../gocor"
$ cmake --build ../build/example
$ for image in reference query; do python -c "from PIL import Image; import sys; \\
    Image.open(sys.argv[1]).save(sys.argv[2])" {pair}/$image.png ../$image.ppm; done
$ ../build/example/estimate {cpp_model} ../reference.ppm ../query.ppm ../flow.flo
```

{cpp_note}
What is in `cpp/` is licensed under Apache-2.0, whatever the models are.

## Made again

`bash reproduce.sh{argument} ../again` makes the models again from the checkpoint, verifies each against
PyTorch and compares their hashes. `requirements.txt` has the versions that it takes.

## What is what

| | |
|---|---|
| `package.json` | what every model is, how far off its flow may be, and the SHA-256 of every file |
| `models/` | the models, with manifests of built ones and ranges of 8-bit ones beside them |
| `pairs/` | image pairs of every size, and PyTorch's flow for each (`flow.npy`) |
| `reports/` | `report.md` to read; `verification.json` and `precision.json` with everything |
| `reproduce.sh`, `requirements.txt` | how the models were made |
| `cpp/` | libgocor and an example |
"""


def readme(guide: Guide) -> str:
    """``README.md``."""
    described, models = guide.described, guide.models
    counts = (("global", described.global_iterations), ("local", described.local_iterations))
    iterations = ", ".join(f"{count} {kind}" for kind, count in counts if count is not None)
    pair = guide.pairs[0]
    extras = ["cpu", *(("openvino",) if any(m.backend == "openvino" for m in models) else ())]
    extras += [{"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}[b] for b in _engines(models)]
    openvino = [m for m in models if m.backend == "openvino" and m.metadata.size == (pair.height, pair.width)]
    cpp_model = (openvino or [m for m in models if m.metadata.size == (pair.height, pair.width)])[0]
    return _README.format(
        title=re.sub(r"[#`\n]", "", guide.name), network=described.network, checkpoint=guide.checkpoint,
        counts=f" (GOCor iterations: {iterations})" if iterations else "", version=__version__,
        licence=guide.licence, rows="\n".join(map(_row, models)), extras=",".join(extras),
        reference=pair.reference, query=pair.query, pair=pair.reference.rpartition("/")[0],
        cmake=_cmake(cpp_model), cpp_model=cpp_model.path, cpp_note=_cpp_note(cpp_model),
        argument="" if guide.built_in else f" {shlex.quote(guide.checkpoint)}",
    )  # fmt: skip


def _engines(models: Sequence[PackagedModel]) -> list[str]:
    found = dict.fromkeys(model.backend for model in models)
    return [backend for backend in found if backend.startswith("tensorrt")]


def _row(model: PackagedModel) -> str:
    runs_in = {
        "onnxruntime": "ONNX Runtime, `cpu` or `cuda`", "openvino": f"{model.library} or later, `openvino`",
        "tensorrt": f"{model.library}, `tensorrt`", "tensorrt-rtx": f"{model.library}, `tensorrt-rtx`",
    }[model.backend]  # fmt: skip
    precision: PackagedPrecision | str = model.precision
    if model.metadata.int8:
        precision = f"int8, for {model.metadata.int8.target}"
    batch = f", batch {model.metadata.batch}" if model.metadata.batch > 1 else ""
    note = "" if model.ran else "not run where the package was made"
    return f"| `{model.path}` | {model.size}{batch} | {precision} | {runs_in} | {note} |"


def _cmake(model: PackagedModel) -> str:
    if model.backend == "openvino":
        where = 'python -c "import openvino; print(openvino.__path__[0])"'
        return f'-DGOCOR_BACKENDS=openvino \\\n    -DOpenVINO_DIR="$({where})/cmake"'
    return (
        "-DGOCOR_BACKENDS=onnxruntime \\\n    -DONNXRUNTIME_INCLUDE_DIR=/opt/onnxruntime/include "
        "-DONNXRUNTIME_LIBRARY=/opt/onnxruntime/lib/libonnxruntime.so"
    )


def _cpp_note(model: PackagedModel) -> str:
    if model.backend == "openvino":
        return "pip's wheel of OpenVINO has the headers and libraries that this takes."
    return "`/opt/onnxruntime` is the unpacked archive of ONNX Runtime's C++ library."

"""Packages of toy models for tests; see toy_models for what their flow is."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from toy_models import metadata, save_toy

from gocor.runtime import package as package_module
from gocor.runtime.compare import Tolerance
from gocor.runtime.flow import write_flow
from gocor.runtime.images import save_image
from gocor.runtime.metadata import Int8, ModelMetadata
from gocor.runtime.package import Package, PackagedModel, PackagedPair, seal
from gocor.runtime.sample_pair import sample_pair

TOLERANCE = Tolerance(aepe=0.01, relative_l2=1e-3)
SIZES = ((32, 64), (64, 64))
INT8 = Int8("cpu", "minmax", 9, 43)


def make_package(
    folder: Path,
    sizes: Sequence[tuple[int, int]] = SIZES,
    precisions: Sequence[str] = ("fp32",),
    **changes: Any,
) -> Package:
    """Writes a package with a model for every size and precision, and a pair for every size.

    Args:
        folder: to write it to.
        sizes: height and width.
        precisions: ``fp32``, ``fp16`` or ``int8``.
        changes: of the models' metadata.
    """
    (folder / "models").mkdir(parents=True)
    models, pairs = [], []
    for height, width in sizes:
        pairs.append(add_pair(folder, height, width, scored="GLUNet" in changes.get("network", "")))
        for precision in precisions:
            kind = {"int8": INT8} if precision == "int8" else {"precision": precision}
            described = metadata(height=height, width=width, **kind, **changes)
            models.append(add_model(folder, f"{height}x{width}.{precision}.onnx", described))
    return seal(folder, models, pairs, "a licence")


def add_model(folder: Path, name: str, described: ModelMetadata) -> PackagedModel:
    path = f"models/{name}"
    save_toy(folder / path, described)
    return PackagedModel(path, (path,), "onnxruntime", "", "", described, TOLERANCE, True)


def add_pair(folder: Path, height: int, width: int, scored: bool = False) -> PackagedPair:
    where = f"pairs/{height}x{width}/1"
    images = dict(zip(("reference", "query"), sample_pair(height, width)[:2], strict=True))
    for name, image in images.items():
        save_image(folder / where / f"{name}.png", image)
    flow = np.stack([np.full((height, width), image.mean(), np.float32) for image in images.values()])
    write_flow(folder / where / "flow.npy", flow)
    score = float(np.float32(images["reference"][:, : width // 2].mean())) if scored else None
    paths = (f"{where}/{name}" for name in ("reference.png", "query.png", "flow.npy"))
    return PackagedPair("built-in", height, width, *paths, score)


def rewrite_index(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the values of an index and seals it again, as somebody who means harm would."""
    import json

    values = json.loads((folder / "package.json").read_text())
    del values["sha256"]
    change(values)
    (folder / "package.json").write_text(package_module._sealed(values))


def replace_models(package: Package, *models: PackagedModel) -> Package:
    """The package with other models in its index."""
    changed = dataclasses.replace(package, models=models)
    package.index.write_text(changed.to_json())
    return changed

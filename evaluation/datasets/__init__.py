"""Readers of the public datasets, each in its own folder layout, and the pairs that need no download."""

from collections.abc import Callable
from pathlib import Path

from gocor.core.errors import ConfigError, ImageError
from gocor.evaluation.datasets.hpatches import hpatches
from gocor.evaluation.datasets.kitti import kitti2012, kitti2015
from gocor.evaluation.datasets.manifest import manifest
from gocor.evaluation.datasets.motorcycle import motorcycle
from gocor.evaluation.datasets.sintel import sintel
from gocor.evaluation.datasets.tss import tss
from gocor.evaluation.sample import Dataset

ON_DISK: dict[str, Callable[[Path], Dataset]] = {
    "kitti2012": kitti2012,
    "kitti2015": kitti2015,
    "sintel": sintel,
    "hpatches": hpatches,
    "tss": tss,
    "manifest": manifest,
}
BUILT_IN = ("synthetic", "motorcycle")
DATASETS = (*ON_DISK, *BUILT_IN)


def open_dataset(name: str, root: str | Path | None = None) -> Dataset:
    """Finds the pairs of a dataset; their files are read only when they are used.

    Args:
        name: one of ``DATASETS``.
        root: where it lies: the folder as it was unpacked, or for ``manifest`` the CSV file. Not for
            ``synthetic`` and ``motorcycle``, which need scikit-image instead.

    Raises:
        ConfigError: the dataset is unknown, or the root is missing or not wanted.
        ImageError: the root is not laid out like the dataset, or ground truth is missing.
    """
    if name not in DATASETS:
        raise ConfigError("dataset", f"unknown name {name!r}", f"one of {', '.join(DATASETS)}")
    if name in BUILT_IN:
        if root is not None:
            raise ConfigError("--root", f"was given with {name}", f"leave it out; {name} needs no files")
        return motorcycle() if name == "motorcycle" else _synthetic()
    if root is None:
        what = "the CSV file" if name == "manifest" else "the folder with the dataset"
        raise ConfigError("--root", "is missing", f"{what}, as in --dataset {name} --root DIR")
    dataset = ON_DISK[name](Path(root))
    if not dataset.samples:
        raise ImageError(root, f"holds no pairs of {name}", "the folder that the dataset was unpacked to")
    return dataset


def _synthetic() -> Dataset:
    # Imported here: the generator needs PyTorch, and the other datasets do not.
    from gocor.evaluation.synthetic.dataset import synthetic

    return synthetic()

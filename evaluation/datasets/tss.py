"""TSS: pairs of different objects of one class, with dense flow of the foreground, in both directions."""

from functools import partial
from pathlib import Path

from gocor.core.errors import ImageError
from gocor.core.reading import DOCUMENT, read_bytes
from gocor.evaluation.datasets.folders import existing, first_folder, subfolders
from gocor.evaluation.sample import Dataset, Protocol, Sample, Truth, checked, load_mask
from gocor.runtime.flipping import mirror
from gocor.runtime.flow import read_flow
from gocor.runtime.images import load_image

SUBSETS = ("FG3DCar", "JODS", "PASCAL")
PROTOCOL = Protocol(
    source=(
        "PCK within 0.05 of the query's longer side over the foreground, both directions of a pair, mean "
        "over the flows of a subset and then over the subsets; Taniai et al., CVPR 2016, RunEvaluation.m"
    ),
    shares="images",
    overall="groups",
    alpha=0.05,
)


def tss(root: Path) -> Dataset:
    """``FG3DCar/``, ``JODS/``, ``PASCAL/``, whichever are there, with one folder for each pair.

    A pair has ``image1.png``, ``image2.png``, ``flow1.flo`` (on image 1, to image 2), ``flow2.flo``,
    ``mask1.png``, ``mask2.png`` and ``flip_gt.txt``. Where that says 1, the flows are those to the mirrored
    other image, and the query is mirrored, as all publications do it.
    """
    if not root.is_dir():
        raise ImageError(root, "is no folder", "the folder TSS_CVPR2016")
    first_folder(root, SUBSETS, "the folder TSS_CVPR2016")
    subsets = [name for name in SUBSETS if (root / name).is_dir()]
    samples = [
        _sample(folder, number, name)
        for name in subsets
        for folder in subfolders(root / name)
        for number in (1, 2)
    ]
    return Dataset("tss", samples, PROTOCOL)


def _sample(folder: Path, number: int, subset: str) -> Sample:
    for name in ("image1.png", "image2.png", f"flow{number}.flo", f"mask{number}.png", "flip_gt.txt"):
        existing(folder / name, "a file of every pair of TSS")
    name = f"{subset}/{folder.name} {number}→{3 - number}"
    return Sample(name, partial(_load, folder, number), subset)


def _load(folder: Path, number: int) -> Truth:
    reference_file = folder / f"image{number}.png"
    flow_file = folder / f"flow{number}.flo"
    reference, query = load_image(reference_file), load_image(folder / f"image{3 - number}.png")
    flow, valid = read_flow(flow_file)
    truth = checked(Truth(reference, query, flow, valid), flow_file, reference_file)
    foreground = valid & load_mask(folder / f"mask{number}.png", reference, reference_file)
    if _flipped(folder / "flip_gt.txt"):
        query = mirror(query)
    return checked(
        Truth(reference, query, truth.flow, foreground), folder / f"mask{number}.png", reference_file
    )


def _flipped(path: Path) -> bool:
    text = read_bytes(path, DOCUMENT, ImageError).decode("utf-8", "replace").strip()
    if text not in ("0", "1"):
        raise ImageError(path, f"says {text[:20]!r}", "0 or 1")
    return text == "1"

"""HPatches: photographs of planar scenes from six viewpoints, related by homographies."""

from functools import partial
from pathlib import Path

from gocor.core.errors import ImageError
from gocor.evaluation.datasets.folders import existing, subfolders
from gocor.evaluation.homography import homography_flow, read_homography
from gocor.evaluation.sample import Dataset, Protocol, Sample, Truth, checked
from gocor.runtime.images import load_image

QUERIES = range(2, 7)
PROTOCOL = Protocol(
    source=(
        "AEPE: mean over the pairs' AEPE, for each of the viewpoints I to V (here 1-2 to 1-6) and overall; "
        "PCK: all pixels pooled; DGC-Net (WACV 2019) and GLU-Net (CVPR 2020), at the original size"
    ),
)


def hpatches(root: Path) -> Dataset:
    """Folders ``v_*`` (viewpoint) with ``1.ppm`` … ``6.ppm`` and ``H_1_2`` … ``H_1_6``.

    Flow of image 1 to each other one; pixels that fall outside of it are not known. Folders ``i_*`` (light)
    are left out, since nothing moves there.
    """
    sequences = [folder for folder in subfolders(root) if folder.name.startswith("v_")]
    if not sequences:
        raise ImageError(root, "holds no folders v_*", "the folder hpatches-sequences-release")
    return Dataset("hpatches", [_sample(folder, i) for i in QUERIES for folder in sequences], PROTOCOL)


def _sample(folder: Path, index: int) -> Sample:
    reference = existing(folder / "1.ppm", "the sequence's reference")
    query = existing(folder / f"{index}.ppm", f"image {index} of the sequence")
    matrix = existing(folder / f"H_1_{index}", f"homography from {reference} to {query}")
    group = f"1-{index}"
    return Sample(f"{folder.name}/{group}", partial(load_planar, reference, query, matrix), group)


def load_planar(reference: Path, query: Path, matrix: Path) -> Truth:
    """Reads two images of a plane and the homography between them."""
    first, second = load_image(reference), load_image(query)
    flow, valid = homography_flow(read_homography(matrix), first.shape[:2], second.shape[:2])
    return checked(Truth(first, second, flow, valid), matrix, reference)

"""KITTI 2012 and 2015, training sets: sparse flow of street scenes in 16-bit PNGs."""

from functools import partial
from pathlib import Path

from gocor.evaluation.datasets.folders import existing, first_folder, training_folder
from gocor.evaluation.sample import Dataset, Protocol, Sample, Truth, checked
from gocor.runtime.flow import read_flow
from gocor.runtime.images import load_image

PROTOCOL = Protocol(
    source=(
        "AEPE: mean over the pairs' AEPE, occluded pixels included, as in publications since FlowNet2; "
        "Fl-all: all pixels pooled, KITTI 2015 development kit, evaluate_scene_flow.cpp"
    ),
)


def kitti2012(root: Path) -> Dataset:
    """``training/`` with ``colored_0/`` or grey ``image_0/``, ``flow_occ/`` and, if there, ``flow_noc/``."""
    return _kitti("kitti2012", root, ("colored_0", "image_0"))


def kitti2015(root: Path) -> Dataset:
    """``training/`` with ``image_2/``, ``flow_occ/`` and, if there, ``flow_noc/``."""
    return _kitti("kitti2015", root, ("image_2",))


def _kitti(name: str, root: Path, image_folders: tuple[str, ...]) -> Dataset:
    expected = f"KITTI's training set with {image_folders[0]}/ and flow_occ/"
    training = training_folder(root, expected)
    images = first_folder(training, image_folders, expected)
    known = first_folder(training, ("flow_occ",), expected)
    visible = training / "flow_noc"
    samples = []
    for reference in sorted(images.glob("*_10.png")):
        query = existing(reference.with_name(reference.name.replace("_10", "_11")), f"query of {reference}")
        flow = existing(known / reference.name, f"ground truth of {reference}")
        seen = (
            existing(visible / reference.name, f"ground truth of {reference}") if visible.is_dir() else None
        )
        samples.append(Sample(reference.stem, partial(_load, reference, query, flow, seen)))
    return Dataset(name, samples, PROTOCOL)


def _load(reference: Path, query: Path, flow_file: Path, visible_file: Path | None) -> Truth:
    flow, valid = read_flow(flow_file)
    image, second = load_image(reference), load_image(query)
    truth = checked(Truth(image, second, flow, valid), flow_file, reference)
    if visible_file is None:
        return truth
    visible_flow, visible = read_flow(visible_file)
    checked(Truth(image, second, visible_flow, visible), visible_file, reference)
    return Truth(image, second, flow, valid, visible & valid)

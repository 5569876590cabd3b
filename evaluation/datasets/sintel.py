"""MPI-Sintel, training set: dense flow of a rendered film, in a clean and a final pass."""

from functools import partial
from itertools import pairwise
from pathlib import Path

from gocor.core.errors import ImageError
from gocor.evaluation.datasets.folders import existing, first_folder, subfolders, training_folder
from gocor.evaluation.sample import Dataset, Protocol, Sample, Truth, checked, load_mask
from gocor.runtime.flow import read_flow
from gocor.runtime.images import load_image

PASSES = ("clean", "final")
PROTOCOL = Protocol(
    source=(
        "every pixel of the training set counts, occluded ones and those of the masks 'invalid' included, "
        "as in publications (PWC-Net, RAFT); visible are those of neither mask"
    ),
    aepe="pixels",
    overall="none",  # clean and final are never averaged
)


def sintel(root: Path) -> Dataset:
    """``training/`` with ``clean/`` or ``final/`` or both, and ``flow/``.

    The masks ``occlusions/`` and ``invalid/`` are used where the folders are there.
    """
    expected = "MPI-Sintel's training set with clean/ or final/, and flow/"
    training = training_folder(root, expected)
    first_folder(training, PASSES, expected)
    first_folder(training, ("flow",), expected)
    passes = [name for name in PASSES if (training / name).is_dir()]
    return Dataset("sintel", [sample for name in passes for sample in _pass(training, name)], PROTOCOL)


def _pass(training: Path, name: str) -> list[Sample]:
    samples = []
    for scene in subfolders(training / name):
        frames = sorted(scene.glob("frame_*.png"))
        if len(frames) < 2:
            raise ImageError(scene, f"holds {len(frames)} frames", "at least two files frame_*.png")
        for reference, query in pairwise(frames):
            place = f"{scene.name}/{reference.stem}"
            flow = existing(training / "flow" / f"{place}.flo", f"ground truth of {reference}")
            hidden = [
                existing(training / mask / f"{place}.png", f"mask of {reference}")
                for mask in ("occlusions", "invalid")
                if (training / mask).is_dir()
            ]
            samples.append(Sample(f"{name}/{place}", partial(_load, reference, query, flow, hidden), name))
    return samples


def _load(reference: Path, query: Path, flow_file: Path, hidden: list[Path]) -> Truth:
    flow, valid = read_flow(flow_file)
    image = load_image(reference)
    truth = checked(Truth(image, load_image(query), flow, valid), flow_file, reference)
    if not hidden:
        return truth
    visible = valid.copy()
    for path in hidden:
        visible &= ~load_mask(path, image, reference)
    return Truth(image, truth.query, flow, valid, visible)

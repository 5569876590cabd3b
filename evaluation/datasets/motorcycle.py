"""The stereo pair in scikit-image's wheel, at a quarter of its size: real photographs, and no download."""

import numpy as np

from gocor.evaluation.sample import Dataset, Protocol, Sample, Truth
from gocor.evaluation.synthetic.photographs import data_folder
from gocor.runtime.images import load_image

REDUCTION = 4
PROTOCOL = Protocol(
    source="one pair: Middlebury 2014 'Motorcycle' (Scharstein et al., GCPR 2014), disparity as flow"
)


def motorcycle() -> Dataset:
    """The pair, 185×125 pixels with up to 17 px of motion; needs scikit-image.

    Raises:
        DependencyError: scikit-image is not installed.
    """
    folder = data_folder("motorcycle")

    def load() -> Truth:
        left, right = (load_image(folder / f"motorcycle_{side}.png") for side in ("left", "right"))
        with np.load(folder / "motorcycle_disp.npz", allow_pickle=False) as arrays:
            disparity = _reduced(arrays["arr_0"].astype(np.float64)[..., None])[..., 0] / REDUCTION
        known = np.isfinite(disparity)
        flow = np.stack([-np.where(known, disparity, 0), np.zeros_like(disparity)]).astype(np.float32)
        reference, query = (np.rint(_reduced(image)).astype(np.uint8) for image in (left, right))
        return Truth(reference, query, flow, known)

    return Dataset("motorcycle", [Sample("motorcycle", load)], PROTOCOL)


def _reduced(image: np.ndarray) -> np.ndarray:
    """Means of blocks of 4×4 pixels; NaN where a block has one. What is left over at the edges is cut off."""
    height, width = (side // REDUCTION for side in image.shape[:2])
    blocks = image[: height * REDUCTION, : width * REDUCTION]
    return blocks.reshape(height, REDUCTION, width, REDUCTION, -1).mean(axis=(1, 3))

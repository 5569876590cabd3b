"""The image pairs of a package and what PyTorch says about them, which its models are held against."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gocor.calibration.pairs import from_source, load_pair
from gocor.core.errors import ModelError
from gocor.core.files import write_text
from gocor.export.estimate import estimate_flow, run_network
from gocor.export.networks import Network
from gocor.runtime.flow import write_flow
from gocor.runtime.images import save_image
from gocor.runtime.metadata import ORIENTATION_SCORE
from gocor.runtime.package import PackagedPair
from gocor.runtime.pairs import PairSource
from gocor.runtime.preprocess import resize_images
from gocor.runtime.sample_pair import sample_pair

BUILT_IN, GIVEN = 2, 4  # pairs for each size; of those that a user gives, at most
PAIRS, FILES = "pairs", ("reference.png", "query.png", "flow.npy")


def write_truth(
    root: Path, network: Network, size: tuple[int, int], pairs: PairSource | None, samples: int
) -> list[PackagedPair]:
    """Writes pairs of one size, PyTorch's flows, and a table of the pairs for ``--pairs``.

    Images of another size are resized by the network's own rule. Of given pairs those are taken that models
    are not calibrated with, if there are enough.

    Args:
        root: folder of the package.
        network: from ``load_network``.
        size: height and width.
        pairs: that were given; the built-in ones when None.
        samples: as for calibration.

    Raises:
        ImageError: a pair cannot be read.
        ModelError: PyTorch's flow is not finite.
    """
    height, width = size
    folder, found = f"{PAIRS}/{height}x{width}", []
    for number, (name, images) in enumerate(_images(network, size, pairs, samples), start=1):
        reference, query, truth = (f"{folder}/{number}/{file}" for file in FILES)
        for path, image in zip((reference, query), images, strict=True):
            save_image(root / path, image)
        flow = estimate_flow(network, *images)
        if bad := int(np.count_nonzero(~np.isfinite(flow))):
            got = f"its flow holds NaN or infinity in {bad:,} of {flow.size:,} values in PyTorch itself"
            raise ModelError(f"pair {name}", got, "look at the weights and at the pair")
        write_flow(root / truth, flow)
        score = _score(network, images)
        found.append(PackagedPair(name, height, width, reference, query, truth, score))
    rows = [f"{n}/reference.png,{n}/query.png,{n}" for n in range(1, len(found) + 1)]
    write_text(root / folder / "pairs.csv", "\n".join(["reference,query,name", *rows, ""]))
    return found


def _images(
    network: Network, size: tuple[int, int], pairs: PairSource | None, samples: int
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    if pairs is None:
        for seed in range(BUILT_IN):
            yield f"built-in {seed}", sample_pair(*size, seed)[:2]
        return
    held_out = from_source(pairs, samples).held_out
    for pair in held_out[:: math.ceil(len(held_out) / GIVEN)]:
        reference, query = (resize_images(i, *size, network.spec.family)[0] for i in load_pair(pair))
        yield pair.name, (reference, query)


def _score(network: Network, images: tuple[np.ndarray, np.ndarray]) -> float | None:
    if network.spec.family != "glunet":
        return None
    reference, query = (image[None] for image in images)
    return float(run_network(network, reference, query)[ORIENTATION_SCORE][0])

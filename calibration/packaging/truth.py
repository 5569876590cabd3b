"""The image pairs of a package and what PyTorch says about them, which its models are held against."""

import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gocor.calibration.pairs import from_source, load_pair, to_compare
from gocor.core.errors import ModelError
from gocor.core.files import write_text
from gocor.export.estimate import estimate_flow, run_network
from gocor.export.networks import Network
from gocor.runtime.compare import compare_flows, tolerance_for
from gocor.runtime.flow import write_flow
from gocor.runtime.images import save_image
from gocor.runtime.metadata import ORIENTATION_SCORE
from gocor.runtime.package import PackagedPair
from gocor.runtime.pairs import PairSource
from gocor.runtime.preprocess import resize_images
from gocor.runtime.sample_pair import sample_pair

BUILT_IN, GIVEN = 2, 4  # pairs for each size; of those that a user gives, at most
TRIED = 8  # built-in pairs, until there are enough
PAIRS, FILES = "pairs", ("reference.png", "query.png", "flow.npy")
STEADY = 0.25  # share of a model's tolerance by which PyTorch may differ from itself

Images = tuple[np.ndarray, np.ndarray]

logger = logging.getLogger("gocor")


@dataclass(frozen=True)
class Truth:
    """The pairs of one size.

    Attributes:
        pairs: that were written.
        left_out: why others were not, a line each.
    """

    pairs: tuple[PackagedPair, ...]
    left_out: tuple[str, ...]


def write_truth(
    root: Path, network: Network, size: tuple[int, int], pairs: PairSource | None, samples: int | None
) -> Truth:
    """Writes pairs of one size, PyTorch's flows, and a table of the pairs for ``--pairs``.

    Images of another size are resized by the network's own rule. Given pairs are taken evenly from all of
    them, or from those that models are not calibrated with, if there are any. A pair whose flow PyTorch
    itself computes differently, as soon as it convolves in another way, is left out: where a warp meets its
    edge, or a score its kink, rounding decides, and such a flow is nothing to hold a model against.

    Args:
        root: folder of the package.
        network: from ``load_network``.
        size: height and width.
        pairs: that were given; the built-in ones when None.
        samples: so many of the pairs at most are calibrated with; None if nothing is calibrated.

    Raises:
        ImageError: a pair cannot be read.
        ModelError: PyTorch's flow is not finite, or there is no pair of which it is sure.
    """
    height, width = size
    folder = f"{PAIRS}/{height}x{width}"
    found: list[PackagedPair] = []
    left_out: list[str] = []
    for name, images in _images(network, size, pairs, samples):
        if len(found) == (BUILT_IN if pairs is None else GIVEN):
            break
        flow = estimate_flow(network, *images)
        if reason := _unsteady(network, name, images, flow):
            left_out.append(f"{name} at {height}x{width}: {reason}")
            logger.info("left out, since PyTorch's own flow depends on its rounding: %s", left_out[-1])
            continue
        found.append(_write(root, f"{folder}/{len(found) + 1}", name, images, flow, _score(network, images)))
    if not found:
        got = f"PyTorch's own flow depends on its rounding for all of them ({left_out[0]})"
        raise ModelError("--pairs", got, "other pairs, or look at the weights")
    rows = [f"{n}/reference.png,{n}/query.png,{n}" for n in range(1, len(found) + 1)]
    write_text(root / folder / "pairs.csv", "\n".join(["reference,query,name", *rows, ""]))
    return Truth(tuple(found), tuple(left_out))


def _images(
    network: Network, size: tuple[int, int], pairs: PairSource | None, samples: int | None
) -> Iterator[tuple[str, Images]]:
    """Pairs to take, best first."""
    if pairs is None:
        for seed in range(TRIED):
            yield f"built-in {seed}", sample_pair(*size, seed)[:2]
        return
    chosen = (to_compare(pairs, *size) if samples is None else from_source(pairs, samples)).held_out
    first = chosen[:: math.ceil(len(chosen) / GIVEN)]  # spread evenly
    for pair in (*first, *(pair for pair in chosen if pair not in first)):
        reference, query = (resize_images(i, *size, network.spec.family)[0] for i in load_pair(pair))
        yield pair.name, (reference, query)


def _unsteady(network: Network, name: str, images: Images, flow: np.ndarray) -> str:
    """How far PyTorch is from itself when it convolves without oneDNN; empty if it is near enough.

    Raises:
        ModelError: its flow is not finite.
    """
    if bad := int(np.count_nonzero(~np.isfinite(flow))):
        got = f"its flow holds NaN or infinity in {bad:,} of {flow.size:,} values in PyTorch itself"
        raise ModelError(f"pair {name}", got, "look at the weights and at the pair")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of GPUs by Intel, when the switch is read
        with torch.backends.mkldnn.flags(enabled=False):
            other = estimate_flow(network, *images)
    allowed = tolerance_for(network.spec.family, "fp32")
    compared = compare_flows("flow", other, flow, allowed.scaled_to(STEADY * allowed.aepe))
    return "" if compared.passed else compared.explain()


def _write(
    root: Path, folder: str, name: str, images: Images, flow: np.ndarray, score: float | None
) -> PackagedPair:
    height, width = flow.shape[1:]
    reference, query, truth = (f"{folder}/{file}" for file in FILES)
    for path, image in zip((reference, query), images, strict=True):
        save_image(root / path, image)
    write_flow(root / truth, flow)
    return PackagedPair(name, height, width, reference, query, truth, score)


def _score(network: Network, images: Images) -> float | None:
    if network.spec.family != "glunet":
        return None
    reference, query = (image[None] for image in images)
    return float(run_network(network, reference, query)[ORIENTATION_SCORE][0])

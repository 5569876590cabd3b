"""From uint8 images to flow with PyTorch: the official pipeline, against which every model is verified."""

from collections.abc import Mapping

import numpy as np
import torch

from gocor.export.networks import GLUNet, Network
from gocor.runtime.flipping import FlipDecision, decide_flip, mirror, unmirror_flow
from gocor.runtime.preprocess import as_batches, preprocess


def run_network(
    network: Network, reference: np.ndarray, query: np.ndarray, size: tuple[int, int] | None = None
) -> dict[str, torch.Tensor]:
    """Every flow of the network for a batch of images, and the orientation score where there is one.

    Args:
        network: in evaluation mode, on any device.
        reference: uint8 RGB ``(N, H, W, 3)``.
        query: likewise.
        size: height and width that the network sees; its own working size for these images when None.

    Returns:
        The network's flows by ``spec.outputs``, as it returns them, and ``orientation_score`` ``(N,)``.
    """
    return run_tensors(network, preprocess(network.spec, reference, query, size))


def run_tensors(network: Network, tensors: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The same for preprocessed tensors, float32 by ``spec.tensor_inputs``."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        outputs = network(
            *(torch.from_numpy(tensors[name]).to(device) for name in network.spec.tensor_inputs)
        )
        flows = dict(zip(network.spec.outputs, outputs, strict=False))
        if isinstance(network, GLUNet):
            flows["orientation_score"] = network.orientation_score(outputs.global_volume, outputs.flow4)
    return flows


def estimate_flow(
    network: Network, reference: np.ndarray, query: np.ndarray, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Flow between two images, or two batches of images, as the official code computes it.

    Args:
        network: in evaluation mode, on any device.
        reference: uint8 RGB ``(H, W, 3)`` or ``(N, H, W, 3)``.
        query: likewise.
        size: height and width that the network sees; only its own working size (None) is official.

    Returns:
        float32 ``(2, H, W)`` or ``(N, 2, H, W)`` in pixels, channel 0 = x.

    Raises:
        ShapeError: the images are no uint8 RGB arrays of one shape.
    """
    single = np.ndim(reference) == 3
    reference, query = as_batches(reference, query)
    height, width = reference.shape[1:3]
    last = run_network(network, reference, query, size)[network.spec.outputs[-1]]
    flow = upsample_flow(
        last * network.spec.flow_unit, height, width, size or network.spec.working_size(height, width)
    )
    return flow[0].cpu().numpy() if single else flow.cpu().numpy()


def upsample_flow(flow: torch.Tensor, height: int, width: int, working_size: tuple[int, int]) -> torch.Tensor:
    """Resizes a flow ``(N, 2, h, w)`` in pixels of ``working_size`` to the given size and its pixels."""
    flow = torch.nn.functional.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
    scale_x, scale_y = width / working_size[1], height / working_size[0]
    if scale_x == scale_y == 1:
        return flow
    return torch.cat((flow[:, :1] * scale_x, flow[:, 1:] * scale_y), dim=1)


def estimate_flow_with_flip_check(
    network: GLUNet, reference: np.ndarray, query: np.ndarray
) -> tuple[np.ndarray, FlipDecision]:
    """Flow of a pair whose query may show the reference's object mirrored (semantic data).

    Only the coarsest level is run to decide; see ``gocor.runtime.flipping`` for the same on a model file.
    """
    device = next(network.parameters()).device

    def score(first: np.ndarray, second: np.ndarray) -> float:
        tensors = preprocess(network.spec, first, second)
        coarse = (torch.from_numpy(tensors[name]).to(device) for name in ("reference_256", "query_256"))
        with torch.inference_mode():
            return float(network.orientation_score(*network.coarse_flow(*coarse)))

    decision = decide_flip(score, reference, query, network.spec.orientation_higher_wins)
    if not decision.flipped:
        return estimate_flow(network, reference, query), decision
    return unmirror_flow(estimate_flow(network, mirror(reference), query)), decision

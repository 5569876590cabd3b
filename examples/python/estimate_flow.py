"""Optical flow between two images with a model that `gocor export` made.

    python estimate_flow.py model.onnx reference.png query.png flow.flo

Needs no PyTorch: pip install "gocor-deploy[cpu]"
"""

import sys

import numpy as np

import gocor
from gocor.runtime.flow import write_flow
from gocor.runtime.images import load_image


def main(model: str, reference: str, query: str, output: str) -> None:
    """Estimates the flow, writes it, and says how far the pixels moved."""
    with gocor.load(model, provider="cpu") as estimator:
        flow = estimator(load_image(reference), load_image(query))  # float32 (2, H, W): x, y in pixels
    write_flow(output, flow)
    print(f"{output}: {flow.shape[2]}×{flow.shape[1]}, mean motion {np.hypot(*flow).mean():.2f} px")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except gocor.GocorError as error:
        sys.exit(f"error: {error}")  # one line: what is wrong, and what to do

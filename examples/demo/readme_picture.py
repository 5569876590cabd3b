"""Draws the README's picture: what `gocor run` writes, for a flow that was measured, not estimated.

python examples/demo/readme_picture.py docs/images/demo.png
"""

import sys
from importlib.resources import files

import numpy as np
from PIL import Image

from gocor.runtime.flow import warp
from gocor.runtime.images import load_image
from gocor.runtime.visualize import overview

WIDTH = 1400


def main(output: str) -> None:
    """Middlebury's disparity of the motorcycle is the flow from the left to the right image."""
    photos = files("skimage") / "data"
    left, right = (load_image(str(photos / f"motorcycle_{side}.png")) for side in ("left", "right"))
    disparity = np.load(str(photos / "motorcycle_disp.npz"))["arr_0"]
    flow = np.stack([-disparity, np.zeros_like(disparity)]).astype(np.float32)
    flow[:, ~np.isfinite(disparity)] = np.nan  # not measured
    warped = warp(right, np.nan_to_num(flow, nan=left.shape[1]))
    picture = Image.fromarray(overview(left, right, warped, flow))
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture.save(output, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

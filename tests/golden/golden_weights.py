"""Deterministic stand-in weights for the golden cases of this folder.

The trained checkpoints may not be redistributed, so the golden cases were computed with weights
drawn from a generator seeded by each parameter's own name. Fill a network's ``state_dict`` with
``fill_state_dict`` and it must reproduce the recorded outputs. Not a digit of this may change: the
recordings belong to exactly these numbers.
"""

import zlib

import numpy as np


def golden_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Value of the parameter or buffer called ``name`` in the checkpoint, as float32.

    Args:
        name: full ``state_dict`` key, such as ``conv1a.0.weight``.
        shape: the parameter's shape.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.rsplit(".", 1)[-1]
    draw = lambda: rng.standard_normal(shape).astype(np.float32)  # noqa: E731

    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf in ("scaling", "target_fg"):
        return 1.0 + 0.1 * draw()
    if leaf == "target_bg":
        return 0.1 * draw()
    if leaf == "log_step_length":
        return -0.2 + 0.1 * draw()
    if leaf == "filter_reg":
        return 1e-2 * (1.0 + 0.1 * draw())
    if leaf in ("weight1", "weight2"):  # 4D-convolution regulariser of the query loss
        return 0.05 * draw()

    bins = np.arange(shape[1], dtype=np.float32).reshape(1, -1, 1, 1) * 0.5 if len(shape) == 4 else None
    if "label_map_predictor" in name:
        gauss = np.exp(-0.5 * bins**2)
        return gauss - gauss.min() + 0.02 * draw()
    if "spatial_weight_predictor" in name:
        return 1.0 + 0.1 * draw()
    if "target_mask_predictor" in name:
        return 4.0 * np.tanh(2.0 - bins) + 0.1 * draw()

    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    if leaf in ("bias", "running_mean"):
        return 0.02 * draw()
    if len(shape) == 4:  # convolution; transposed ones are recognised by name
        transposed = name.startswith(("deconv", "upfeat"))
        fan_in = shape[0] * 4 if transposed else shape[1] * shape[2] * shape[3]
        flow_head = "predict_flow" in name or "conv7" in name or name.endswith("final.weight")
        gain = 1.5 if flow_head else 1.0 if transposed else 1.4
        return gain / np.sqrt(fan_in) * draw()
    raise ValueError(f"no rule for parameter {name} of shape {shape}")


def fill_state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """One array for every ``state_dict`` key; ``shapes`` maps key to shape."""
    return {name: golden_tensor(name, tuple(shape)) for name, shape in shapes.items()}

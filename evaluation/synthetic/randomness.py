"""Random numbers that depend on the pair alone, not on the batch, the order, the worker or the device.

The few numbers that describe a pair come from a NumPy generator of its own; whole fields (textures, noise)
are hashes of a key and the position, computed where they are used.
"""

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from gocor.evaluation.synthetic.config import Split, SyntheticConfig


class Variates:
    """Streams of random numbers, one for each pair of a batch.

    Args:
        config: gives seed and split.
        indices: of the pairs.
        part: what the numbers are for; every part has a stream of its own, so that it can change what it
            draws without changing the others.
        device: of the tensors.
    """

    def __init__(
        self, config: SyntheticConfig, indices: Sequence[int], part: int, device: torch.device
    ) -> None:
        split = get_args(Split).index(config.split)
        self._streams = [np.random.default_rng([config.seed, split, part, index]) for index in indices]
        self._device = device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """float32 ``(B, *shape)``, evenly distributed."""
        values = np.stack([stream.random(shape, dtype=np.float32) for stream in self._streams])
        return self._tensor(values) * (high - low) + low

    def integers(self, high: int, *shape: int) -> Tensor:
        """int64 ``(B, *shape)``, from 0 to below ``high``."""
        return self._tensor(np.stack([stream.integers(high, size=shape) for stream in self._streams]))

    def keys(self, *shape: int) -> Tensor:
        """int32 ``(B, *shape)``: keys for ``hashed``."""
        values = [stream.integers(-(2**31), 2**31, size=shape, dtype=np.int32) for stream in self._streams]
        return self._tensor(np.stack(values))

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)


def mixed(values: Tensor) -> Tensor:
    """Hashes int32 to int32: Wellons' ``lowbias32``, whose avalanche is close to perfect."""
    values = (values ^ ((values >> 16) & 0xFFFF)) * 0x7FEB352D
    values = (values ^ ((values >> 15) & 0x1FFFF)) * -0x7B935975  # 0x846CA68B
    return values ^ ((values >> 16) & 0xFFFF)


def unit(hashes: Tensor) -> Tensor:
    """float32 in 0 to below 1 from int32 hashes."""
    return ((hashes >> 8) & 0xFFFFFF) * 2.0**-24


def hashed(keys: Tensor, *shape: int) -> Tensor:
    """float32 ``(N, *shape)`` in 0 to below 1, a field for each of the int32 keys ``(N,)``."""
    return unit(_field(keys, shape))


def hashed_normal(keys: Tensor, *shape: int) -> Tensor:
    """Like ``hashed``, distributed normally (as the sum of four), mean 0 and deviation 1."""
    first = _field(keys, shape)
    second = mixed(first ^ 0x3C6EF372)
    total = (first & 0xFFFF) + ((first >> 16) & 0xFFFF) + (second & 0xFFFF) + ((second >> 16) & 0xFFFF)
    return (total - 2 * 0xFFFF) * (math.sqrt(3) / 0x10000)


def _field(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    positions = mixed(torch.arange(math.prod(shape), dtype=torch.int32, device=keys.device))
    return mixed(positions ^ mixed(keys)[:, None]).reshape(-1, *shape)

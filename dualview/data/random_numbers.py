"""Random numbers as a function of a key and a position: the same on CPU and GPU, in any order, for any batch.

The generator is SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195), whose n-th number needs none
of those before it. Integers alone decide, so devices cannot disagree.
"""

from functools import cache

import torch
from torch import Tensor

MASK = (1 << 64) - 1
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(*parts: int) -> int:
    """A 64-bit key, as a signed number for int64, that depends on every part and their order."""
    state = 0
    for part in parts:
        state = (state ^ part) + GOLDEN & MASK
        state = (state ^ state >> 30) * FIRST & MASK
        state = (state ^ state >> 27) * SECOND & MASK
        state ^= state >> 31
    return _signed(state)


def bits(keys: Tensor, count: int) -> Tensor:
    """The first `count` numbers of each key's stream: (N,) int64 to (N, count) int64, all 64 bits random."""
    position = torch.arange(1, count + 1, device=keys.device) * _signed(GOLDEN)
    state = keys[:, None] + position
    state = (state ^ _shifted(state, 30)) * _signed(FIRST)
    state = (state ^ _shifted(state, 27)) * _signed(SECOND)
    return state ^ _shifted(state, 31)


def uniform(keys: Tensor, count: int) -> Tensor:
    """(N, count) float64 in [0, 1): the upper 53 bits of `bits`."""
    return _shifted(bits(keys, count), 11).double() * 2.0**-53


def normal(keys: Tensor, count: int) -> Tensor:
    """(N, count) float32, standard normal to a resolution of 65,536 equally likely values, at most 4.3 from 0.

    Four values are taken from each number, by the quantile function at (n + 1/2) / 65,536.
    """
    indices = bits(keys, -(-count // 4)).view(torch.int16)[:, :count].int() + 2**15
    return _quantiles(keys.device).index_select(0, indices.reshape(-1)).reshape(len(keys), count)


@cache
def _quantiles(device: torch.device) -> Tensor:
    levels = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16
    quantiles: Tensor = torch.special.ndtri(levels)
    return quantiles.float().to(device)


def _shifted(values: Tensor, by: int) -> Tensor:
    """Shift to the right that fills with zeros, where torch's own fills with the sign."""
    return (values >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value

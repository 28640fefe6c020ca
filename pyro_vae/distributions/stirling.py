"""What log-probabilities of large counts need: differences of huge log-factorials without the huge numbers.

Loader (2000), "Fast and accurate computation of binomial probabilities": by Stirling's formula the parts that are huge
cancel on paper, rather than in floating point.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_poisson", "log_ratio", "stirling_remainder"]


def stirling_remainder(z: Tensor) -> Tensor:
    """log Gamma(z + 1) - (z log z - z), for z of at least 0; about log(2 pi z) / 2 where z is large."""
    tiny = torch.finfo(z.dtype).tiny
    small = z.clamp_max(10)  # where it is used; factorials of the largest overflow
    direct = torch.lgamma(small + 1) - small * small.clamp_min(tiny).log() + small
    inverse = 1 / z.clamp_min(10)
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))))
    return torch.where(z < 10, direct, series - 0.5 * (inverse / (2 * torch.pi)).log())


def log_ratio(excess: Tensor, difference: Tensor) -> Tensor:
    """log(a / b), by a / b - 1 (the excess) where a is near b, elsewhere by log a - log b (the difference)."""
    near = excess.abs() < 0.5
    return torch.where(near, torch.log1p(torch.where(near, excess, 0)), difference)


def draw_poisson(rate: Tensor) -> Tensor:
    """Draws a count for each rate; torch's kernels draw in 64-bit integers, which rates of 2^63 and more overflow."""
    return torch.poisson(rate.clamp_max(2.0**62))

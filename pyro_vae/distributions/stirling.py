"""Accurate log-probabilities of large counts, without differences of large log-factorials.

By Stirling's formula the large terms cancel on paper instead of in floating point (Loader 2000, "Fast and accurate
computation of binomial probabilities").
"""

from __future__ import annotations

import torch
from torch import Tensor


def stirling_remainder(z: Tensor) -> Tensor:
    """log Gamma(z + 1) - (z log z - z), for z of at least 0; approximately log(2 pi z) / 2 for large z."""
    tiny = torch.finfo(torch.float32).tiny  # in float64 too, since ONNX files keep numbers in float32
    small = z.clamp_max(10)  # larger z are not used, and their factorials would overflow
    direct = torch.lgamma(small + 1) - small * small.clamp_min(tiny).log() + small
    inverse = 1 / z.clamp_min(10)
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))))
    return torch.where(z < 10, direct, series - 0.5 * (inverse / (2 * torch.pi)).log())


def log_ratio(excess: Tensor, difference: Tensor) -> Tensor:
    """log(a / b), from the excess a / b - 1 if a is near b, else from the difference log a - log b."""
    near = excess.abs() < 0.5
    return torch.where(near, torch.log1p(torch.where(near, excess, 0)), difference)


def draw_poisson(rate: Tensor) -> Tensor:
    """Draws a count for each rate, at most 2^62, since torch draws 64-bit integers, which would overflow."""
    return torch.poisson(rate.clamp_max(2.0**62))

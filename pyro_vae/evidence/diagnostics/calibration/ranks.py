"""Ranks of true values among draws."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_PROJECTIONS = 8


def ranks_among(true: Tensor, draws: Tensor, rounding: Tensor | None = None) -> Tensor:
    """How many of the draws ``[draws, n, ...]`` lie below the true values ``[n, ...]``; ties are broken at random.

    Args:
        true: The true values.
        draws: The draws.
        rounding: How close a draw has to be to count as equal, ``[n, ...]``.
    """
    equal = draws == true
    if rounding is not None:
        equal |= (draws - true).abs() <= rounding
    ties = equal.sum(0)
    broken = (torch.rand(ties.shape, device=ties.device, dtype=torch.float64) * (ties + 1)).long()
    return ((draws < true) & ~equal).sum(0) + broken


def projection_ranks(true: dict[str, Tensor], draws: dict[str, Tensor]) -> Tensor | None:
    """The ranks of 8 random projections of latents ``[n, ...]`` among those of draws ``[draws, n, ...]``, ``[n, 8]``.

    A coordinate is divided by its standard deviation, in which the true value counts like a draw: so all values are
    treated alike, and projections are exchangeable where the latents are. In float64, so that equal draws remain equal.
    None if there is one coordinate only.
    """
    n = len(next(iter(true.values())))
    pooled = (torch.cat([value[None], draws[name]]).double() for name, value in true.items())
    every = torch.cat([values.reshape(len(values), n, -1) for values in pooled], dim=-1)
    if every.shape[-1] == 1:
        return None
    every = (every - every.mean(0)) / every.std(0).clamp_min(torch.finfo(torch.float64).tiny)
    directions = torch.randn(every.shape[-1], NUM_PROJECTIONS, generator=torch.Generator().manual_seed(0)).to(every)
    projected = every.nan_to_num() @ directions / every.shape[-1] ** 0.5
    return ranks_among(projected[0], projected[1:], torch.full_like(projected[0], 1e-10))

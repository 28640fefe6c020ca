"""Pareto-smoothed importance sampling: the k-hat diagnostic and the smoothed weights, as ArviZ computes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pyro_vae.evidence.results.lazy_arviz import import_arviz


def tail_length(num_samples: int) -> int:
    """The number of the largest weights, to which k-hat is fitted (Vehtari et al. 2024)."""
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def pareto_smooth(tail: Tensor) -> tuple[Tensor, Tensor]:
    """Fits a generalized Pareto distribution to the largest weights (Vehtari et al. 2024).

    Below 0.5 the weights have a finite variance. Up to 0.7 importance sampling works in practice. Above, neither its
    estimate nor its standard error is reliable. A low k-hat is no proof: a sample that missed the tail has one too. For
    reliable errors see :mod:`pyro_vae.evidence.results.error_bars`.

    Args:
        tail: The largest log-weights, ``[tail + 1, n]``; the smallest of them is the threshold where the tail begins.

    Returns:
        k-hat, ``[n]``: 0 where the weights of the tail agree to 0.1% (with the exact posterior as the guide there is
        only rounding to fit), infinity where there are too few weights, or too many equal ones. And the log-weights
        with the tail replaced by quantiles of the fit, up to the largest one seen; unchanged where there is no fit.
        ``[tail + 1, n]``, in descending order.
    """
    tail = tail.detach().cpu().double().sort(0, descending=True).values
    length = tail.shape[0] - 1
    if length < 5:
        return tail.new_full(tail.shape[1:], torch.inf), tail
    varying = ~(tail[0] - tail[-1] < 1e-3)
    k, smoothed = tail.new_zeros(tail.shape[1:]), tail.clone()
    if varying.any():
        # ArviZ fits the largest fifth of its input. So we pass the tail with four times as many values without
        # influence, instead of the whole sample; the fit is then to the tail, whatever the size of the sample.
        filler = tail[-1:, varying].expand(4 * length - 1, -1)
        padded, shape = _arviz_psislw()(torch.cat([tail[:, varying], filler]).T.contiguous().numpy())
        fitted = torch.from_numpy(np.atleast_1d(shape)).double()
        k[varying] = fitted.masked_fill(fitted.isnan(), torch.inf)
        # The result is normalized; the filler tells the constant.
        out = torch.from_numpy(np.atleast_2d(padded)).double().T
        out = (out + (tail[-1, varying] - out[-1]))[: length + 1].sort(0, descending=True).values
        smoothed[:, varying] = torch.where(fitted.isfinite(), out, tail[:, varying])
    return k, smoothed


@cache
def _arviz_psislw() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    # With a tiny relative efficiency, the tail of ArviZ is a fifth.
    arviz, is_new = import_arviz()
    return _arviz_stats_psislw if is_new else lambda log_weights: arviz.psislw(log_weights, 1e-9)


def _arviz_stats_psislw(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from arviz_stats.base import array_stats

    # It takes minus the log-weights (a log-likelihood, for leave-one-out), unlike ArviZ before 1.0.
    return array_stats.psislw(-log_weights, 1e-9)

"""Pareto-smoothed importance sampling: the k-hat diagnostic and the smoothed weights.

The numbers are those of ArviZ before 1.0, which fits one datapoint after the other; here all are fitted at once.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

_SMALLEST = math.log(sys.float_info.min)  # of the log-weights of a tail, relative to the largest one
_AT_ONCE = 2**21  # numbers in a block of fits


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
    k, smoothed = tail.new_full(tail.shape[1:], torch.inf), tail.clone()
    k[tail[0] - tail[-1] < 1e-3] = 0
    above = tail - tail[0]
    above = above.masked_fill(~(above > above[-1].clamp_min(_SMALLEST)), -torch.inf)
    counts = above.isfinite().sum(0).masked_fill(k == 0, 0)
    # Mostly all are equally many: weights that equal the threshold are not in the tail.
    for count in counts[counts >= 5].unique().tolist():
        rows_at_once = max(1, _AT_ONCE // (count * _num_candidates(count)))
        for index in (counts == count).nonzero().squeeze(-1).split(rows_at_once):
            log_threshold = (tail[-1, index] - tail[0, index]).clamp_min(_SMALLEST)
            k[index], fitted = _smooth(above[:count, index].T, log_threshold.unsqueeze(-1))
            smoothed[:count, index] = torch.where(k[index].isfinite(), fitted.T + tail[0, index], tail[:count, index])
    return k, smoothed


def _smooth(tail: Tensor, log_threshold: Tensor) -> tuple[Tensor, Tensor]:
    """k-hat, ``[n]``, infinite where there is no fit, and the smoothed log-weights.

    Args:
        tail: Log-weights above the threshold, ``[n, tail]``, descending, the largest of them 0.
        log_threshold: ``[n, 1]``.
    """
    threshold, count = log_threshold.exp(), tail.shape[-1]
    k, scale = _fit(tail.exp() - threshold)
    probabilities = 1 - torch.arange(0.5, count, dtype=tail.dtype) / count
    quantiles = torch.where(
        k.abs() < torch.finfo(k.dtype).eps, -probabilities.log(), torch.expm1(-k * probabilities.log()) / k
    )
    smoothed = torch.where(scale > 0, threshold + scale * quantiles, torch.nan).log().clamp_max(0)
    has_fit = k.isfinite() & (scale > 0)
    return k.masked_fill(~has_fit, torch.inf).squeeze(-1), smoothed.flip(-1)


def _num_candidates(count: int) -> int:
    return 30 + math.isqrt(count)


def _fit(excesses: Tensor) -> tuple[Tensor, Tensor]:
    """The shape k and the scale of generalized Pareto distributions (Zhang and Stephens 2009), each ``[n, 1]``.

    With the weak prior on k of Vehtari et al. 2024, appendix G.

    Args:
        excesses: Values above the threshold, ``[n, tail]``, descending.
    """
    count = excesses.shape[-1]
    number = _num_candidates(count)
    quartile = excesses[:, -int(count / 4 + 0.5), None]
    steps = torch.arange(0.5, number, dtype=excesses.dtype)
    candidates = 1 / excesses[:, :1] + (1 - (number / steps).sqrt()) / (3 * quartile)
    shapes = torch.log1p(-candidates.unsqueeze(-1) * excesses.unsqueeze(1)).mean(-1)
    likelihoods = count * ((-candidates / shapes).log() - shapes - 1)
    posterior = likelihoods.softmax(-1)
    posterior = posterior.masked_fill(posterior < 10 * torch.finfo(posterior.dtype).eps, 0)
    candidate = (candidates * posterior).sum(-1, keepdim=True) / posterior.sum(-1, keepdim=True)
    shape = torch.log1p(-candidate * excesses).mean(-1, keepdim=True)
    return (count * shape + 10 * 0.5) / (count + 10), -shape / candidate

"""The Pareto k-hat diagnostic of importance weights, as ArviZ computes it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["pareto_k", "tail_length"]


def tail_length(num_samples: int) -> int:
    """The number of largest weights that k-hat is fitted to (Vehtari et al. 2024)."""
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def pareto_k(tail: Tensor) -> Tensor:
    """Fits a generalized Pareto distribution to the largest weights (Vehtari et al. 2024).

    Below 0.5 the weights have a finite variance; up to 0.7 importance sampling works in practice; above, neither its
    estimate nor its standard error is to be believed.

    Args:
        tail: The largest log-weights, ``[tail + 1, n]``; the smallest of them is the threshold the tail begins after.

    Returns:
        k-hat, ``[n]``: 0 where the weights of the tail lie within 0.1% of each other (with the exact posterior as the
        guide nothing but rounding is left to fit), infinity where there are too few to tell, or too many equal ones.
    """
    tail = tail.detach().cpu().double()
    length = tail.shape[0] - 1
    if length < 5:
        return tail.new_full(tail.shape[1:], torch.inf)
    constant = tail.max(0).values - tail.min(0).values < 1e-3
    k = tail.new_zeros(tail.shape[1:])
    if not constant.all():
        varying = ~constant
        # ArviZ fits to the fifth of its input that is largest: so the tail goes in with four times as many values of
        # no influence, instead of the whole sample, and whatever the size of that, it is the tail that is fitted.
        filler = tail[:, varying].min(0).values.expand(4 * length - 1, -1)
        padded = torch.cat([tail[:, varying], filler]).T.contiguous().numpy()
        fitted = torch.from_numpy(np.atleast_1d(_arviz_pareto_k()(padded))).double()
        k[varying] = fitted.masked_fill(fitted.isnan(), torch.inf)
    return k


@cache
def _arviz_pareto_k() -> Callable[[np.ndarray], np.ndarray]:
    # Imported here, since it takes seconds. A tiny relative efficiency makes ArviZ take a fifth as the tail.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # arviz 0.23 announces its next version at every import
        import arviz

    if int(arviz.__version__.split(".")[0]) < 1:
        return lambda log_weights: arviz.psislw(log_weights, 1e-9)[1]
    return _arviz_stats_pareto_k


def _arviz_stats_pareto_k(log_weights: np.ndarray) -> np.ndarray:
    from arviz_stats.base import array_stats

    # It takes minus the log-weights (a log-likelihood, for leave-one-out), as arviz before 1.0 did not.
    return array_stats.psislw(-log_weights, 1e-9)[1]

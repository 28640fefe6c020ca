"""Estimates that other estimates contradict.

Every method gives a lower bound on log p(x) on average. So an estimate is wrong if another one lies far above it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.evidence.results.error_bars import error_bars
from pyro_vae.evidence.results.running_weights import RunningWeights

# An estimate contradicts a lower one by this many errors of both; if its error is not known, by this many of its
# standard errors; in any case by at least this many nats. One datapoint in many thousands is contradicted by chance: an
# estimate is 10 nats too high with a probability of at most exp(-10) (Markov), and usually far less.
KNOWN_ERRORS, UNKNOWN_ERRORS, LEAST_DIFFERENCE = 2.0, 10.0, 0.05
LEAST_UNKNOWN = 1.0  # nats, if the error is not known


class Floor:
    """What log p(x) of n datapoints is above, by all estimates so far.

    Attributes:
        value: The bound, ``[n]`` on the CPU.
    """

    def __init__(self, n: int) -> None:
        self.value = torch.full((n,), -torch.inf, dtype=torch.float64)

    def raise_by(self, rows: Tensor, weights: RunningWeights) -> None:
        """Takes note of weights with the mean p(x), for some rows ``[m]``: they seldom exceed it by much."""
        error = error_bars(weights.moments()).error
        unknown = (UNKNOWN_ERRORS * weights.std_error.cpu()).clamp_min(LEAST_UNKNOWN)
        margin = torch.where(error.isfinite(), (KNOWN_ERRORS * error).clamp_min(LEAST_DIFFERENCE), unknown)
        bound = (weights.log_mean.cpu() - margin).nan_to_num(-torch.inf, -torch.inf)
        self.value[rows.cpu()] = torch.maximum(self.value[rows.cpu()], bound)

    def is_above(self, rows: Tensor, log_prob: Tensor, error: Tensor) -> Tensor:
        """Whether estimates with errors, each ``[m]``, are contradicted; ``[m]``, for rows ``[m]`` on the CPU."""
        return self.value[rows] > log_prob + KNOWN_ERRORS * error

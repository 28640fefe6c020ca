"""What importance sampling needs to remember of its weights: a few sums and the largest ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vae.evidence.pareto import pareto_k, tail_length

__all__ = ["RunningWeights"]


class RunningWeights:
    """Running sums, in float64 and log space, over the log-weights of n datapoints.

    Memory grows with n and with the square root of the number of samples (the tail that the Pareto fit needs).

    Args:
        n: The number of datapoints.
        num_samples: The number of samples that will have come for each datapoint in the end.
        device: Where the log-weights are.
    """

    def __init__(self, n: int, num_samples: int, device: torch.device | None = None) -> None:
        self.count = 0
        self.total = torch.zeros(n, dtype=torch.float64, device=device)
        self.log_sum = torch.full_like(self.total, -torch.inf)
        self.log_sum_squares = torch.full_like(self.total, -torch.inf)
        self.tail = self.total.new_empty(0, n)
        self.kept = tail_length(num_samples) + 1  # the tail, and the value it begins after

    def update(self, log_weights: Tensor) -> None:
        """Takes in log-weights ``[particles, n]``."""
        log_weights = log_weights.double()
        self.count += log_weights.shape[0]
        self.total += log_weights.sum(0)
        self.log_sum = torch.logaddexp(self.log_sum, log_weights.logsumexp(0))
        self.log_sum_squares = torch.logaddexp(self.log_sum_squares, (2 * log_weights).logsumexp(0))
        largest = torch.cat([self.tail, log_weights])
        self.tail = largest.topk(min(self.kept, largest.shape[0]), dim=0).values

    @property
    def log_mean(self) -> Tensor:
        """The log of the mean weight, ``[n]``."""
        return self.log_sum - math.log(self.count)

    @property
    def mean_log(self) -> Tensor:
        """The mean of the log-weights, ``[n]``."""
        return self.total / self.count

    @property
    def ess(self) -> Tensor:
        """The effective sample size (sum w)^2 / sum w^2, ``[n]`` (Kong 1992)."""
        return (2 * self.log_sum - self.log_sum_squares).exp()

    @property
    def std_error(self) -> Tensor:
        """The standard error of :attr:`log_mean`, ``[n]``: that of the mean weight, relative to it (delta method).

        Infinite for a single sample, which says nothing of it.
        """
        if self.count == 1:
            return torch.full_like(self.log_sum, torch.inf)
        relative_variance = (1 / self.ess - 1 / self.count).clamp_min(0)
        return (relative_variance * self.count / (self.count - 1)).sqrt()

    @property
    def pareto_k(self) -> Tensor:
        """The shape of a generalized Pareto distribution fitted to the largest weights, ``[n]``."""
        return pareto_k(self.tail)

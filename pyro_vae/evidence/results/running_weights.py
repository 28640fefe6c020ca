"""What importance sampling keeps of its weights: a few sums, and the largest ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor

from pyro_vae.evidence.results.error_bars import POWERS, Moments, error_bars
from pyro_vae.evidence.results.pareto import pareto_smooth, tail_length
from pyro_vae.evidence.runner.chunks import particle_counts

Chunk = Callable[[Tensor, int], Tensor]  #: Datapoints ``[n, *event]`` and a number of particles to log-weights.


@torch.no_grad()
def weigh(log_weights: Chunk, x: Tensor, num_samples: int, chunk_size: int) -> RunningWeights:
    """Weighs samples for all rows of x, in chunks of pairs of a sample and a datapoint.

    Args:
        log_weights: Called with x and a number of particles; returns log-weights ``[particles, n]``.
        x: Data, ``[n, *event]``.
        num_samples: The number of samples for each datapoint.
        chunk_size: The number of pairs to compute at once.
    """
    running = RunningWeights(len(x), num_samples, x.device)
    for count in particle_counts(num_samples, len(x), chunk_size):
        running.update(log_weights(x, count))
    return running


class RunningWeights:
    """Running sums, in float64 and log space, over the log-weights of n datapoints.

    Memory grows with n and with the square root of the number of samples, for the tail that the Pareto fit needs.

    Args:
        n: The number of datapoints.
        num_samples: The number of samples of each datapoint in the end.
        device: The device of the log-weights.
    """

    def __init__(self, n: int, num_samples: int, device: torch.device | None = None) -> None:
        self.count = 0
        self._moments: Moments | None = None  # of the weights so far, once computed
        self.total = torch.zeros(n, dtype=torch.float64, device=device)
        self.total_squares = torch.zeros_like(self.total)
        self.log_sum = torch.full_like(self.total, -torch.inf)
        self.log_sum_squares = torch.full_like(self.total, -torch.inf)
        self.log_sums_of_powers = torch.full((len(POWERS), n), -torch.inf, dtype=torch.float64, device=device)
        self.zeros = torch.zeros_like(self.total)
        self.tail = self.total.new_empty(0, n)
        self.kept = tail_length(num_samples) + 1  # the tail, and its threshold

    def update(self, log_weights: Tensor) -> None:
        """Adds log-weights ``[particles, n]``."""
        log_weights = log_weights.double()
        self._moments = None
        self.count += log_weights.shape[0]
        self.total += log_weights.sum(0)
        self.total_squares += log_weights.square().sum(0)
        self.log_sum = torch.logaddexp(self.log_sum, log_weights.logsumexp(0))
        self.log_sum_squares = torch.logaddexp(self.log_sum_squares, (2 * log_weights).logsumexp(0))
        powers = torch.stack([(power * log_weights).logsumexp(0) for power in POWERS])
        self.log_sums_of_powers = torch.logaddexp(self.log_sums_of_powers, powers)
        self.zeros += log_weights.isneginf().sum(0)
        largest = torch.cat([self.tail, log_weights])
        self.tail = largest.topk(min(self.kept, largest.shape[0]), dim=0).values

    def rows(self, index: Tensor) -> RunningWeights:
        """The weights of some of the datapoints."""
        part = copy(self)
        part._moments = None if self._moments is None else self._moments.rows(index.cpu())
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(part, name, value[..., index.to(value.device)])
        return part

    def updated(self, index: Tensor, other: RunningWeights) -> RunningWeights:
        """A copy in which the weights of some of the datapoints are replaced by others, from as many samples."""
        whole = copy(self)
        whole._moments = None
        for name, value in vars(other).items():
            if isinstance(value, Tensor):
                dim = getattr(self, name).ndim - 1
                setattr(whole, name, getattr(self, name).index_copy(dim, index.to(value.device), value))
        return whole

    @property
    def log_mean(self) -> Tensor:
        """The log of the mean weight, ``[n]``."""
        return self.log_sum - math.log(self.count)

    @property
    def mean_log(self) -> Tensor:
        """The mean of the log-weights, ``[n]``."""
        return self.total / self.count

    @property
    def mean_log_std_error(self) -> Tensor:
        """The standard error of :attr:`mean_log`, ``[n]``; infinite for a single sample."""
        if self.count == 1:
            return torch.full_like(self.total, torch.inf)
        variance = (self.total_squares / self.count - self.mean_log.square()).clamp_min(0)
        return (variance / (self.count - 1)).sqrt()

    @property
    def ess(self) -> Tensor:
        """The effective sample size (sum w)^2 / sum w^2, ``[n]`` (Kong 1992)."""
        return (2 * self.log_sum - self.log_sum_squares).exp()

    @property
    def std_error(self) -> Tensor:
        """The standard error of :attr:`log_mean`, ``[n]``: the relative one of the mean weight (delta method).

        Infinite for a single sample.
        """
        if self.count == 1:
            return torch.full_like(self.log_sum, torch.inf)
        relative_variance = (1 / self.ess - 1 / self.count).clamp_min(0)
        return (relative_variance * self.count / (self.count - 1)).sqrt()

    def pareto_smoothed(self) -> tuple[Tensor, Tensor]:
        """The Pareto k-hat of the weights, and the log of their mean with the largest of them smoothed, each ``[n]``.

        Smoothing replaces the largest weights by quantiles of a generalized Pareto distribution fitted to them
        (Vehtari et al. 2024): less variance, for a little bias.
        """
        k, smoothed = pareto_smooth(self.tail)
        log_sum = self.log_sum.cpu()
        # The part below the tail is the sum without the tail.
        tail = self.tail.cpu()[:-1].logsumexp(0).clamp_max(log_sum)
        below = log_sum + torch.log1p(-(tail - log_sum).exp())
        return k, torch.logaddexp(below, smoothed[:-1].logsumexp(0)) - math.log(self.count)

    def moments(self, pareto_k: Tensor | None = None) -> Moments:
        """The input of :func:`~pyro_vae.evidence.results.error_bars.error_bars`, on the CPU.

        Args:
            pareto_k: The k-hat, ``[n]``, if it is already known.
        """
        if self._moments is not None:
            return self._moments
        tail, log_sum = self.tail.cpu(), self.log_sum.cpu()
        log_sums = torch.stack([*self.log_sums_of_powers, self.log_sum, self.log_sum_squares]).cpu()
        threshold = torch.where(tail[-1].isneginf(), tail[0], tail[-1])  # a tail with zeros has no slope
        above = (tail[: max(1, len(tail) - 1)] - threshold).clamp_min(0)
        self._moments = Moments(
            count=self.count,
            log_means=log_sums - math.log(self.count),
            zeros=self.zeros.cpu() / self.count,
            largest=(tail[0] - log_sum).exp(),
            slope=above.mean(0),
            pareto_k=pareto_smooth(self.tail)[0] if pareto_k is None else pareto_k,
        )
        return self._moments

    def columns(self, first: int = 0, pilot: Moments | None = None) -> dict[str, Tensor]:
        """The estimate and its diagnostics, each ``[n]`` on the CPU, by the names of the fields of ``Evidence``.

        Args:
            first: The index of the first datapoint, for the error message.
            pilot: Earlier weights of the same proposals, which tell about the error but are not in the estimate.

        Raises:
            ValueError: If a datapoint has a weight that is NaN or infinite, or only weights of zero.
        """
        for bad, what in (
            (self.log_sum.isnan() | self.log_sum.isposinf(), "a weight that is NaN or infinite"),
            (self.log_sum.isneginf(), f"weight zero for all of its {self.count} samples"),
        ):
            if bad.any():
                index = first + int(bad.nonzero()[0])
                raise ValueError(f"datapoint {index} has {what}; check the log-densities of model and guide there")
        k, log_mean_smoothed = self.pareto_smoothed()
        bars = error_bars(self.moments(k), pilot)
        columns = {
            "log_prob": self.log_mean,
            "error": bars.error,
            "bias": bars.bias,
            "std_error": self.std_error,
            "ess": self.ess,
            "pareto_k": k,
            "log_prob_psis": log_mean_smoothed,
            "elbo": self.mean_log,
        }
        return {name: column.cpu() for name, column in columns.items()}

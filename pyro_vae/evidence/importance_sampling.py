"""log p(x) by importance sampling, with what is needed to know whether to believe it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.evidence.blocks import choose_chunk_size, split_rows
from pyro_vae.evidence.running_weights import RunningWeights
from pyro_vae.weights import Program, find_layout, terms

__all__ = ["Evidence", "importance"]

DATAPOINTS_AT_ONCE = 64


@dataclass(frozen=True)
class Evidence:
    """An estimate of log p(x) in nats for each of n datapoints; every tensor is ``[n]``, in float64 on the CPU.

    Attributes:
        log_prob: The log of the mean importance weight. Its expectation is below log p(x), by about
            ``std_error ** 2 / 2``.
        std_error: The Monte Carlo standard error of ``log_prob``; infinite for a single sample.
        ess: The effective sample size.
        pareto_k: The Pareto k-hat of the weights. Above 0.7, neither ``log_prob`` nor ``std_error`` is to be believed;
            infinite where there are too few samples to tell, 0 where all weights are equal.
        elbo: The mean log-weight: the ELBO of each datapoint, from the same samples.
        num_samples: The number of samples for each datapoint.
    """

    log_prob: Tensor
    std_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    elbo: Tensor
    num_samples: int

    @property
    def mean(self) -> float:
        """The mean of ``log_prob`` over the datapoints, in nats."""
        return self.log_prob.mean().item()

    @property
    def mean_std_error(self) -> float:
        """The Monte Carlo standard error of ``mean``, for these very datapoints."""
        return self.std_error.square().sum().sqrt().item() / len(self.std_error)

    @property
    def mean_bias(self) -> float:
        """How far the expectation of ``mean`` lies from the mean of log p(x): a negative number (delta method)."""
        return -self.std_error.square().mean().item() / 2

    @property
    def population_std_error(self) -> float:
        """The standard error of ``mean`` as an estimate for all the data of which these are a sample."""
        return self.log_prob.std().item() / math.sqrt(len(self.log_prob))

    def summary(self) -> str:
        """The result in words, with a warning where it should not be believed."""
        doubtful = (self.pareto_k > 0.7).double().mean().item()
        lines = [
            f"log p(x) = {self.mean:.3f} +- {self.mean_std_error:.3f} nats (Monte Carlo; bias {self.mean_bias:.3f})",
            f"  mean over {len(self.log_prob)} datapoints, with {self.num_samples} importance samples each",
            f"  ELBO {self.elbo.mean().item():.3f}",
            f"  effective sample size: median {self.ess.median().item():.1f}, least {self.ess.min().item():.1f}",
            f"  Pareto k-hat: at most {self.pareto_k.max().item():.2f}, above 0.7 for {doubtful:.1%} of the datapoints",
        ]
        if doubtful > 0:
            lines.append(
                "  WARNING: where k-hat is above 0.7 the guide misses much of the posterior;\n"
                "  the estimate is then probably too low, and its error larger than it says. On\n"
                "  average it is still a lower bound. Use more samples or a better guide."
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


@torch.no_grad()
def importance(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    progress: Callable[[Sequence[Tensor]], Iterable[Tensor]] = iter,
) -> Evidence:
    """Estimates log p(x) with the guide as the proposal (Rezende et al. 2014, appendix E).

    The data are checked first, all of them, by running the programs once. Memory does not grow with ``num_samples``
    (but for the k-hat's tail of the largest weights, which grows with its square root). Datapoints are taken in blocks,
    unless the programs treat them differently then, as with parameters for each datapoint or batch statistics.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x; ``vae.model``, for one.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``.
        num_samples: Samples for each datapoint, at least 1.
        chunk_size: The number of (sample, datapoint) pairs to compute at once; by default what suits the device.
        progress: Wraps the sequence of blocks of datapoints, as ``rich.progress.track`` does.

    Raises:
        TypeError: If x is not a tensor, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, or a datapoint has weights that are NaN, or zero for all samples.
    """
    check_count("num_samples", num_samples)
    chunk_size = choose_chunk_size(check_rows(x), chunk_size)
    layout = find_layout(model, guide, x)
    parts: list[tuple[Tensor, ...]] = []
    with pyro.validation_enabled(False):
        for block in progress(split_rows(model, guide, x, layout, min(DATAPOINTS_AT_ONCE, chunk_size))):
            running = RunningWeights(len(block), num_samples, x.device)
            while running.count < num_samples:
                num_particles = min(max(1, chunk_size // len(block)), num_samples - running.count)
                running.update(terms(model, guide, block, num_particles, layout).log_weights)
            _check_weights(running, first=sum(len(part[0]) for part in parts))
            parts.append((running.log_mean, running.std_error, running.ess, running.pareto_k, running.mean_log))
    log_prob, std_error, ess, k, elbo = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    return Evidence(log_prob, std_error, ess, k, elbo, num_samples)


def _check_weights(running: RunningWeights, first: int) -> None:
    for bad, what in (
        (running.log_sum.isnan() | running.log_sum.isposinf(), "a weight that is NaN or infinite"),
        (running.log_sum.isneginf(), f"weight zero for all of its {running.count} samples"),
    ):
        if bad.any():
            index = first + int(bad.nonzero()[0])
            raise ValueError(f"datapoint {index} has {what}; check the log-densities of model and guide there")

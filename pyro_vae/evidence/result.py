"""An estimate of log p(x), with what is needed to know whether to believe it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from torch import Tensor

__all__ = ["MAX_PARETO_K", "Evidence", "std_error_of_mean"]

MAX_PARETO_K = 0.7  # Vehtari et al. 2024: above it, importance sampling does not work in practice


def std_error_of_mean(std_errors: Tensor) -> float:
    """The standard error of the mean of independent estimates that have these, ``[n]``."""
    return std_errors.square().sum().sqrt().item() / len(std_errors)


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
        log_prob_psis: As ``log_prob``, with the largest weights Pareto-smoothed: less variance, for a little bias
            (Vehtari et al. 2024). On average it need not be a lower bound.
        elbo: The mean log-weight: the ELBO of each datapoint under the proposal, from the same samples.
        num_samples: The number of samples for each datapoint.
        samples: What a sample is, in words.
        acceptance: For annealed chains, the acceptance rate of their moves, ``[n]``; meant to be about 0.65.
        draw: Makes what :meth:`to_arviz` returns.
    """

    log_prob: Tensor
    std_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    log_prob_psis: Tensor
    elbo: Tensor
    num_samples: int
    samples: str = "importance samples"
    acceptance: Tensor | None = None
    draw: Callable[..., Any] | None = field(default=None, repr=False, compare=False)

    @property
    def mean(self) -> float:
        """The mean of ``log_prob`` over the datapoints, in nats."""
        return self.log_prob.mean().item()

    @property
    def mean_std_error(self) -> float:
        """The Monte Carlo standard error of ``mean``, for these very datapoints."""
        return std_error_of_mean(self.std_error)

    @property
    def mean_bias(self) -> float:
        """How far the expectation of ``mean`` lies from the mean of log p(x): a negative number (delta method)."""
        return -self.std_error.square().mean().item() / 2

    @property
    def population_std_error(self) -> float:
        """The standard error of ``mean`` as an estimate for all the data of which these are a sample."""
        return self.log_prob.std().item() / math.sqrt(len(self.log_prob))

    def interval(self, probability: float = 0.95) -> tuple[Tensor, Tensor]:
        """The ends of an interval for log p(x) of each datapoint, each ``[n]``: where k-hat is low, it covers so often.

        Args:
            probability: How often, between 0 and 1.
        """
        if not 0 < probability < 1:
            raise ValueError(f"probability is {probability!r}; expected a number between 0 and 1")
        half = NormalDist().inv_cdf((1 + probability) / 2) * self.std_error
        return self.log_prob - half, self.log_prob + half

    @property
    def doubtful(self) -> Tensor:
        """Whether k-hat is above 0.7, ``[n]``: where the estimate should not be believed."""
        return self.pareto_k > MAX_PARETO_K

    def summary(self) -> str:
        """The result in words, with a warning where it should not be believed."""
        doubtful = self.doubtful.double().mean().item()
        lines = [
            f"log p(x) = {self.mean:.3f} +- {self.mean_std_error:.3f} nats (Monte Carlo; bias {self.mean_bias:.3f})",
            f"  mean over {len(self.log_prob)} datapoints, with {self.num_samples} {self.samples} each",
            f"  Pareto-smoothed {self.log_prob_psis.mean().item():.3f}, ELBO {self.elbo.mean().item():.3f}",
            f"  effective sample size: median {self.ess.median().item():.1f}, least {self.ess.min().item():.1f}",
            f"  Pareto k-hat: at most {self.pareto_k.max().item():.2f}, above 0.7 for {doubtful:.1%} of the datapoints",
        ]
        if self.pareto_k.isposinf().all():
            lines.append(f"  WARNING: {self.num_samples} samples are too few to tell whether to believe this.")
        elif doubtful > 0:
            lines.append(
                "  WARNING: where k-hat is above 0.7 the proposal misses much of the posterior;\n"
                "  the estimate is then probably too low, and its error larger than it says. On\n"
                "  average it is still a lower bound. Use more samples, a better guide, another\n"
                "  proposal (evidence.widened, evidence.defensive), or evidence.annealed."
            )
        return "\n".join(lines)

    def to_arviz(self, num_draws: int = 500) -> Any:
        """Posterior draws and all that ArviZ wants to know of them; see :func:`pyro_vae.evidence.to_arviz`."""
        if self.draw is None:
            raise ValueError("this result does not know its programs; call evidence.to_arviz(model, guide, x)")
        return self.draw(num_draws)

    def __str__(self) -> str:
        return self.summary()

"""An estimate of log p(x), with what is needed to know whether to believe it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae.evidence.error_bars import LEAST_SAMPLES
from pyro_vae.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyro_vae.evidence.certificate import Certificate

__all__ = ["MAX_PARETO_K", "Evidence", "std_error_of_mean"]

MAX_PARETO_K = 0.7  # Vehtari et al. 2024: above it, importance sampling does not work in practice
FEW, MANY = 0.01, 0.05  # shares of the datapoints: a note will do below the one, a warning is due above the other
Z = NormalDist().inv_cdf(0.975)


def std_error_of_mean(std_errors: Tensor) -> float:
    """The standard error of the mean of independent estimates that have these, ``[n]``."""
    return std_errors.square().sum().sqrt().item() / len(std_errors)


@dataclass(frozen=True, repr=False)
class Evidence:
    """An estimate of log p(x) in nats for each of n datapoints; every tensor is ``[n]``, in float64 on the CPU.

    Attributes:
        log_prob: The log of the mean importance weight. Its expectation is below log p(x): a lower bound on average.
        error: The half-width of a 95% interval for log p(x), bias included, as
            :func:`~pyro_vae.evidence.error_bars.error_bars` finds it; infinite where it cannot be told.
        bias: The part of ``error`` by which log p(x) may lie above the expectation of ``log_prob``. These do not
            average out over datapoints.
        std_error: The Monte Carlo standard error of ``log_prob`` (delta method), without the bias, and too small where
            the samples have missed much of the posterior; infinite for a single sample.
        ess: The effective sample size.
        pareto_k: The Pareto k-hat of the weights. Above 0.7, neither ``log_prob`` nor ``std_error`` is to be believed;
            below, they need not be right, as a sample that missed the tail has a low k-hat too. Infinite where there
            are too few samples to tell, 0 where all weights are equal.
        log_prob_psis: As ``log_prob``, with the largest weights Pareto-smoothed: less variance, for a little bias
            (Vehtari et al. 2024). On average it need not be a lower bound.
        elbo: The mean log-weight: the ELBO of each datapoint under the proposal, from the same samples.
        num_samples: The number of samples for each datapoint.
        samples: What a sample is, in words.
        acceptance: For annealed chains, the acceptance rate of their moves, ``[n]``; meant to be about 0.65.
        draw: Makes what :meth:`to_arviz` returns.
    """

    log_prob: Tensor
    error: Tensor
    bias: Tensor
    std_error: Tensor
    ess: Tensor
    pareto_k: Tensor
    log_prob_psis: Tensor
    elbo: Tensor
    num_samples: int | Tensor
    samples: str = "importance samples"
    acceptance: Tensor | None = None
    draw: Callable[..., Any] | None = field(default=None, compare=False)
    rung: Tensor | None = None
    num_temperatures: Tensor | None = None
    seconds_by_rung: tuple[float, ...] = ()
    stopped_by_budget: int = 0
    certificate: Certificate | None = None

    @property
    def mean(self) -> float:
        """The mean of ``log_prob`` over the datapoints, in nats."""
        return self.log_prob.mean().item()

    @property
    def settled(self) -> Tensor:
        """Whether the error is known, ``[n]``; where it is not, ``log_prob`` is a lower bound on average."""
        return self.error.isfinite()

    @property
    def mean_error(self) -> float:
        """The half-width of a 95% interval for the mean of log p(x) over these very datapoints, bias included.

        The noise of independent datapoints averages out, their bias does not. Infinite if that of any datapoint is.
        """
        return _error_of_mean(self.error, self.bias)

    @property
    def mean_std_error(self) -> float:
        """The Monte Carlo standard error of ``mean``, for these very datapoints, without the bias."""
        return std_error_of_mean(self.std_error)

    @property
    def mean_bias(self) -> float:
        """How far the expectation of ``mean`` lies from the mean of log p(x): a negative number (delta method).

        It is known as badly as ``std_error``; ``bias`` has bounds.
        """
        return -self.std_error.square().mean().item() / 2

    @property
    def population_std_error(self) -> float:
        """The standard error of ``mean`` as an estimate for all the data of which these are a sample.

        Infinite for a single datapoint.
        """
        n = len(self.log_prob)
        return self.log_prob.std().item() / math.sqrt(n) if n > 1 else math.inf

    def interval(self, probability: float = 0.95) -> tuple[Tensor, Tensor]:
        """The ends of an interval that has log p(x) of each datapoint in it so often, each ``[n]``, bias included.

        Infinite where the error is not known. Over many problems, that is: it does not hold for datapoints that were
        chosen by their own samples, as by ``settled`` or ``pareto_k``.

        Args:
            probability: How often, between 0 and 1.
        """
        if not 0 < probability < 1:
            raise ValueError(f"probability is {probability!r}; expected a number between 0 and 1")
        noise = (self.error - self.bias).nan_to_num(torch.inf)
        half = self.bias + NormalDist().inv_cdf((1 + probability) / 2) / Z * noise
        return self.log_prob - half, self.log_prob + half

    @property
    def doubtful(self) -> Tensor:
        """Whether k-hat is above 0.7, ``[n]``: where the estimate should not be believed."""
        return self.pareto_k > MAX_PARETO_K

    def summary(self) -> str:
        """The result in words: one number with its error, or that it is a lower bound."""
        n = len(self.log_prob)
        lines = [
            *self._headline(),
            f"  mean over {n} datapoints, with {self.num_samples} {self.samples} each",
            f"  error of each estimate (95%): {self._error_of_each()}; Monte Carlo part of the mean's: "
            f"{Z * self.mean_std_error:.3f}",
        ]
        if n > 1:
            lines.append(f"  error of the finite test set (standard error): {self.population_std_error:.3f}")
        lines += [
            f"  ELBO {self.elbo.mean().item():.3f}",
            f"  effective sample size: median {self.ess.median().item():.1f}, least {self.ess.min().item():.1f}",
            f"  Pareto k-hat: at most {self.pareto_k.max().item():.2f}, above 0.7 for "
            f"{self.doubtful.double().mean().item():.1%} of the datapoints",
        ]
        return "\n".join(lines + self._warning())

    def _headline(self) -> list[str]:
        n, settled = len(self.log_prob), self.settled
        left_out = n - int(settled.sum())
        if left_out == 0:
            return [f"log p(x) = {self.mean:.3f} +- {self.mean_error:.3f} nats (95%, bias included)"]
        # Where most are not settled, the others were by luck.
        if left_out > n / 2:
            return [f"log p(x) >= {self.mean:.3f} nats on average: a lower bound, its error is not known"]
        # They were chosen by their own samples: those that have missed the tail are too many among them.
        error = _error_of_mean(self.error[settled], self.bias[settled]) * (1 + 5 * left_out / n)
        mean = self.log_prob[settled].mean().item()
        return [
            f"log p(x) = {mean:.3f} +- {error:.3f} nats (95%, bias included), mean of {n - left_out} datapoints",
            f"  {left_out} of {n} datapoints left out: their error is not known; the mean over all,"
            f" {self.mean:.3f}, is a lower bound",
        ]

    def _error_of_each(self) -> str:
        known = self.error[self.settled]
        if len(known) == 0:
            return "not known"
        return f"median {known.median().item():.3f}, largest {known.max().item():.3f}"

    def _warning(self) -> list[str]:
        unknown = (~self.settled).double().mean().item()
        if unknown == 0:
            return []
        if self.samples == "annealed chains":
            advice = "more temperatures, then more chains"
        else:
            advice = "evidence.estimate, which improves the proposal until the error is known"
        if self.num_samples < LEAST_SAMPLES:
            too_few = f"{self.num_samples} samples are too few to tell an error"
            return [f"  WARNING: {too_few}; take {LEAST_SAMPLES} or more."]
        if unknown < FEW:
            return [f"  Note: the error is not known for {unknown:.1%} of the datapoints. What helps: {advice}."]
        lines = [f"  WARNING: the error is not known for {unknown:.1%} of the datapoints. What helps: {advice}."]
        if unknown > MANY:
            lines.append(
                "  The samples miss much of the posterior there: log p(x) is probably higher, nobody knows how much.\n"
                "  On average each is a lower bound. More samples alone help little."
            )
        return lines

    def plot(self) -> Figure:
        """The error of each datapoint against its log p(x); those without a known error lie on the upper edge."""
        figure = new_figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        settled = self.settled
        known = self.error[settled].clamp_min(1e-6)
        axes.scatter(self.log_prob[settled].numpy(), known.numpy(), s=8, alpha=0.5, label="error known (95%)")
        if not settled.all():
            top = 2 * known.max().item() if len(known) else 1.0
            unknown = self.log_prob[~settled].numpy()
            axes.scatter(unknown, [top] * len(unknown), s=12, marker="^", label="not known: a lower bound")
        axes.set(xlabel="log p(x), nats", ylabel="error, nats", yscale="log", title=self._headline()[0])
        axes.title.set_fontsize("small")
        axes.legend(fontsize="small")
        return figure

    def to_arviz(self, num_draws: int = 500) -> Any:
        """Posterior draws and all that ArviZ wants to know of them; see :func:`pyro_vae.evidence.to_arviz`."""
        if self.draw is None:
            raise ValueError("this result does not know its programs; call evidence.to_arviz(model, guide, x)")
        return self.draw(num_draws)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        known = int(self.settled.sum())
        return (
            f"Evidence(mean={self.mean:.3f}, mean_error={self.mean_error:.3f}, n={len(self.log_prob)}, "
            f"settled={known}, num_samples={self.num_samples})"
        )

    def _repr_html_(self) -> str:
        rows = {
            "log p(x), nats": escape(" ".join(self._headline()[0].split()[2:])),
            "datapoints": f"{len(self.log_prob)}, {int(self.settled.sum())} with a known error",
            "error of each (95%)": self._error_of_each(),
            "samples": f"{self.num_samples} {escape(self.samples)} each",
        }
        if len(self.log_prob) > 1:
            rows["error of the finite test set"] = f"{self.population_std_error:.3f}"
        cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
        return f"<table>{cells}</table>"


def _error_of_mean(errors: Tensor, biases: Tensor) -> float:
    """The half-width of an interval for the mean of independent estimates, of which the biases do not average out."""
    if not errors.isfinite().all():
        return math.inf
    return biases.mean().item() + std_error_of_mean(errors - biases)

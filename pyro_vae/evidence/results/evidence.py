"""An estimate of log p(x), with its error and what is needed to judge it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.evidence.results.error_bars import LEAST_SAMPLES
from pyro_vae.evidence.results.methods import METHODS
from pyro_vae.evidence.results.pictures import draw_estimates, draw_images
from pyro_vae.html_table import WithSummary, html_table
from pyro_vae.weights import standard_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyro_vae.evidence.results.certificate import Certificate

MAX_PARETO_K = 0.7  # Vehtari et al. 2024: above it, importance sampling does not work in practice
FEW, MANY = 0.01, 0.05  # shares of the datapoints without an error: below, a note is enough; above, samples are bad
Z = NormalDist().inv_cdf(0.975)


def std_error_of_mean(std_errors: Tensor) -> float:
    """The standard error of the mean of independent estimates with these standard errors, ``[n]``."""
    return std_errors.square().sum().sqrt().item() / len(std_errors)


def error_of_mean(errors: Tensor, biases: Tensor) -> float:
    """The half-width of an interval for the mean of independent estimates, whose biases do not average out.

    Args:
        errors: The half-width of the interval of each estimate, ``[n]``.
        biases: The part of each that is a bound on the bias, ``[n]``.

    Returns:
        The half-width; infinite if the error of any estimate is.
    """
    if not errors.isfinite().all():
        return math.inf
    return biases.mean().item() + std_error_of_mean(errors - biases)


def median_and_largest(values: Tensor, spec: str = ".3f") -> str:
    """The median and the maximum of the finite values, in words."""
    known = values[values.isfinite()]
    if len(known) == 0:
        return "not known"
    return f"median {known.median().item():{spec}}, largest {known.max().item():{spec}}"


class Method(NamedTuple):
    """What one of the methods of :func:`~pyro_vae.evidence.estimate` did.

    Example:
        >>> result = evidence.estimate(vae.model, vae.guide, x, progress=False)
        >>> [(method.name, method.settled) for method in result.methods]
        [('guide', 0), ('Laplace', 8)]
    """

    name: str  #: The name of the method.
    datapoints: int  #: The number of datapoints whose estimate is from this method.
    settled: int  #: How many of these have a known error.
    seconds: float  #: The time it took, with pilots, and with datapoints that went on to another method.


@dataclass(frozen=True, repr=False)
class Evidence(WithSummary):
    """An estimate of log p(x) in nats for each of n datapoints; every tensor is ``[n]``, in float64 on the CPU.

    ``print(result)`` shows :meth:`summary`. ``f"{result:.2f}"`` is the mean with its error, or ``>=`` and a lower
    bound. There are two errors: ``mean_error``, of the estimate, for these datapoints; and
    ``population_std_error``, of the finite test set. A pickled result has no model and no data.

    Attributes:
        log_prob: The log of the mean importance weight. Its expectation is below log p(x): a lower bound on average.
        error: The half-width of a 95% interval for log p(x), bias included, from
            ``pyro_vae.evidence.results.error_bars``; infinite where it is not known.
        bias: The part of ``error`` by which log p(x) may lie above the expectation of ``log_prob``. It does not
            average out over datapoints.
        std_error: The Monte Carlo standard error of ``log_prob`` (delta method), without the bias. Too small where the
            samples have missed much of the posterior; infinite for a single sample.
        ess: The effective sample size.
        pareto_k: The Pareto k-hat of the weights. Above 0.7, do not trust ``log_prob`` and ``std_error``. Below, they
            may be wrong too: a sample that missed the tail also has a low k-hat. Infinite where there are too few
            samples, 0 where all weights are equal.
        log_prob_psis: As ``log_prob``, with the largest weights Pareto-smoothed: less variance, for a little bias
            (Vehtari et al. 2024). It need not be a lower bound on average.
        elbo: The mean log-weight: the ELBO of each datapoint under the proposal, from the same samples. Minus infinity
            where a sample has weight zero.
        num_samples: The number of samples for each datapoint; from :func:`~pyro_vae.evidence.estimate`, ``[n]``.
        samples: What a sample is, in words.
        acceptance: For annealed chains, the acceptance rate of their moves, ``[n]``; the target is 0.8. NaN where there
            were no chains.
        draw: Makes what :meth:`to_arviz` returns. It holds the programs, so it is not pickled.
        method: The number of the method that gave the estimate of each datapoint, ``[n]``; their names are in
            ``pyro_vae.evidence.results.methods``. Only :func:`~pyro_vae.evidence.estimate` has this and the following
            attributes.
        num_temperatures: The number of temperatures of its chains, ``[n]``; 0 where there were none.
        seconds_by_method: The time that each method took.
        stopped_by_budget: The number of datapoints in blocks where the budget did not allow another method.
        certificate: The result of the same procedure on data drawn from the model, with ``estimate(certify=...)``.
        given: For ``estimate(given=...)``, log p(x | w) for each draw of the global latents w.
        draws_error: The part of ``bias`` that comes from the finite number of these draws, ``[n]``. All datapoints
            share the draws, so it does not average out. Infinite for 2 to 4 draws. A single draw has no mean over
            draws: the part is 0, and ``log_prob`` is log p(x | w) for that draw.

    Example:
        >>> result = evidence.estimate(vae.model, vae.guide, x, progress=False)
        >>> print(result)
        log p(x) = ... +- ... nats (95%, bias included)
          mean over 8 datapoints, with ... samples or chains each
          ...
        >>> lower, upper = result.interval()
        >>> bool((lower < result.log_prob).all())
        True
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
    method: Tensor | None = None
    num_temperatures: Tensor | None = None
    seconds_by_method: tuple[float, ...] = ()
    stopped_by_budget: int = 0
    certificate: Certificate | None = None
    given: tuple[Evidence, ...] = ()
    draws_error: Tensor | None = None

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
        """The half-width of a 95% interval for the mean of log p(x) over these datapoints, bias included.

        The noise of independent datapoints averages out, their bias does not. Infinite if the error of any datapoint
        is: :meth:`summary` then has the mean of the others.
        """
        return error_of_mean(self.error, self.bias)

    @property
    def settled_mean(self) -> float:
        """The mean over the settled datapoints; if fewer than half are settled, the mean over all, a lower bound."""
        return (self.log_prob[self.settled] if self._mostly_settled else self.log_prob).mean().item()

    @property
    def settled_mean_error(self) -> float:
        """The half-width of a 95% interval for the mean of log p(x) over the settled datapoints, bias included.

        Infinite if fewer than half are settled: these may be settled by luck.
        """
        if not self._mostly_settled:
            return math.inf
        left_out = (~self.settled).double().mean().item()
        error = error_of_mean(self.error[self.settled], self.bias[self.settled])
        # They are selected by their own samples, so too many of them have missed the tail. The methods of `estimate`
        # are selected by pilots: there it takes many unsettled datapoints for this to matter.
        chosen = self.method is None or left_out > MANY
        return error * (1 + 5 * left_out) if chosen else error

    @property
    def _mostly_settled(self) -> bool:
        return int(self.settled.sum()) >= len(self.log_prob) / 2

    @property
    def mean_std_error(self) -> float:
        """The Monte Carlo standard error of ``mean``, for these datapoints, without the bias."""
        return std_error_of_mean(self.std_error)

    @property
    def mean_bias(self) -> float:
        """The expectation of ``mean`` minus the mean of log p(x), a negative number (delta method).

        It is as unreliable as ``std_error``; ``bias`` has bounds.
        """
        return -self.std_error.square().mean().item() / 2

    @property
    def population_std_error(self) -> float:
        """The standard error of ``mean`` for the population of the datapoints; infinite for a single one."""
        return standard_error(self.log_prob)

    def interval(self, probability: float = 0.95) -> tuple[Tensor, Tensor]:
        """The ends of an interval that contains log p(x) with this probability, each ``[n]``, bias included.

        Infinite where the error is not known. The probability is over many problems: it does not hold for datapoints
        that are selected by their own samples, for example by ``settled`` or ``pareto_k``.

        Args:
            probability: The probability of each interval, between 0 and 1.
        """
        if not 0 < probability < 1:
            raise ValueError(f"probability is {probability!r}; expected a number between 0 and 1")
        noise = (self.error - self.bias).nan_to_num(torch.inf)
        half = self.bias + NormalDist().inv_cdf((1 + probability) / 2) / Z * noise
        return self.log_prob - half, self.log_prob + half

    @property
    def methods(self) -> list[Method]:
        """What each method did, in the order in which they are tried; empty if there was only one method."""
        if self.method is None:
            return []
        rows = []
        for number, (name, seconds) in enumerate(zip(METHODS, self.seconds_by_method, strict=True)):
            taken = self.method == number
            if seconds > 0 or taken.any():
                rows.append(Method(name, int(taken.sum()), int((taken & self.settled).sum()), seconds))
        return rows

    @property
    def doubtful(self) -> Tensor:
        """Whether k-hat is above 0.7, ``[n]``; do not trust the estimate there."""
        return self.pareto_k > MAX_PARETO_K

    def summary(self) -> str:
        """The result in words: one number with its error, or a lower bound."""
        n = len(self.log_prob)
        lines = [
            *self._headline(),
            f"  mean over {n} datapoint{'s' * (n > 1)}, with {self._samples()} each",
            f"  error of each estimate (95%): {median_and_largest(self.error)}; Monte Carlo part of the mean's: "
            f"{Z * self.mean_std_error:.3f}",
        ]
        if n > 1:
            lines.append(f"  error of the finite test set (standard error): {self.population_std_error:.3f}")
        lines += self._of_draws() if self.given else self._table() if self.method is not None else self._weights()
        lines += self._warning()
        if self.certificate is not None:
            lines.append(self.certificate.summary())
        return "\n".join(lines)

    def _headline(self) -> list[str]:
        n, left_out = len(self.log_prob), int((~self.settled).sum())
        if math.isinf(self.settled_mean_error):
            return [f"log p(x) >= {self.mean:.3f} nats on average: a lower bound, its error is not known"]
        lines = [f"log p(x) = {self:.3f} nats (95%, bias included)"]
        if left_out:
            lines[0] += f", mean of {n - left_out} datapoints"
            lines.append(
                f"  {left_out} of {n} datapoints left out: their error is not known; the mean over all,"
                f" {self.mean:.3f}, is a lower bound"
            )
        return lines

    def _samples(self) -> str:
        if not isinstance(self.num_samples, Tensor):
            return f"{self.num_samples} {self.samples}"
        least, most = int(self.num_samples.min()), int(self.num_samples.max())
        return f"{least} {self.samples}" if least == most else f"{least} to {most} {self.samples}"

    def _weights(self) -> list[str]:
        """Diagnostics of the weights of one proposal."""
        return [
            f"  ELBO {self._elbo()}",
            f"  effective sample size: median {self.ess.median().item():.1f}, least {self.ess.min().item():.1f}",
            f"  Pareto k-hat: {self._largest_k()}",
        ]

    def _elbo(self) -> str:
        mean = self.elbo.mean().item()
        return f"{mean:.3f}" if math.isfinite(mean) else "minus infinity: some samples have weight zero"

    def _largest_k(self) -> str:
        known = self.pareto_k[self.pareto_k.isfinite()]
        if len(known) == 0:
            return "not known from so few samples"
        doubtful, unknown = (share.double().mean().item() for share in (self.doubtful, self.pareto_k.isinf()))
        words = f"at most {known.max().item():.2f}, above 0.7 for {doubtful - unknown:.1%} of the datapoints"
        return f"{words}, not known for {unknown:.1%}" if unknown else words

    def _of_draws(self) -> list[str]:
        """The part of the draws of global latents."""
        if len(self.given) == 1 or self.draws_error is None:
            return ["  given one draw of the global latents"]
        each = torch.tensor([result.mean for result in self.given])
        return [
            f"  log of the mean of p(x | w) over {len(self.given)} draws of the global latents w; mean of log p(x | w) "
            f"given each: {each.min().item():.3f} to {each.max().item():.3f}",
            f"  part of the error that comes from the number of draws: {median_and_largest(self.draws_error)}",
        ]

    def _table(self) -> list[str]:
        """What each method did."""
        return [f"  {'method':<24}{'datapoints':>10}{'settled':>10}{'seconds':>10}"] + [
            f"  {row.name:<24}{row.datapoints:>10}{row.settled:>10}{row.seconds:>10.1f}" for row in self.methods
        ]

    def _warning(self) -> list[str]:
        lines = []
        if self.stopped_by_budget:
            lines.append(
                f"  The budget ran out on {self.stopped_by_budget} datapoints: no further method was tried for those "
                "not settled by then."
            )
        unknown = (~self.settled).double().mean().item()
        if unknown == 0:
            return lines
        if self.given:
            return [*lines, f"  WARNING: the error is not known for {unknown:.1%} of the datapoints. {self._more()}"]
        if self.method is None and self.num_samples < LEAST_SAMPLES:
            too_few = f"{self.num_samples} samples are too few for an error"
            return [*lines, f"  WARNING: {too_few}; take {LEAST_SAMPLES} or more."]
        kind = "Note" if unknown < FEW else "WARNING"
        lines.append(
            f"  {kind}: the error is not known for {unknown:.1%} of the datapoints. What helps: {self._advice()}."
        )
        if unknown > MANY:
            lines.append(
                "  The samples miss much of the posterior there: log p(x) is probably higher, by an unknown amount.\n"
                "  On average each estimate is a lower bound."
                + (" More samples alone help little." if self.samples == "importance samples" else "")
            )
        return lines

    def _more(self) -> str:
        """What to do if there are draws of global latents."""
        if all(result.settled.all() for result in self.given):
            return "What helps: more draws of the global latents."
        return "Some errors are not known for a single draw: see the summary of each of result.given."

    def _advice(self) -> str:
        """What to do to know the error of more datapoints."""
        if self.method is not None:
            return "a larger budget" if self.stopped_by_budget else "a larger max_temperatures"
        if self.samples == "annealed chains":
            return "more temperatures, then more chains"
        return "evidence.estimate, which improves the proposal until the error is known"

    def plot(self) -> Figure:
        """Draws log p(x) of each datapoint with its error, and below it the k-hat of its weights."""
        return draw_estimates(self.log_prob, self.error, self.pareto_k, self._headline()[0], MAX_PARETO_K)

    def plot_worst(self, x: Tensor, count: int = 20) -> Figure:
        """Draws the datapoints with the lowest log p(x) as images, with index and log p(x) above each.

        Args:
            x: The datapoints in [0, 1], ``[n, 1 or 3, height, width]`` or ``[n, height, width]``.
            count: How many to draw.

        Raises:
            ValueError: If x has another shape.
        """
        if len(x) != len(self.log_prob):
            raise ValueError(f"x has {len(x)} datapoints; expected the {len(self.log_prob)} of this result")
        worst = self.log_prob.argsort()[:count]
        names = [f"{i}: {'' if self.settled[i] else '>= '}{self.log_prob[i].item():.1f}" for i in worst.tolist()]
        return draw_images(x[worst.to(x.device)], names)

    def to_arviz(self, num_draws: int = 500) -> Any:
        """Posterior draws and their diagnostics for ArviZ; see :func:`pyro_vae.evidence.to_arviz`.

        Raises:
            ValueError: If this is a mean over draws of global latents, or the result does not have its programs.
        """
        if self.given:
            raise ValueError("posterior draws need one draw of the global latents: call result.given[0].to_arviz()")
        if self.draw is None:
            raise ValueError("this result does not have its programs; call evidence.to_arviz(model, guide, x)")
        return self.draw(num_draws)

    def __getstate__(self) -> dict[str, Any]:
        """The result without its programs: they may be large, or impossible to pickle."""
        return {**self.__dict__, "draw": None}

    def __format__(self, spec: str) -> str:
        """The mean of the settled datapoints with its error, or a lower bound: as in ``f"{result:.2f} nats"``."""
        if not spec:
            return str(self)
        if math.isinf(self.settled_mean_error):
            return f">= {self.mean:{spec}}"
        return f"{self.settled_mean:{spec}} +- {self.settled_mean_error:{spec}}"

    def __repr__(self) -> str:
        known = int(self.settled.sum())
        samples = repr(self._samples()) if isinstance(self.num_samples, Tensor) else self.num_samples
        return (
            f"Evidence(mean={self.mean:.3f}, mean_error={self.mean_error:.3f}, n={len(self.log_prob)}, "
            f"settled={known}, num_samples={samples})"
        )

    def _repr_html_(self) -> str:
        n = len(self.log_prob)
        rows = {
            "log p(x), nats": " ".join(self._headline()[0].split()[2:]),
            "datapoints": f"{n}, {int(self.settled.sum())} with a known error",
            "error of each (95%)": median_and_largest(self.error),
            "samples": f"{self._samples()} each",
        }
        if n > 1:
            rows["error of the finite test set"] = f"{self.population_std_error:.3f}"
        for row in self.methods:
            rows[row.name] = f"{row.datapoints} datapoints, {row.settled} settled, {row.seconds:.1f} seconds"
        if self.stopped_by_budget:
            rows["the budget ran out on"] = f"{self.stopped_by_budget} datapoints"
        if self.certificate is not None:
            rows["certificate"] = self.certificate.summary().split("\n")[0].partition(": ")[2]
        return html_table(rows)

"""Which of two models gives the data more probability, and is the difference larger than its errors?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from pyro_vae.evidence.results.error_bars import student
from pyro_vae.evidence.results.evidence import Evidence, std_error_of_mean
from pyro_vae.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, repr=False)
class Comparison:
    """log p(x) of a first model minus that of a second one, in nats, on the same n datapoints.

    Attributes:
        difference: Of the estimates, ``[n]``.
        error: The half-width of a 95% interval for it, ``[n]``, the biases of both estimates included; infinite where
            one of them is only a lower bound.
        bias: The part of ``error`` that does not average out, ``[n]``.
    """

    difference: Tensor
    error: Tensor
    bias: Tensor

    @property
    def settled(self) -> Tensor:
        """Whether both estimates have a known error, ``[n]``."""
        return self.error.isfinite()

    @property
    def mean(self) -> float:
        """The mean of the differences, over the settled datapoints; NaN if there are none."""
        return self.difference[self.settled].mean().item() if self.settled.any() else math.nan

    @property
    def mean_error(self) -> float:
        """The half-width of a 95% interval for ``mean`` on these very datapoints; infinite if none is settled."""
        if not self.settled.any():
            return math.inf
        error, bias = self.error[self.settled], self.bias[self.settled]
        return bias.mean().item() + std_error_of_mean(error - bias)

    @property
    def population_std_error(self) -> float:
        """The standard error of ``mean`` for all the data of which these are a sample (paired); infinite for one."""
        n = int(self.settled.sum())
        return self.difference[self.settled].std().item() / math.sqrt(n) if n > 1 else math.inf

    @property
    def population_error(self) -> float:
        """The half-width of a 95% interval for the mean difference over all the data: both errors together."""
        return self.mean_error + student(int(self.settled.sum()) - 1) * self.population_std_error

    def summary(self) -> str:
        """The difference, both of its errors, and what they allow to say."""
        n, known = len(self.difference), int(self.settled.sum())
        if known == 0:
            return "The difference is not known: for every datapoint, one of the estimates is only a lower bound."
        lines = [
            f"first - second = {self.mean:+.3f} nats per datapoint, mean over {known} datapoints",
            f"  error of the estimates (95%, bias included): {self.mean_error:.3f}",
        ]
        if known > 1:
            lines.append(f"  error of the finite test set (standard error, paired): {self.population_std_error:.3f}")
        lines.append(f"  {self._verdict()}")
        if known < n:
            lines.append(f"  {n - known} of {n} datapoints left out: one of the estimates is only a lower bound there")
        return "\n".join(lines)

    def _verdict(self) -> str:
        better = "the first" if self.mean > 0 else "the second"
        if abs(self.mean) > self.population_error:
            return f"{better} model is better, on these data and on more of their kind"
        if abs(self.mean) > self.mean_error:
            return f"{better} model is better on these datapoints; on others of their kind it may be the other one"
        return "the errors do not tell which model is better"

    def plot(self) -> Figure:
        """A histogram of the differences."""
        figure = new_figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        axes.hist(self.difference[self.settled].numpy(), bins=min(50, max(5, int(self.settled.sum()) // 10)))
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.axvline(self.mean, color="tab:orange", label=f"mean {self.mean:+.3f}")
        axes.set(xlabel="log p(x), first - second, nats", ylabel="datapoints")
        axes.legend()
        return figure

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return (
            f"Comparison(mean={self.mean:.3f}, mean_error={self.mean_error:.3f}, "
            f"population_std_error={self.population_std_error:.3f}, n={len(self.difference)})"
        )

    def _repr_html_(self) -> str:
        n, known = len(self.difference), int(self.settled.sum())
        rows = {"first - second, nats": "not known", "datapoints": f"{known} of {n} with a known error"}
        if known:
            rows["first - second, nats"] = f"{self.mean:+.3f}"
            rows["error of the estimates (95%)"] = f"{self.mean_error:.3f}"
            rows["verdict"] = self._verdict()
        if known > 1:
            rows["error of the finite test set"] = f"{self.population_std_error:.3f}"
        return "<table>" + "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows.items()) + "</table>"


def compare(first: Evidence, second: Evidence) -> Comparison:
    """The difference of two models' log p(x) on the same datapoints, with its errors.

    Datapoints that are hard for one model are mostly hard for the other, so that the difference is known far better
    than either mean: differences are taken datapoint by datapoint.

    Args:
        first: An estimate, as of :func:`~pyro_vae.evidence.estimate`.
        second: One of another model, on the same datapoints in the same order.

    Raises:
        TypeError: If one of them is no ``Evidence``.
        ValueError: If they have different numbers of datapoints.

    Example:
        >>> a, b = (evidence.estimate(vae.model, vae.guide, x) for vae in (first, second))  # doctest: +SKIP
        >>> print(evidence.compare(a, b))  # doctest: +SKIP
    """
    for name, result in (("first", first), ("second", second)):
        if not isinstance(result, Evidence):
            raise TypeError(f"{name} is of type {type(result).__name__}; expected an Evidence, as estimate returns it")
    if len(first.log_prob) != len(second.log_prob):
        raise ValueError(
            f"first has {len(first.log_prob)} datapoints and second has {len(second.log_prob)}; "
            "expected the same datapoints in the same order"
        )
    bias = first.bias + second.bias
    noise = ((first.error - first.bias).square() + (second.error - second.bias).square()).sqrt()
    unknown = ~(first.settled & second.settled)
    return Comparison(
        difference=first.log_prob - second.log_prob,
        error=(bias + noise).masked_fill(unknown, math.inf),
        bias=bias.masked_fill(unknown, math.inf),
    )

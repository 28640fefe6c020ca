"""The difference of two models' log p(x) on the same data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from pyro_vae.evidence.results.error_bars import student
from pyro_vae.evidence.results.evidence import error_of_mean
from pyro_vae.evidence.results.pictures import draw_differences
from pyro_vae.html_table import WithSummary, html_table
from pyro_vae.weights import standard_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Comparison(WithSummary):
    """log p(x) of a first model minus that of a second one, in nats, on the same n datapoints.

    Attributes:
        difference: The difference of the estimates, ``[n]``.
        error: The half-width of a 95% interval for it, ``[n]``, with the biases of both estimates; infinite where one
            of them is only a lower bound.
        bias: The part of ``error`` that does not average out, ``[n]``.

    Example:
        >>> other = VAE(vae.prior, likelihoods.Bernoulli(nn.mlp(2, [8], (1, 4, 4))), vae.posterior)
        >>> a, b = (evidence.estimate(each.model, each.guide, x, progress=False) for each in (vae, other))
        >>> comparison = evidence.compare(a, b)
        >>> comparison.difference.shape, comparison.error.shape
        (torch.Size([8]), torch.Size([8]))
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
        """The half-width of a 95% interval for ``mean`` on these datapoints; infinite if none is settled."""
        if not self.settled.any():
            return math.inf
        return error_of_mean(self.error[self.settled], self.bias[self.settled])

    @property
    def population_std_error(self) -> float:
        """The standard error of ``mean`` for the population of the datapoints (paired); infinite for a single one."""
        return standard_error(self.difference[self.settled])

    @property
    def population_error(self) -> float:
        """The half-width of a 95% interval for the mean difference over the population, from both errors together."""
        return self.mean_error + student(int(self.settled.sum()) - 1) * self.population_std_error

    def summary(self) -> str:
        """The difference, both of its errors, and the conclusion."""
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
        """Draws the difference of each datapoint with its error, and a histogram."""
        return draw_differences(self.difference, self.error, self.mean)

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
        return html_table(rows)

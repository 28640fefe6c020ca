"""Data with their missing values filled in, and how well these are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from pyro_vae.evidence.results.evidence import median_and_largest
from pyro_vae.evidence.results.pictures import draw_imputation
from pyro_vae.html_table import WithSummary, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Imputation(WithSummary):
    """n datapoints with their missing values filled in, from :func:`~pyro_vae.evidence.impute`.

    ``x``, ``std``, ``missing`` and ``draws`` are on the device of the data, the others on the CPU.

    Attributes:
        x: The data without NaN, ``[n, *event]``: the posterior predictive mean of each missing value.
        std: The posterior predictive standard deviation of each filled value, ``[n, *event]``; 0 where observed.
        missing: Which values were missing, ``[n, *event]``.
        ess: The effective number of posterior draws behind each datapoint, ``[n]``. The Monte Carlo standard error of
            a filled value is at most ``std / sqrt(ess)``. NaN where no value was missing: nothing is drawn there.
        pareto_k: The Pareto k-hat of the weights by which the draws were chosen, ``[n]``; infinite where there are too
            few draws for it, and NaN where no value was missing.
        doubtful: Where the draws may not be from the posterior, so that the filled values may be wrong, ``[n]``.
        num_samples: The number of posterior draws for each datapoint.
        draws: Data filled in with draws instead of means, ``[num_draws, n, *event]``; None without ``num_draws``.

    Example:
        >>> likelihood, network = likelihoods.Incomplete(vae.likelihood), nn.FillMissing(vae.posterior.network)
        >>> vae = VAE(vae.prior, likelihood, posteriors.Normal(network))
        >>> x[0, :, :2] = float("nan")
        >>> print(evidence.impute(vae.model, vae.guide, x, num_samples=50, progress=False))
        filled in 8 values of 1 of 8 datapoints, from 50 posterior draws each
          posterior predictive standard deviation of a value: median ..., largest ...
          ...
    """

    x: Tensor
    std: Tensor
    missing: Tensor
    ess: Tensor
    pareto_k: Tensor
    doubtful: Tensor
    num_samples: int
    draws: Tensor | None = None

    @property
    def incomplete(self) -> Tensor:
        """Whether a datapoint had missing values, ``[n]`` on the CPU."""
        return self.missing.reshape(len(self.missing), -1).any(1).cpu()

    def summary(self) -> str:
        """How much was filled in, and how well it is known, in words."""
        n, some = len(self.x), int(self.incomplete.sum())
        if not some:
            return f"no value of {n} datapoint{'s' * (n > 1)} was missing"
        lines = [
            f"filled in {self._filled()}, from {self.num_samples} posterior draws each",
            f"  posterior predictive standard deviation of a value: {self._spread()}",
            f"  effective sample size: {self._ess()}",
            f"  Pareto k-hat: {self._largest_k()}",
        ]
        if doubtful := int(self.doubtful.sum()):
            lines.append(
                f"  WARNING: for {doubtful} datapoint{'s' * (doubtful > 1)}, the draws may not be from the posterior: "
                "the filled values may be wrong."
            )
        return "\n".join(lines)

    def _filled(self) -> str:
        n, some, values = len(self.x), int(self.incomplete.sum()), int(self.missing.sum())
        return f"{values} value{'s' * (values != 1)} of {some} of {n} datapoint{'s' * (n > 1)}"

    def _spread(self) -> str:
        return median_and_largest(self.std[self.missing], ".3g")

    def _ess(self) -> str:
        ess = self.ess[self.incomplete]
        return f"median {ess.median().item():.1f}, least {ess.min().item():.1f}"

    def _largest_k(self) -> str:
        k = self.pareto_k[self.incomplete]
        known = k[k.isfinite()]
        if len(known) == 0:
            return "not known from so few draws"
        unknown = len(k) - len(known)
        words = f"at most {known.max().item():.2f}"
        return f"{words}, not known for {unknown} datapoint{'s' * (unknown > 1)}" if unknown else words

    def plot(self, count: int = 10) -> Figure:
        """Draws the datapoints that have most values missing.

        Images ``[n, 1 or 3, height, width]`` or ``[n, height, width]`` in [0, 1] are drawn with what was observed in
        the first row (grey where missing), what was filled in below it, and then the standard deviation. Other data are
        drawn as values with their standard deviation, by position.

        Args:
            count: How many to draw.
        """
        most = self.missing.reshape(len(self.missing), -1).sum(1).argsort(descending=True, stable=True)[:count]
        x, std, missing = (each[most].detach().cpu() for each in (self.x, self.std, self.missing))
        return draw_imputation(x, std, missing, most.tolist())

    def __repr__(self) -> str:
        return (
            f"Imputation(n={len(self.x)}, incomplete={int(self.incomplete.sum())}, values={int(self.missing.sum())}, "
            f"doubtful={int(self.doubtful.sum())}, num_samples={self.num_samples})"
        )

    def _repr_html_(self) -> str:
        rows = {"filled in": self._filled()}
        if self.incomplete.any():
            rows |= {
                "posterior draws each": f"{self.num_samples}",
                "standard deviation of a value": self._spread(),
                "effective sample size": self._ess(),
                "Pareto k-hat": self._largest_k(),
                "doubtful": f"{int(self.doubtful.sum())} datapoints",
            }
        return html_table(rows)

"""A test of `estimate` on data drawn from the model, where log p(x) lies between two bounds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_vae.evidence.results.bounds import Bounds
from pyro_vae.html_table import html_table


@dataclass(frozen=True, repr=False)
class Certificate(Bounds):
    """Bounds on log p(x), in nats, for m datapoints drawn from the model (Grosse et al. 2015).

    Attributes:
        lower: The estimates, ``[m]``, by the procedure that is certified. On average at most log p(x).
        upper: Estimates by annealing in reverse, ``[m]``, from the exact posterior draw that each datapoint comes with.
            On average at least log p(x).
        error: The errors that the estimates claim, ``[m]``.

    Example:
        >>> result = evidence.estimate(vae.model, vae.guide, x, certify=8, progress=False)
        >>> print(result.certificate)
        certificate: on 8 datapoints drawn from the model, the procedure is within ... +- ... nats
          lower bound ..., upper bound ..., on average
    """

    lower: Tensor
    upper: Tensor
    error: Tensor

    @property
    def settled(self) -> float:
        """The share of the datapoints whose error is known."""
        return self.error.isfinite().double().mean().item()

    def summary(self) -> str:
        """The gap in words."""
        m = len(self.lower)
        drawn = f"{m} datapoints" if m > 1 else "one datapoint"
        lines = [
            f"certificate: on {drawn} drawn from the model, the procedure is within {self._gap_in_words()}",
            f"  lower bound {self.lower.mean().item():.3f}, upper bound {self.upper.mean().item():.3f}, on average",
        ]
        if self.settled < 1:
            lines.append(f"  {1 - self.settled:.1%} of these datapoints have no known error")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table({**self._rows, "with a known error": f"{self.settled:.1%}"})

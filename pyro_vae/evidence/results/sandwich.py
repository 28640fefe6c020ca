"""log p(x) between two bounds, on data drawn from the model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_vae.evidence.results.bounds import Bounds
from pyro_vae.evidence.results.error_bars import student
from pyro_vae.html_table import html_table
from pyro_vae.weights import standard_error

WIDE = 1.0  # nats


@dataclass(frozen=True, repr=False)
class Sandwich(Bounds):
    """Stochastic bounds on log p(x), in nats, for n datapoints drawn from the model.

    On average, ``lower`` is at most log p(x) and ``upper`` at least.

    Attributes:
        x: The datapoints, ``[n, *event]``, with NaN where the data they are modelled on have NaN.
        lower: Estimates by annealed importance sampling from the start to the posterior, ``[n]``.
        upper: Estimates by its reverse, ``[n]``, from the exact posterior draw that each datapoint comes with.
        acceptance: The acceptance rate of the moves in both directions, ``[n]``.

    Example:
        >>> options = {"num_chains": 8, "num_temperatures": 10, "num_leapfrog": 2}
        >>> print(evidence.sandwich(vae.model, vae.guide, x, **options, progress=False))
        log p(x) is from ... to ... nats (+- ..., for the choice of datapoints)
          means over 8 datapoints drawn from the model, with 95% errors
          gap ... +- ... nats; moves accepted: ...%
    """

    x: Tensor
    lower: Tensor
    upper: Tensor
    acceptance: Tensor

    def summary(self) -> str:
        """Both bounds and the gap, in words."""
        n, accepted = len(self.lower), f"moves accepted: {self.acceptance.mean():.0%}"
        bounds = f"log p(x) is from {self.lower.mean().item():.3f} to {self.upper.mean().item():.3f} nats"
        if n == 1:
            lines = [f"{bounds}, on average, for one datapoint drawn from the model"]
        else:
            spread = student(n - 1) * max(standard_error(self.lower), standard_error(self.upper))
            lines = [
                f"{bounds} (+- {spread:.3f}, for the choice of datapoints)",
                f"  means over {n} datapoints drawn from the model, with 95% errors",
            ]
        lines.append(f"  gap {self._gap_in_words()}; {accepted}")
        if not self.gap <= WIDE:
            lines.append("  The gap is wide: take more temperatures.")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table({**self._rows, "moves accepted": f"{self.acceptance.mean():.0%}"})

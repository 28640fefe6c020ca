"""What results with a lower and an upper bound on log p(x) share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from pyro_vae.evidence.results.error_bars import student
from pyro_vae.evidence.results.pictures import draw_bounds
from pyro_vae.html_table import WithSummary
from pyro_vae.weights import standard_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Bounds(WithSummary):
    """Bounds on log p(x), in nats, for n datapoints drawn from the model.

    Attributes:
        lower: Lower bounds on average, ``[n]``.
        upper: Upper bounds on average, ``[n]``.
    """

    lower: Tensor
    upper: Tensor

    @property
    def gap(self) -> float:
        """The mean of ``upper - lower``, on average at least the error of either bound."""
        return (self.upper - self.lower).mean().item()

    @property
    def gap_std_error(self) -> float:
        """The standard error of ``gap``, over datapoints, which are independent; infinite for a single one."""
        return standard_error(self.upper - self.lower)

    def plot(self) -> Figure:
        """Draws both bounds of each datapoint, in ascending order of the lower one."""
        return draw_bounds(self.lower, self.upper)

    @property
    def _rows(self) -> dict[str, str]:
        """The bounds and the gap, for a table."""
        return {
            "datapoints drawn from the model": f"{len(self.lower)}",
            "lower bound, nats": f"{self.lower.mean().item():.3f}",
            "upper bound, nats": f"{self.upper.mean().item():.3f}",
            "upper - lower bound": self._gap_in_words(),
        }

    def _gap_in_words(self) -> str:
        n = len(self.lower)
        if n == 1:
            return f"{self.gap:.3f} nats: its error is not known from one datapoint"
        return f"{self.gap:.3f} +- {student(n - 1) * self.gap_std_error:.3f} nats"

    def __repr__(self) -> str:
        error = f", gap_std_error={self.gap_std_error:.3f}" if len(self.lower) > 1 else ""
        return f"{type(self).__name__}(gap={self.gap:.3f}{error}, n={len(self.lower)})"

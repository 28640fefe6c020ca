"""Mean and variance of a random gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from pyro_vae.html_table import WithSummary, html_table
from pyro_vae.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LINES = 20  # parameters that a summary lists


@dataclass(frozen=True, repr=False)
class GradientMoments(WithSummary):
    """Mean and variance of a random gradient, as estimated from independent draws.

    Attributes:
        mean: By parameter, of its shape.
        variance: Likewise, of a single draw.
        num_draws: The number of draws.
        total_variance: The sum of the variances of all entries: the mean squared distance of a draw from the mean.
        total_variance_std_error: The standard error of that.

    Example:
        >>> moments = infer.gradient_variance(vae.model, vae.guide, x, {"ELBO": losses.ELBO()}, num_draws=10)
        >>> print(moments["ELBO"])
        gradient of 172 entries, 10 draws
          signal to noise ...
          total variance ... +- ... (standard error)
          ...
    """

    mean: dict[str, Tensor]
    variance: dict[str, Tensor]
    num_draws: int
    total_variance: float
    total_variance_std_error: float

    @property
    def mean_std_error(self) -> dict[str, Tensor]:
        """The standard errors of ``mean``."""
        return {name: (variance / self.num_draws).sqrt() for name, variance in self.variance.items()}

    @property
    def signal_to_noise(self) -> float:
        """The norm of the mean by the root of the total variance; of the norm, what the noise adds is taken away."""
        squared_norm = sum(mean.square().sum().item() for mean in self.mean.values())
        squared_norm -= self.total_variance / self.num_draws
        return math.sqrt(max(squared_norm, 0.0) / self.total_variance) if self.total_variance else math.inf

    def summary(self) -> str:
        """The noise of the whole gradient, and of that of each parameter."""
        lines = [
            f"gradient of {self._entries:,} entries, {self.num_draws} draws",
            f"  signal to noise {self.signal_to_noise:.3g}",
            f"  total variance {self.total_variance:.4g} +- {self.total_variance_std_error:.2g} (standard error)",
            *(f"  {name}: {words}" for name, words in list(self._by_parameter.items())[:MOST_LINES]),
        ]
        if len(self.mean) > MOST_LINES:
            lines.append(f"  and {len(self.mean) - MOST_LINES} more parameters")
        return "\n".join(lines)

    def plot(self) -> Figure:
        """For each parameter, the norm of the mean gradient (signal) and the root of the total variance (noise)."""
        figure = new_figure(figsize=(7, 0.5 * len(self.mean) + 1.5), layout="constrained")
        axes = figure.add_subplot()
        rows = range(len(self.mean))
        for marker, label, values in (
            ("o", "signal: norm of the mean", self._signal),
            ("x", "noise: root of the total variance", self._noise),
        ):
            axes.plot(list(values.values()), rows, marker, label=label)
        axes.set_yticks(rows, list(self.mean))
        axes.set_ylim(len(self.mean) - 0.5, -0.5)
        axes.set(xscale="log", xlabel="gradient, by parameter")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside upper center", ncols=2, fontsize="small")
        return figure

    @property
    def _signal(self) -> dict[str, float]:
        return {name: mean.norm().item() for name, mean in self.mean.items()}

    @property
    def _noise(self) -> dict[str, float]:
        return {name: variance.sum().sqrt().item() for name, variance in self.variance.items()}

    @property
    def _by_parameter(self) -> dict[str, str]:
        """Signal and noise of each parameter, in words."""
        signal, noise = self._signal, self._noise
        return {name: f"norm of the mean {signal[name]:.3g}, noise {noise[name]:.3g}" for name in self.mean}

    @property
    def _entries(self) -> int:
        return sum(mean.numel() for mean in self.mean.values())

    def __repr__(self) -> str:
        return (
            f"GradientMoments(signal_to_noise={self.signal_to_noise:.3g}, total_variance={self.total_variance:.4g}, "
            f"entries={self._entries}, num_draws={self.num_draws})"
        )

    def _repr_html_(self) -> str:
        rows = {
            "signal to noise": f"{self.signal_to_noise:.3g}",
            "total variance": f"{self.total_variance:.4g} +- {self.total_variance_std_error:.2g} (standard error)",
            "entries": f"{self._entries:,}",
            "draws": str(self.num_draws),
        }
        return html_table({**rows, **dict(list(self._by_parameter.items())[:MOST_LINES])})

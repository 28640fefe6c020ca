"""A test of `estimate` on data that the model itself makes, for which log p(x) can be enclosed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_vae.evidence.estimators.simulation import simulate
from pyro_vae.evidence.ladder.ladder import Ladder, Settings
from pyro_vae.evidence.results.error_bars import student
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.plots import new_figure
from pyro_vae.system.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Certificate", "certified"]


@dataclass(frozen=True, repr=False)
class Certificate:
    """Bounds on log p(x), in nats, for m datapoints that were drawn from the model (Grosse et al. 2015).

    Attributes:
        lower: The estimates, ``[m]``: by the very procedure that is certified. On average at most log p(x).
        upper: By annealing in reverse from the exact draw of the posterior that each datapoint came with, ``[m]``. On
            average at least log p(x).
        error: The errors that the estimates claim, ``[m]``.
    """

    lower: Tensor
    upper: Tensor
    error: Tensor

    @property
    def gap(self) -> float:
        """The mean of ``upper - lower``: on average no less than what the estimates are too low by."""
        return (self.upper - self.lower).mean().item()

    @property
    def gap_std_error(self) -> float:
        """The standard error of ``gap``, over the datapoints; infinite for a single one."""
        m = len(self.lower)
        return (self.upper - self.lower).std().item() / math.sqrt(m) if m > 1 else math.inf

    @property
    def settled(self) -> float:
        """The share of the datapoints whose error is known."""
        return self.error.isfinite().double().mean().item()

    def summary(self) -> str:
        """The gap in words."""
        m = len(self.lower)
        made = f"{m} datapoints" if m > 1 else "one datapoint"
        error = f"+- {student(m - 1) * self.gap_std_error:.3f} nats" if m > 1 else "nats: one cannot tell its error"
        lines = [
            f"certificate: on {made} that the model itself made, the procedure is within {self.gap:.3f} {error}",
            f"  lower bound {self.lower.mean().item():.3f}, upper bound {self.upper.mean().item():.3f}, on average",
        ]
        if self.settled < 1:
            lines.append(f"  {1 - self.settled:.1%} of these datapoints have no known error")
        return "\n".join(lines)

    def plot(self) -> Figure:
        """The gap of each datapoint against its log p(x)."""
        figure = new_figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        axes.scatter(self.lower.numpy(), (self.upper - self.lower).numpy(), s=10)
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.axhline(self.gap, color="tab:orange", label=f"mean {self.gap:.3f}")
        axes.set(xlabel="lower bound on log p(x), nats", ylabel="upper - lower bound, nats")
        axes.legend()
        return figure

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"Certificate(gap={self.gap:.3f}, gap_std_error={self.gap_std_error:.3f}, m={len(self.lower)})"

    def _repr_html_(self) -> str:
        return (
            "<table>" + "".join(f"<tr><td>{line.strip()}</td></tr>" for line in self.summary().split("\n")) + "</table>"
        )


def certified(programs: Programs, settings: Settings, count: int, *, rows: int, progress: Progress) -> Certificate:
    """Draws datapoints from the model, and encloses their log p(x) by the procedure and by its reverse.

    Args:
        programs: Model, guide, and data of the kind that is to be drawn; what is missing of it is missing of what is
            drawn, too.
        settings: Those of the procedure.
        count: How many datapoints. Programs with parameters for each row get as many as they have rows.
        rows: The number of datapoints in a block.
        progress: Wraps the blocks.
    """
    x = programs.x
    if len(programs.blocks(1)) == len(x):  # rows that do not depend on each other may be repeated
        x = x[torch.arange(count, device=x.device) % len(x)]
    drawn = simulate(programs.model, programs.guide, x, programs.layout)
    simulated = Programs(programs.model, programs.guide, drawn.x, programs.chunk_size)

    def enclose(block: Tensor, first: int) -> dict[str, Tensor]:
        ladder = Ladder(simulated, block, settings)
        columns = ladder.climb()
        exact = {name: value[first : first + len(block)] for name, value in drawn.latents.items()}
        return {"lower": columns["log_prob"], "upper": ladder.upper_bound(exact), "error": columns["error"]}

    return simulated.run(
        enclose, lambda columns: Certificate(**columns), rows=rows, settings={"function": "certify"}, progress=progress
    )

"""The history of a run, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyro_vae.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, Any]]
FEW = 50  # epochs, for which each is a dot


def draw_history(history: History) -> Figure:
    """Draws the losses of each epoch and, if there are any, rate against distortion on the validation data."""
    validated = [row for row in history if "valid_rate" in row]
    figure = new_figure(figsize=(9 if validated else 5, 3.8), layout="constrained")
    panels = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    _draw_losses(panels[0], history)
    if validated:
        _draw_rate_and_distortion(panels[1], validated)
    return figure


def _draw_losses(axes: Axes, history: History) -> None:
    for part in ("train", "valid"):
        rows = [row for row in history if f"{part}_loss" in row]
        if rows:
            epochs, losses = [row["epoch"] for row in rows], [row[f"{part}_loss"] for row in rows]
            axes.plot(epochs, losses, marker="." if len(rows) < FEW else None, label=part)
    axes.set(xlabel="epoch", ylabel="loss, nats per datapoint")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    if history:
        axes.legend()


def _draw_rate_and_distortion(axes: Axes, rows: History) -> None:
    """Alemi et al. 2018, figure 1: the sum of both is the negative ELBO."""
    rates, distortions = [row["valid_rate"] for row in rows], [row["valid_distortion"] for row in rows]
    axes.plot(rates, distortions, marker="." if len(rows) < FEW else None, color="C1")
    for index, marker in ((0, "o"), (-1, "s")):
        axes.plot(rates[index], distortions[index], marker, color="black", label=f"epoch {rows[index]['epoch']}")
    axes.set(xlabel="rate, nats per datapoint", ylabel="distortion, nats per datapoint", title="validation data")
    axes.title.set_fontsize("medium")
    axes.grid(alpha=0.3)
    axes.legend()

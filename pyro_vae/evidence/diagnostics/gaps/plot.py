"""The gap between log p(x) and the ELBO, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyro_vae.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 50  # datapoints; more of them are drawn as areas


def stacked_gaps(
    amortization: np.ndarray,
    approximation: np.ndarray,
    total: np.ndarray,
    levels: dict[str, tuple[float, float | None]],
) -> Figure:
    """Draws the means side by side, and beside them both parts of the gap of each datapoint, sorted.

    Args:
        amortization: The amortization gap of each datapoint in nats, ``[n]``, NaN if it is not known.
        approximation: The approximation gap, likewise.
        total: The inference gap, ``[n]``.
        levels: Means in nats and their 95% errors, by name; the error is None if the mean is a lower bound.
    """
    figure = new_figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    _draw_levels(left, levels)
    _draw_parts(right, amortization, approximation, total)
    return figure


def _draw_levels(axes: Axes, levels: dict[str, tuple[float, float | None]]) -> None:
    for place, (mean, error) in enumerate(levels.values()):
        axes.errorbar(place, mean, yerr=error, fmt="o" if error is not None else "^", capsize=5, color=f"C{place}")
    names = [name if error is not None else f"{name}\n(at least)" for name, (_, error) in levels.items()]
    axes.set_xticks(range(len(levels)), names)
    axes.set(xlim=(-0.5, len(levels) - 0.5), ylabel="mean, nats (bars: 95%)")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(axis="y", alpha=0.3)


def _draw_parts(axes: Axes, amortization: np.ndarray, approximation: np.ndarray, total: np.ndarray) -> None:
    order = np.argsort(-total)
    parts = ((amortization[order], "C0", "amortization gap"), (approximation[order], "C1", "approximation gap"))
    place, below = np.arange(1, len(order) + 1), np.zeros(len(order))
    for values, color, label in parts:
        above = below + np.nan_to_num(values, posinf=0.0, neginf=0.0)
        if len(order) <= MOST_BARS:
            axes.bar(place, above - below, bottom=below, color=color, label=label)
        else:
            axes.fill_between(place, below, above, step="mid", linewidth=0, color=color, label=label)
        below = above
    axes.plot(place, total[order], ".", color="black", markersize=3, label="inference gap")
    axes.axhline(0.0, color="black", linewidth=0.8)
    gaps = "" if np.isfinite(amortization).all() else " (white: its parts are not known)"
    axes.set(xlabel=f"datapoint, sorted by gap{gaps}", ylabel="log p(x) - ELBO, nats")
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize="small")

"""The rate with its parts, and the activity of latent units, drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from pyro_vae.evidence.diagnostics.decomposition.activity import LEAST_ACTIVITY
from pyro_vae.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR = 1e-6  # activities below are drawn here, as the axis is logarithmic


def rate_and_activity(
    parts: Mapping[str, tuple[float, tuple[float, float] | None]],
    activity: Mapping[str, Tensor],
    active: Mapping[str, Tensor],
    inactive: Mapping[str, Tensor],
    title: str,
) -> Figure:
    """Draws the parts of the rate as bars with 95% bounds, and beside them the activity of each unit, sorted.

    Args:
        parts: A value in nats by name, and its bounds.
        activity: The variance of the mean of q(z | x) of each unit, by site.
        active: Which units are active, by site.
        inactive: Which units are inactive, by site.
        title: The title of the figure.
    """
    figure = new_figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_parts(left, parts)
    _draw_activity(right, *(_in_one_row(sites) for sites in (activity, active, inactive)))
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw_parts(axes: Axes, parts: Mapping[str, tuple[float, tuple[float, float] | None]]) -> None:
    for row, (value, bounds) in enumerate(parts.values()):
        axes.barh(row, value if math.isfinite(value) else 0.0, color=f"C{row}", alpha=0.7)
        if bounds is not None and all(map(math.isfinite, bounds)):
            middle, half = (bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2
            axes.errorbar(middle, row, xerr=half, fmt="none", ecolor="black", capsize=5)
    axes.set_yticks(range(len(parts)), list(parts))
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlabel("nats per datapoint (black: 95% bounds for all data)")
    axes.grid(axis="x", alpha=0.3)


def _draw_activity(axes: Axes, activity: np.ndarray, active: np.ndarray, inactive: np.ndarray) -> None:
    order = np.argsort(-activity)
    activity, active, inactive = activity[order], active[order], inactive[order]
    kinds = ((active, "C0", "active"), (inactive, "C1", "inactive"), (~active & ~inactive, "C7", "not known"))
    for chosen, color, label in kinds:
        if chosen.any():
            heights = np.maximum(activity[chosen], FLOOR)
            axes.scatter(np.flatnonzero(chosen) + 1, heights, s=14, color=color, label=f"{label}: {chosen.sum()}")
    axes.axhline(LEAST_ACTIVITY, color="black", linewidth=0.8, linestyle="--", label=f"active above {LEAST_ACTIVITY}")
    axes.set(xlabel="latent unit, sorted", ylabel="variance of the mean of q(z | x)", yscale="log")
    axes.locator_params(axis="x", integer=True)
    axes.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)


def _in_one_row(sites: Mapping[str, Tensor]) -> np.ndarray:
    return np.concatenate([values.flatten().numpy() for values in sites.values()])

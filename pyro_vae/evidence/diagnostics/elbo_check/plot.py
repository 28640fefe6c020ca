"""Estimates of the ELBO side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyro_vae.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def estimates_with_errors(estimates: Mapping[str, tuple[float, float]], std_errors: float) -> Figure:
    """Draws a row for each estimate: its value, and an error bar of so many standard errors.

    Args:
        estimates: Values and standard errors by name, in nats.
        std_errors: The length of an error bar on each side.
    """
    figure = new_figure(figsize=(7, 0.5 * len(estimates) + 1.3), layout="constrained")
    axes = figure.add_subplot()
    for row, (value, error) in enumerate(estimates.values()):
        axes.errorbar(value, row, xerr=std_errors * error, fmt="o", capsize=4, color=f"C{row}")
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    axes.set_xlabel(f"ELBO, nats per datapoint (bars: {std_errors:g} standard errors)")
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x", alpha=0.3)
    return figure

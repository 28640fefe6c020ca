"""How the means and standard deviations of q differ from those of NUTS, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyro_vae.evidence.diagnostics.tolerance import MAX_STANDARD_ERRORS
from pyro_vae.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ERROR_BARS = 200  # more of them hide the points


def shifts_and_widths(
    shift: np.ndarray, shift_error: np.ndarray, ratio: np.ndarray, ratio_error: np.ndarray, differs: np.ndarray
) -> Figure:
    """Draws a point for each latent coordinate: right is too high, up is too wide, and (0, 1) is the posterior.

    Args:
        shift: The mean of q minus that of NUTS, in standard deviations, ``[coordinates]``.
        shift_error: Its standard error.
        ratio: The standard deviation of q over that of NUTS.
        ratio_error: Its standard error.
        differs: Whether q differs from NUTS, beyond Monte Carlo error.
    """
    figure = new_figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.axhline(1.0, color="black", linewidth=0.8)
    bars = len(shift) <= MOST_ERROR_BARS
    known = np.isfinite(shift) & np.isfinite(ratio)
    for chosen, color, label in ((known & ~differs, "C0", "agrees with NUTS"), (differs, "C1", "differs from NUTS")):
        if chosen.any():
            axes.errorbar(
                shift[chosen],
                ratio[chosen],
                xerr=MAX_STANDARD_ERRORS * shift_error[chosen] if bars else None,
                yerr=MAX_STANDARD_ERRORS * ratio_error[chosen] if bars else None,
                fmt="o",
                markersize=4,
                elinewidth=0.6,
                alpha=0.8,
                color=color,
                label=f"{label}: {chosen.sum()}",
            )
    axes.set(
        xlabel="shift: (mean of q - mean of NUTS) / sd of NUTS",
        ylabel="sd of q / sd of NUTS",
        title="q(z | x) and NUTS: a point for each latent coordinate"
        + (f", {MAX_STANDARD_ERRORS} standard errors" if bars else ""),
    )
    axes.title.set_fontsize("medium")
    if known.any():
        figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure

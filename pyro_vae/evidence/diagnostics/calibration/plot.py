"""The ECDF of values that should be uniform, drawn by ArviZ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_vae.evidence.results.lazy_arviz import import_arviz
from pyro_vae.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ecdf_panels"]

MOST_COLUMNS = 4
SIMULATIONS = 1000  # of uniform values, for the bands


def ecdf_panels(values: Mapping[str, np.ndarray], num_draws: int, prob: float) -> Figure:
    """Draws the ECDF minus that of the uniform distribution on [0, 1], with a band: a panel for each name.

    Args:
        values: The values by name, each ``[n]``.
        num_draws: The number of draws that the ranks are among.
        prob: The probability that a whole line stays in its band if the values are uniform.
    """
    arviz, is_new = import_arviz()
    columns = min(MOST_COLUMNS, len(values))
    rows = -(-len(values) // columns)
    size = (3 * columns + 1, 2.4 * rows + 0.6)
    if is_new:
        return _by_plot_collection(arviz, values, prob, size)
    from scipy.stats import uniform  # ArviZ before 1.0 depends on it

    figure = new_figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (name, column) in zip(panels, values.items(), strict=False):
        arviz.plot_ecdf(
            column,
            eval_points=np.linspace(0, 1, num_draws + 2)[1:-1],
            cdf=uniform.cdf,
            rvs=uniform().rvs,
            difference=True,
            confidence_bands="simulated",
            ci_prob=prob,
            num_trials=SIMULATIONS,
            random_state=0,
            ax=axes,
            show=False,
            backend="matplotlib",
        )
        axes.set_title(name)
    for axes in panels[len(values) :]:
        axes.set_axis_off()
    return figure


def _by_plot_collection(arviz: Any, values: Mapping[str, np.ndarray], prob: float, size: tuple[float, float]) -> Figure:
    """The same by ArviZ 1.0 or later."""
    from matplotlib import pyplot

    data = arviz.from_dict({"prior_sbc": {name: column[None] for name, column in values.items()}})
    options = {"figsize": size, "sharey": False, "layout": "constrained"}
    with arviz.rc_context({"plot.max_subplots": len(values)}):
        collection = arviz.plot_ecdf_pit(
            data, envelope_prob=prob, backend="matplotlib", figure_kwargs=options, visuals={"p_value_text": False}
        )
    figure = collection.viz["figure"].item()
    # This ArviZ marks points that speak against uniformity, by a test of its own, and draws no band. The inequality of
    # Dvoretzky, Kiefer & Wolfowitz (Massart 1990) gives a band, which is wider than necessary at the ends.
    half_width = math.sqrt(math.log(2 / (1 - prob)) / (2 * len(next(iter(values.values())))))
    for axes in figure.axes[: len(values)]:
        axes.axhspan(-half_width, half_width, alpha=0.2, zorder=0)
        axes.autoscale(axis="y")  # ArviZ cuts lines off
    pyplot.close(figure)  # or pyplot would keep it
    return figure

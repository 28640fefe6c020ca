"""Pictures of results: a value with its error for each datapoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_vae.plots import comparison, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = {"color": "black", "linewidth": 0.8}
ORDER = "datapoints, in ascending order"
LEAST_ERROR = 1e-6  # nats, so that there is a logarithm


def _draw_values_with_errors(axes: Axes, values: Tensor, errors: Tensor, unknown: str) -> Tensor:
    """Draws values ``[n]`` with errors ``[n]`` in ascending order; returns that order, ``[n]``.

    Args:
        axes: Where to draw.
        values: The values.
        errors: The half-widths of their intervals; where they are infinite, the values are drawn as triangles.
        unknown: What the triangles are.
    """
    order = values.argsort()
    place, values, errors = torch.arange(1, len(values) + 1), values[order], errors[order]
    known = errors.isfinite()
    size = 4 if len(values) <= 200 else 2
    if known.any():
        axes.errorbar(
            place[known].numpy(),
            values[known].numpy(),
            errors[known].numpy(),
            fmt=".",
            markersize=size,
            elinewidth=0.8,
            color="tab:blue",
            ecolor="lightsteelblue",
            label="with 95% interval",
        )
    if not known.all():
        left = ~known
        axes.plot(place[left].numpy(), values[left].numpy(), "^", markersize=size, color="tab:red", label=unknown)
    return order


def draw_estimates(log_prob: Tensor, error: Tensor, pareto_k: Tensor, title: str, most_k: float) -> Figure:
    """Draws log p(x) with errors, and below it the errors themselves and the k-hat of the same datapoints.

    Args:
        log_prob: Estimates, ``[n]``.
        error: The half-widths of their intervals, ``[n]``.
        pareto_k: The k-hat, ``[n]``; infinite ones are not drawn.
        title: A title.
        most_k: The largest k-hat to trust.
    """
    figure = new_figure(figsize=(7, 6), layout="constrained")
    above, middle, below = figure.subplots(3, sharex=True, height_ratios=(3, 1, 1))
    order = _draw_values_with_errors(above, log_prob, error, "lower bound, error not known")
    above.set(ylabel="log p(x), nats")
    above.set_title(title, fontsize="medium")
    above.legend(fontsize="small")
    place = torch.arange(1, len(order) + 1)
    for axes, values in ((middle, error.clamp_min(LEAST_ERROR)), (below, pareto_k)):
        values = values[order]
        known = values.isfinite()
        axes.plot(place[known].numpy(), values[known].numpy(), ".", markersize=3, color="tab:blue")
    middle.set(ylabel="error, nats", yscale="log")
    below.axhline(most_k, **LINE, linestyle="--")
    below.set(xlabel=ORDER, ylabel="Pareto k-hat")
    below.locator_params(axis="x", integer=True)
    return figure


def draw_differences(difference: Tensor, error: Tensor, mean: float) -> Figure:
    """Draws paired differences ``[n]`` with errors ``[n]``, and their histogram beside them."""
    figure = new_figure(figsize=(7, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    _draw_values_with_errors(left, difference, error, "error not known")
    known = difference[error.isfinite()]
    right.hist(known.numpy(), bins=min(50, max(5, len(known) // 10)), orientation="horizontal", color="lightsteelblue")
    for axes in (left, right):
        axes.axhline(0.0, **LINE)
        if len(known):
            axes.axhline(mean, color="tab:orange", label=f"mean {mean:+.3f}")
    left.set(xlabel=ORDER, ylabel="log p(x), first - second, nats")
    left.locator_params(axis="x", integer=True)
    left.legend(fontsize="small")
    right.set(xlabel="datapoints")
    return figure


def draw_bounds(lower: Tensor, upper: Tensor) -> Figure:
    """Draws lower and upper bounds on log p(x), each ``[n]``, joined for each datapoint, and below it the gaps."""
    order = lower.argsort()
    low, high = lower[order].numpy(), upper[order].numpy()
    place = range(1, len(order) + 1)
    figure = new_figure(figsize=(7, 5), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    axes.vlines(place, low, high, color="lightsteelblue")
    axes.plot(place, high, "v", markersize=4, color="tab:orange", label="upper bound on average")
    axes.plot(place, low, "^", markersize=4, color="tab:blue", label="lower bound on average")
    axes.set(ylabel="log p(x), nats")
    axes.legend(fontsize="small")
    gap = high - low
    below.plot(place, gap, ".", markersize=4, color="tab:blue")
    below.axhline(0.0, **LINE)
    below.axhline(gap.mean(), color="tab:orange", label=f"mean {gap.mean():.3f}")
    below.set(xlabel=f"{ORDER} of the lower bound", ylabel="gap, nats")
    below.locator_params(axis="x", integer=True)
    below.legend(fontsize="small")
    return figure


def draw_images(images: Tensor, titles: list[str], columns: int = 10) -> Figure:
    """Draws images ``[n, channels, height, width]`` or ``[n, height, width]`` in [0, 1], each with its title.

    Raises:
        ValueError: If the images have another shape.
    """
    shape = list(images.shape)
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images have shape {shape}; expected [n, 1 or 3, height, width] or [n, height, width]")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(figsize=(max(3, 0.9 * columns), 1.15 * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in every:
        axes.set_axis_off()
    for axes, image, title in zip(every, images.detach().cpu().movedim(1, -1), titles, strict=False):
        axes.imshow(image.squeeze(-1).numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize="x-small")
    return figure


def draw_imputation(x: Tensor, std: Tensor, missing: Tensor, names: list[int]) -> Figure:
    """Draws filled-in datapoints: images in three rows, other data as values with their standard deviation.

    Args:
        x: Filled in, ``[n, *event]``.
        std: The standard deviation of what was filled in, ``[n, *event]``.
        missing: What was filled in, ``[n, *event]``.
        names: The index of each datapoint.
    """
    if (x.ndim == 4 and x.shape[1] in (1, 3)) or (x.ndim == 3 and min(x.shape[1:]) > 1):
        return _draw_filled_images(x, std, missing)
    figure = new_figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    place = torch.arange(x[0].numel(), dtype=torch.float32)
    x, std, missing = (part.reshape(len(part), -1) for part in (x, std, missing))
    for i, (value, spread, gaps) in enumerate(zip(x, std, missing, strict=True)):
        beside = place + 0.6 * ((i + 0.5) / len(x) - 0.5)  # so that datapoints do not hide each other
        color = f"C{i % 10}"
        axes.plot(beside[~gaps].numpy(), value[~gaps].numpy(), ".", color=color, alpha=0.5)
        axes.errorbar(
            beside[gaps].numpy(),
            value[gaps].numpy(),
            spread[gaps].nan_to_num(0.0).numpy(),
            fmt="s",
            markersize=4,
            markerfacecolor="white",
            color=color,
            label=f"{names[i]}",
        )
    axes.set(xlabel="position in a datapoint", ylabel="value")
    axes.set_title("dots: observed; squares: filled in, with one standard deviation", fontsize="medium")
    axes.locator_params(axis="x", integer=True)
    axes.legend(title="datapoint", fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _draw_filled_images(x: Tensor, std: Tensor, missing: Tensor) -> Figure:
    if x.ndim == 3:
        x, std, missing = x[:, None], std[:, None], missing[:, None]
    observed = torch.where(missing, 0.5, x)
    largest = std.nan_to_num(0.0).max().item()
    title = f"standard deviation\n(black: {largest:.2g})"
    spread = std.nan_to_num(0.0) / max(largest, 1e-30)
    return comparison({"observed": observed, "filled in": x, title: spread}, columns=len(x))

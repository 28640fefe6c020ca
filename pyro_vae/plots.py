"""Pictures. Most functions return a matplotlib figure; ``figure.savefig(path)`` writes it. No display is needed.

A notebook shows a figure that is the last value of a cell.

Grey images are drawn with 0 as white. For photographs, pass ``cmap="gray"``, where 0 is black.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from pyro_vae.checks import check_images
from pyro_vae.system.files import replace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "codes",
    "columns",
    "comparison",
    "curves",
    "image_grid",
    "latent_space",
    "manifold",
    "new_figure",
    "reconstructions",
    "samples",
    "series",
    "write_gif",
]

INCHES = 0.6  # the height of an image in a grid
GAP = 0.3  # between two grids, in inches
TITLE_POINTS = 12
MOST_BARS = 12  # more different numbers are drawn as a histogram


def new_figure(**options: Any) -> Figure:
    """Returns a ``matplotlib.figure.Figure``, which needs no display, and which notebooks show.

    Importing matplotlib takes half a second, so it is imported here.

    Example:
        >>> figure = plots.new_figure(figsize=(4, 3))
        >>> axes = figure.add_subplot(xlabel="$z_1$", ylabel="$z_2$")
        >>> points = axes.scatter(*vae.encode(x).T)
        >>> figure.savefig("codes.png")
    """
    from pyro_vae.notebook_figure import NotebookFigure

    return NotebookFigure(**options)


def panels(
    count: int, columns: int, inches: tuple[float, float], more: tuple[float, float], **options: Any
) -> tuple[Figure, list[Axes]]:
    """An empty figure with a grid of axes.

    Args:
        count: The number of axes.
        columns: The largest number of axes in a row.
        inches: Width and height of each.
        more: Width and height of what is around them.
        options: Those of ``Figure.subplots``.
    """
    across, down = min(columns, count), -(-count // columns)
    size = inches[0] * across + more[0], inches[1] * down + more[1]
    figure = new_figure(figsize=size, layout="constrained")
    every = list(figure.subplots(down, across, squeeze=False, **options).flat)
    for axes in every[count:]:
        axes.set_axis_off()
    return figure, every[:count]


def png(figure: Figure, dpi: float) -> bytes:
    """The content of a PNG file with the figure, in this number of pixels to the inch."""
    content = io.BytesIO()
    # Pictures are areas of one colour. To compress only repetitions of a pixel takes little time; files are 9% larger.
    figure.savefig(content, format="png", dpi=dpi, pil_kwargs={"compress_type": zlib.Z_RLE})
    return content.getvalue()


def curves(lines: Mapping[str, Sequence[float]], ylabel: str = "negative ELBO (nats per datapoint)") -> Figure:
    """Draws one line for each name against the epoch, from 1.

    Example:
        >>> figure = plots.curves({"train": [120.4, 111.0, 107.2], "valid": [118.9, 112.3, 109.5]})
        >>> figure.savefig("curves.png")
    """
    figure = new_figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel=ylabel)
    for name, values in lines.items():
        epochs = range(1, len(values) + 1)
        axes.plot(epochs, values, marker="." if len(values) < 50 else None, label=name)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def image_grid(images: Tensor, columns: int = 10, title: str | None = None, cmap: str = "gray_r") -> Figure:
    """Draws images ``[n, channels, height, width]`` in [0, 1] (1 or 3 channels), row by row.

    Images with a height or width of 1 and at least 16 pixels are series: they are drawn as lines, here and in the other
    functions for images.

    Raises:
        ValueError: If the images have another shape.

    Example:
        >>> figure = plots.image_grid(vae.sample(20), columns=5, title="samples")
        >>> figure.savefig("samples.png")
    """
    return _grids({title or "": images}, columns, cmap)


def samples(draws: Tensor, means: Tensor, columns: int = 10, cmap: str = "gray_r") -> Figure:
    """Draws samples from a model, and beside them the means of p(x | z) at the same latents z.

    Args:
        draws: Draws of x in [0, 1], ``[n, channels, height, width]``, with 1 or 3 channels.
        means: The means of the distributions that they were drawn from, of the same shape.
        columns: The number of images in a row, on each side.
        cmap: The colours of grey images.

    Raises:
        ValueError: If the images have another shape.

    Example:
        >>> _, p_x = vae.draw_prior(20)
        >>> figure = plots.samples(p_x.sample(), p_x.mean, columns=5)
        >>> len(figure.axes)
        2
    """
    return _grids({"samples x ~ p(x)": draws, "means of p(x | z), same z": means}, columns, cmap)


def reconstructions(originals: Tensor, reconstructed: Tensor, columns: int = 10) -> Figure:
    """Draws originals ``[n, channels, height, width]``, and below each its reconstruction.

    Example:
        >>> figure = plots.reconstructions(x, vae.reconstruct(x), columns=4)
        >>> len(figure.axes)
        1
    """
    pairs = zip(originals.split(columns), reconstructed.split(columns), strict=True)
    rows = [_pad(part, columns) for pair in pairs for part in pair]
    return image_grid(torch.cat(rows), columns, title="odd rows: originals; even rows: reconstructions")


def comparison(
    images: Mapping[str, Tensor], columns: int = 10, title: str | None = None, cmap: str = "gray_r"
) -> Figure:
    """Draws several versions of the same images below each other, each row with its name.

    For example data and their reconstructions by several models, or paths from one image to another, one in each row.

    Args:
        images: For each name n images in [0, 1], ``[n, channels, height, width]``, with 1 or 3 channels.
        columns: The number of images in a row; the others follow below, with all names again.
        title: A title.
        cmap: The colours of grey images.

    Raises:
        ValueError: If the images have another shape, or their shapes differ.

    Example:
        >>> figure = plots.comparison({"data": x, "reconstructions": vae.reconstruct(x)}, columns=4)
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['data', 'reconstructions']
    """
    shapes = {name: list(version.shape) for name, version in images.items()}
    if len(set(map(tuple, shapes.values()))) != 1:
        raise ValueError(f"images have shapes {shapes}; expected the same for each of at least one name")
    for name, version in images.items():
        check_images(version, name)
    groups = list(zip(*(version.split(columns) for version in images.values()), strict=True))
    height, width = _cell(next(iter(images.values())))
    text, inches, room = _wrapped(title or "", 1 + columns * INCHES * width / height)
    figure = new_figure(figsize=(inches, len(groups) * (len(images) + 0.2) * INCHES + room), layout="compressed")
    for axes, group in zip(figure.subplots(len(groups), squeeze=False)[:, 0], groups, strict=True):
        _draw_grid(axes, torch.cat([_pad(part, columns) for part in group]), columns, cmap)
        axes.set_yticks([(row + 0.5) * height - 0.5 for row in range(len(images))], list(images))
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    if title:
        figure.suptitle(text)
    return figure


def manifold(likelihood: nn.Module, columns: int = 20, cmap: str = "gray_r") -> Figure:
    """Decodes a grid of two-dimensional latents at equal steps of probability under a standard normal prior.

    As in Kingma & Welling 2013, figure 4: the coordinates are quantiles of the prior, z1 to the right and z2 upwards.

    Args:
        likelihood: Maps latents ``[columns^2, 2]`` to p(x | z), whose means are drawn.
        columns: The number of images in a row and in a column.
        cmap: The colours of grey images.

    Example:
        >>> figure = plots.manifold(vae.likelihood, columns=10)
        >>> figure.savefig("manifold.png")
    """
    return image_grid(_decode_quantiles(likelihood, columns), columns, cmap=cmap)


def codes(z: Tensor, labels: Tensor | None = None) -> Figure:
    """Draws two-dimensional codes ``[n, 2]`` as points, coloured by their labels ``[n]`` if there are any.

    The points are drawn in random order, so that no class hides another.

    Example:
        >>> labels = torch.arange(8) % 2
        >>> figure = plots.codes(vae.encode(x), labels)
        >>> figure.axes[0].get_xlabel()
        '$z_1$'
    """
    figure = new_figure(figsize=(6.5, 6), layout="constrained")
    _draw_codes(figure.add_subplot(), z, labels)
    return figure


def latent_space(
    likelihood: nn.Module,
    z: Tensor,
    labels: Tensor | None = None,
    *,
    columns: int = 15,
    title: str | None = None,
    cmap: str = "gray_r",
) -> Figure:
    """Draws a two-dimensional latent space from both sides: images decoded from it, and codes of data in it.

    On the left is :func:`manifold`, on the right are codes in the same coordinates: both axes have equal steps of
    probability under a standard normal prior, so that codes with this distribution fill the square evenly.

    Args:
        likelihood: As for :func:`manifold`.
        z: Codes ``[n, 2]``.
        labels: Their labels ``[n]``, if there are any.
        columns: The number of images in a row and in a column.
        title: A title.
        cmap: The colours of grey images.

    Example:
        >>> figure = plots.latent_space(vae.likelihood, vae.encode(x), columns=10, title="after one epoch")
        >>> [axes.get_title() for axes in figure.axes]
        ['decoded: means of p(x | z)', 'encoded: means of q(z | x)']
    """
    text, _, room = _wrapped(title or "", 9.2)
    figure = new_figure(figsize=(9.2, 4.4 + room), layout="compressed")
    left, right = figure.subplots(1, 2)
    _draw_grid(left, _decode_quantiles(likelihood, columns), columns, cmap, extent=(0, 1, 0, 1))
    _draw_codes(right, Normal(0.0, 1.0).cdf(z), labels)
    ticks = torch.arange(-2.0, 3.0)
    at, names = Normal(0.0, 1.0).cdf(ticks).tolist(), [f"{tick:g}" for tick in ticks.tolist()]
    for axes, name in ((left, "decoded: means of p(x | z)"), (right, "encoded: means of q(z | x)")):
        axes.set(xlabel="$z_1$", ylabel="$z_2$", title=name, xlim=(0, 1), ylim=(0, 1), box_aspect=1)
        axes.set(xticks=at, yticks=at, xticklabels=names, yticklabels=names)
    if title:
        figure.suptitle(text)
    return figure


def series(values: Tensor, means: Tensor, columns: int = 5, title: str | None = None) -> Figure:
    """Draws series as points and the means of p(x | z) as lines, each series in its own axes, each feature in a colour.

    Args:
        values: Series, ``[n, steps, features]``; NaN where a value is missing.
        means: The means of the distributions that they are draws of or that reconstruct them, of the same shape.
        columns: The number of series in a row.
        title: A title.

    Raises:
        ValueError: If the shapes differ or have another number of dimensions.

    Example:
        >>> means = torch.linspace(0, 6, 30).sin().reshape(1, 30, 1).repeat(5, 1, 1)
        >>> figure = plots.series(torch.normal(means, 0.1), means)
        >>> len(figure.axes)
        5
    """
    if values.ndim != 3 or values.shape != means.shape or not len(values):
        raise ValueError(
            f"values and means have shapes {list(values.shape)} and {list(means.shape)}; expected [n, steps, features]"
        )
    points, lines = values.detach().cpu(), means.detach().cpu()
    figure, every = panels(len(points), columns, (2.2, 1.5), (0.0, 0.6), sharex=True, sharey=True)
    for axes, some, line in zip(every, points, lines, strict=True):
        for i in range(values.shape[2]):
            axes.plot(some[:, i], ".", color=f"C{i % 10}", markersize=3, alpha=0.6)
            axes.plot(line[:, i], color=f"C{i % 10}", linewidth=1)
    figure.supxlabel("step", fontsize="medium")
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def columns(data: Any, samples: Any) -> Figure:
    """Draws the distribution of each column of two tables: of the data, and of samples from the model.

    Numbers are drawn as histograms over the range of the data, categories and a few different numbers as bars.

    Args:
        data: A data frame of pandas.
        samples: Another one. Its columns are drawn.

    Example:
        >>> import pandas as pd
        >>> data = pd.DataFrame({"height": [162.0, 175.5, 181.0], "smokes": ["no", "yes", "no"]})
        >>> samples = pd.DataFrame({"height": [170.2, 166.8, 178.4], "smokes": ["no", "no", "yes"]})
        >>> [axes.get_title() for axes in plots.columns(data, samples).axes]
        ['height', 'smokes']
    """
    figure, every = panels(len(samples.columns), 4, (2.4, 1.8), (0.0, 0.3))
    for axes, name in zip(every, samples.columns, strict=True):
        _draw_column(axes, data[name].dropna(), samples[name].dropna())
        axes.set_title(_shortened(str(name), 26), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.set_yticks([])
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


def write_gif(figures: Iterable[Figure], path: str | Path, seconds: float = 0.4, dpi: float = 80) -> None:
    """Writes figures of the same size as the frames of an endless animation.

    All frames share 128 colours.

    Args:
        figures: The frames, in order; if it is an iterator, only one of them is in memory at a time.
        path: A file, ``.gif``.
        seconds: How long each frame is shown; the last one is shown five times as long.
        dpi: Pixels per inch.

    Raises:
        ValueError: If there are no figures, or they differ in size.
        OSError: If the file cannot be written.

    Example:
        >>> figures = (plots.image_grid(vae.sample(9), columns=3) for _ in range(3))
        >>> plots.write_gif(figures, "samples.gif", seconds=0.5)
    """
    from PIL import Image

    frames = [Image.open(io.BytesIO(png(figure, dpi))).convert("RGB") for figure in figures]
    sizes = {frame.size for frame in frames}
    if len(sizes) != 1:
        raise ValueError(
            f"figures have the sizes {sorted(sizes)} in pixels; expected at least one, all of the same size"
        )
    width, height = sizes.pop()
    film = Image.new("RGB", (width, len(frames) * height))
    for index, frame in enumerate(frames):
        film.paste(frame, (0, index * height))
    film = film.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    first, *others = (film.crop((0, top, width, top + height)) for top in range(0, film.height, height))
    milliseconds = [round(1000 * seconds)] * len(others) + [round(5000 * seconds)]
    content = io.BytesIO()
    first.save(content, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    replace(Path(path), content.getvalue())


def _grids(panels: Mapping[str, Tensor], columns: int, cmap: str) -> Figure:
    """Draws grids of images side by side, each below its title. All have the same shape."""
    first, *_ = [check_images(images) for images in panels.values()]
    pixels_high, pixels_wide = _cell(first)
    height = -(-len(first) // columns) * INCHES
    titles = [_wrapped(title, columns * INCHES * pixels_wide / pixels_high) for title in panels]
    width, room = max(inches for _, inches, _ in titles), max(inches for *_, inches in titles)
    whole = len(panels) * width + (len(panels) - 1) * GAP
    figure = new_figure(figsize=(whole, height + room))
    for i, ((text, *_), images) in enumerate(zip(titles, panels.values(), strict=True)):
        left = i * (width + GAP)
        axes = figure.add_axes((left / whole, 0, width / whole, height / (height + room)))
        _draw_grid(axes, images, columns, cmap)
        axes.set_axis_off()
        middle = (left + width / 2) / whole, (height + room / 2) / (height + room)
        figure.text(*middle, text, fontsize=TITLE_POINTS, ha="center", va="center")
    return figure


def _wrapped(title: str, inches: float) -> tuple[str, float, float]:
    """A title in lines of at most this width, or of its longest word; with the width and height for it, in inches."""
    lines: list[str] = []
    for word in title.split():
        if lines and _text_inches(longer := f"{lines[-1]} {word}") < inches - 0.1:
            lines[-1] = longer
        else:
            lines.append(word)
    width = max([inches, *(_text_inches(line) + 0.1 for line in lines)])
    return "\n".join(lines), width, 0.15 + 0.25 * len(lines) if lines else 0.0


@lru_cache  # pictures of a run have the same titles in every epoch
def _text_inches(text: str) -> float:
    """The width of a title on one line."""
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=TITLE_POINTS).get_extents().width / 72


def _cell(images: Tensor) -> tuple[float, float]:
    """The height and width of one image in a grid, in pixels; for a series, the width has a pixel for each value."""
    height, width = images.shape[-2:]
    return (max(height, width) / 1.5, max(height, width)) if _is_series(images) else (height, width)


def _is_series(images: Tensor) -> bool:
    return min(images.shape[-2:]) == 1 and max(images.shape[-2:]) >= 16


def _draw_grid(
    axes: Axes, images: Tensor, columns: int, cmap: str, extent: tuple[float, float, float, float] | None = None
) -> None:
    """Draws images into axes whose units are their pixels, or that cover ``extent`` (left, right, bottom, top)."""
    images = images.detach().cpu()
    if _is_series(images):
        _draw_lines(axes, images, columns, extent)
        return
    mosaic = _mosaic(images, columns).squeeze(-1).numpy()
    axes.imshow(mosaic, cmap=cmap, vmin=0, vmax=1, interpolation="nearest", extent=extent)
    axes.set_aspect("equal" if extent is None else "auto")


def _draw_lines(axes: Axes, series: Tensor, columns: int, extent: tuple[float, float, float, float] | None) -> None:
    """Draws series ``[n, channels, 1, length]`` or ``[n, channels, length, 1]`` as :func:`_draw_grid` draws images."""
    from matplotlib.collections import LineCollection

    height, width = _cell(series)
    values, rows = series.flatten(2), -(-len(series) // columns)
    left, right, bottom, top = extent or (-0.5, columns * width - 0.5, rows * height - 0.5, -0.5)
    index = torch.arange(len(series))[:, None, None]
    x = (index % columns + torch.linspace(0.05, 0.95, values.shape[-1]).expand_as(values)) / columns
    y = (index // columns + 0.95 - 0.9 * values) / rows
    points = torch.stack([left + (right - left) * x, top + (bottom - top) * y], dim=-1)
    for channel, color in zip(range(values.shape[1]), ("black",) if values.shape[1] == 1 else "rgb", strict=True):
        axes.add_collection(LineCollection(list(points[:, channel].numpy()), colors=color, linewidths=0.8))
    borders: dict[str, Any] = {"color": "0.85", "linewidth": 0.5}
    axes.vlines([left + (right - left) * i / columns for i in range(columns + 1)], bottom, top, **borders)
    axes.hlines([top + (bottom - top) * i / rows for i in range(rows + 1)], left, right, **borders)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal" if extent is None else "auto")


def _draw_codes(axes: Axes, z: Tensor, labels: Tensor | None) -> None:
    from matplotlib.lines import Line2D

    axes.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))
    points = z.detach().cpu()[order].numpy()
    options: dict[str, Any] = {"s": min(max(5000 / len(z), 3), 20), "alpha": 0.6, "linewidths": 0}
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], **options)
        return
    kinds = labels.cpu()[order].tolist()
    colors = _class_colors(sorted(set(kinds)))
    axes.scatter(points[:, 0], points[:, 1], c=[colors[kind] for kind in kinds], **options)
    marks = [Line2D([], [], linestyle="", marker="o", color=color, label=str(kind)) for kind, color in colors.items()]
    axes.legend(handles=marks, bbox_to_anchor=(1, 1), loc="upper left", frameon=False, ncols=-(-len(marks) // 20))


def _draw_column(axes: Axes, data: Any, samples: Any) -> None:
    """Draws the distributions of two columns without missing values."""
    counts = data.value_counts(normalize=True)
    kinds = counts.index[:MOST_BARS].sort_values()
    is_number = data.dtype.kind in "iuf" and len(counts) > MOST_BARS
    margin = (data.max() - data.min()) / 20 if is_number else 0
    of_data: dict[str, Any] = {"color": "C0", "alpha": 0.4, "label": "data"}
    of_samples: dict[str, Any] = {"fill": False, "edgecolor": "C1", "label": "samples"}
    for values, shift, options in ((data, -0.2, of_data), (samples, 0.2, of_samples)):
        if is_number:
            edges = torch.linspace(data.min() - margin, data.max() + margin, 25).tolist()
            axes.hist(values, edges, weights=[1 / len(values)] * len(values), histtype="stepfilled", **options)
        else:
            shares = values.value_counts(normalize=True).reindex(kinds, fill_value=0.0)
            axes.bar([place + shift for place in range(len(kinds))], shares, 0.4, **options)
    if not is_number:
        labels = [_shortened(str(kind), 10) for kind in kinds]
        axes.set_xticks(range(len(kinds)), labels, rotation=0 if len(kinds) < 4 else 90)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _class_colors(kinds: Sequence[Any]) -> dict[Any, Any]:
    """A colour for each label: the same one in every picture if labels are from 0 to 9."""
    from matplotlib import colormaps

    if set(kinds) <= set(range(10)):
        return {kind: f"C{int(kind)}" for kind in kinds}
    return dict(zip(kinds, colormaps["turbo"](torch.linspace(0, 1, len(kinds)).numpy()), strict=True))


@torch.no_grad()
def _decode_quantiles(likelihood: nn.Module, columns: int) -> Tensor:
    """Means of p(x | z), ``[columns^2, *event]``, row by row from the top: z1 grows to the right, z2 upwards."""
    reference = next(likelihood.parameters(), torch.empty(0))
    steps = (torch.arange(columns, device=reference.device, dtype=reference.dtype) + 0.5) / columns
    quantiles = Normal(0.0, 1.0).icdf(steps)
    upwards, rightwards = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    return likelihood(torch.stack([rightwards, upwards], dim=-1).reshape(-1, 2)).mean


def _mosaic(images: Tensor, columns: int) -> Tensor:
    images = _pad(images, columns)
    n, channels, height, width = images.shape
    grid = images.reshape(n // columns, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    return grid.reshape(n // columns * height, columns * width, channels)


def _pad(images: Tensor, columns: int) -> Tensor:
    """Images with empty ones after them, to fill the last row: zeros, or series that have no line."""
    missing = -len(images) % columns
    empty = images.new_full((missing, *images.shape[1:]), torch.nan if _is_series(images) else 0)
    return torch.cat([images, empty]) if missing else images

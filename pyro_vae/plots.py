"""Pictures. Most functions return a matplotlib figure; ``figure.savefig(path)`` writes it. No display is needed.

Grey images are drawn as ink on paper: 0 is white. For photographs, pass ``cmap="gray"``, where 0 is black.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from pyro_vae.system.files import replace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "codes",
    "comparison",
    "curves",
    "image_grid",
    "latent_space",
    "manifold",
    "new_figure",
    "reconstructions",
    "write_gif",
]

INCHES = 0.6  # the height of an image in a grid


def new_figure(**options: Any) -> Figure:
    """Returns ``matplotlib.figure.Figure(**options)``, which needs no display. The import takes half a second."""
    from matplotlib.figure import Figure

    return Figure(**options)


def curves(lines: Mapping[str, Sequence[float]], ylabel: str = "negative ELBO (nats per datapoint)") -> Figure:
    """Draws one line for each name against the epoch, from 1."""
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

    Raises:
        ValueError: If the images have another shape.
    """
    _check_images("images", images)
    aspect = images.shape[-1] / images.shape[-2]
    height = -(-len(images) // columns) * INCHES
    figure = new_figure(figsize=(columns * INCHES * aspect, height + (0.4 if title else 0)))
    axes = figure.add_axes((0, 0, 1, 0.9 if title else 1))
    _draw_grid(axes, images, columns, cmap)
    axes.set_axis_off()
    if title:
        figure.suptitle(title)
    return figure


def reconstructions(originals: Tensor, reconstructed: Tensor, columns: int = 10) -> Figure:
    """Draws originals ``[n, channels, height, width]``, and below each its reconstruction."""
    pairs = zip(originals.split(columns), reconstructed.split(columns), strict=True)
    rows = [_pad(part, columns) for pair in pairs for part in pair]
    return image_grid(torch.cat(rows), columns, title="rows 1, 3, ...: originals; rows 2, 4, ...: reconstructions")


def comparison(
    images: Mapping[str, Tensor], columns: int = 10, title: str | None = None, cmap: str = "gray_r"
) -> Figure:
    """Draws images that belong together below each other, each row with its name.

    Such as data and their reconstructions by several models; or, with a path in each row, several ways from one image
    to another.

    Args:
        images: For each name n images in [0, 1], ``[n, channels, height, width]``, with 1 or 3 channels.
        columns: How many of the n to draw side by side; what is left comes below, with all names again.
        title: A title.
        cmap: The colours of grey images.

    Raises:
        ValueError: If the images have another shape, or not all the same.
    """
    shapes = {name: list(version.shape) for name, version in images.items()}
    if len(set(map(tuple, shapes.values()))) != 1:
        raise ValueError(f"images have shapes {shapes}; expected the same for each of at least one name")
    for name, version in images.items():
        _check_images(name, version)
    groups = list(zip(*(version.split(columns) for version in images.values()), strict=True))
    height, width = next(iter(images.values())).shape[-2:]
    inches = len(groups) * (len(images) + 0.2) * INCHES + (0.4 if title else 0)
    figure = new_figure(figsize=(1 + columns * INCHES * width / height, inches), layout="compressed")
    for axes, group in zip(figure.subplots(len(groups), squeeze=False)[:, 0], groups, strict=True):
        _draw_grid(axes, torch.cat([_pad(part, columns) for part in group]), columns, cmap)
        axes.set_yticks([(row + 0.5) * height - 0.5 for row in range(len(images))], list(images))
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    if title:
        figure.suptitle(title)
    return figure


def manifold(likelihood: nn.Module, columns: int = 20, cmap: str = "gray_r") -> Figure:
    """Decodes a grid of two-dimensional latents at equal steps of probability under a standard normal prior.

    After Kingma & Welling 2013, figure 4: the coordinates are its quantiles, z1 to the right and z2 upwards.

    Args:
        likelihood: Called with latents ``[columns^2, 2]``; the means of what it returns are drawn.
        columns: The number of images in a row and in a column.
        cmap: The colours of grey images.
    """
    return image_grid(_decode_quantiles(likelihood, columns), columns, cmap=cmap)


def codes(z: Tensor, labels: Tensor | None = None) -> Figure:
    """Scatters two-dimensional codes ``[n, 2]``, coloured by label ``[n]`` where there is one."""
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
    """Draws both sides of a two-dimensional latent space: what is decoded from it, and where data are encoded.

    On the left is :func:`manifold`, on the right are codes at the same places: both axes have equal steps of
    probability under a standard normal prior, so that codes that are distributed like it fill the square evenly.

    Args:
        likelihood: As for :func:`manifold`.
        z: Codes ``[n, 2]``.
        labels: Their labels ``[n]``, where there are any.
        columns: The number of images in a row and in a column.
        title: A title.
        cmap: The colours of grey images.
    """
    figure = new_figure(figsize=(9.2, 4.7 if title else 4.4), layout="compressed")
    left, right = figure.subplots(1, 2)
    _draw_grid(left, _decode_quantiles(likelihood, columns), columns, cmap, extent=(0, 1, 0, 1), aspect="auto")
    _draw_codes(right, Normal(0.0, 1.0).cdf(z), labels)
    if labels is not None:
        right.legend(markerscale=5, bbox_to_anchor=(1, 1), loc="upper left", frameon=False)
    ticks = torch.arange(-2.0, 3.0)
    at, names = Normal(0.0, 1.0).cdf(ticks).tolist(), [f"{tick:g}" for tick in ticks.tolist()]
    for axes, name in ((left, "decoded: means of p(x | z)"), (right, "encoded: means of q(z | x)")):
        axes.set(xlabel="$z_1$", ylabel="$z_2$", title=name, xlim=(0, 1), ylim=(0, 1), box_aspect=1)
        axes.set(xticks=at, yticks=at, xticklabels=names, yticklabels=names)
    if title:
        figure.suptitle(title)
    return figure


def write_gif(figures: Iterable[Figure], path: str | Path, seconds: float = 0.4, dpi: float = 80) -> None:
    """Writes figures of the same size as the frames of an endless animation, of which the last one stays for longer.

    It has 128 colours, which all frames share.

    Args:
        figures: The frames, in order; as an iterator, only one of them is in memory at a time.
        path: A file, ``.gif``.
        seconds: How long each frame is seen; the last one five times as long.
        dpi: Pixels per inch.

    Raises:
        ValueError: If there are no figures, or they differ in size.
        OSError: If the file cannot be written.
    """
    from PIL import Image

    frames = []
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
        frames.append(Image.open(buffer).convert("RGB"))
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


def _check_images(name: str, images: Tensor) -> None:
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"{name} have shape {list(images.shape)}; expected [n, 1 or 3, height, width] with n at least 1"
        )


def _draw_grid(axes: Axes, images: Tensor, columns: int, cmap: str, **options: Any) -> None:
    mosaic = _mosaic(images.detach().cpu(), columns).squeeze(-1).numpy()
    axes.imshow(mosaic, cmap=cmap, vmin=0, vmax=1, interpolation="nearest", **options)


def _draw_codes(axes: Axes, z: Tensor, labels: Tensor | None) -> None:
    axes.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    points = z.detach().cpu().numpy()
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=2)
        return
    kinds = labels.cpu().numpy()
    for kind in sorted(set(kinds.tolist())):
        chosen = points[kinds == kind]
        axes.scatter(chosen[:, 0], chosen[:, 1], s=2, color=f"C{kind % 10}", label=str(kind))
    axes.legend(markerscale=5, ncols=2)


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
    missing = -len(images) % columns
    return torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images

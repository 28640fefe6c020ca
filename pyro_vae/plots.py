"""Pictures. Each function returns a matplotlib figure; ``figure.savefig(path)`` writes it. No display is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from pyro_vae.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["codes", "curves", "image_grid", "manifold", "reconstructions"]


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


def image_grid(images: Tensor, columns: int = 10, title: str | None = None) -> Figure:
    """Draws images ``[n, channels, height, width]`` in [0, 1] (1 or 3 channels), row by row; grey 0 is white.

    Raises:
        ValueError: If the images have another shape.
    """
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images have shape {list(images.shape)}; expected [n, 1 or 3, height, width] with n at least 1"
        )
    figure = new_figure(figsize=(columns * 0.6, -(-len(images) // columns) * 0.6 + (0.4 if title else 0)))
    axes = figure.add_axes((0, 0, 1, 0.9 if title else 1))
    mosaic = _mosaic(images.detach().cpu(), columns)
    axes.imshow(mosaic.squeeze(-1).numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    if title:
        figure.suptitle(title)
    return figure


def reconstructions(originals: Tensor, reconstructed: Tensor, columns: int = 10) -> Figure:
    """Draws originals ``[n, channels, height, width]``, and below each its reconstruction."""
    pairs = zip(originals.split(columns), reconstructed.split(columns), strict=True)
    rows = [_pad(part, columns) for pair in pairs for part in pair]
    return image_grid(torch.cat(rows), columns, title="rows 1, 3, ...: originals; rows 2, 4, ...: reconstructions")


@torch.no_grad()
def manifold(likelihood: nn.Module, columns: int = 20) -> Figure:
    """Decodes a grid of two-dimensional latents at equal steps of probability under a standard normal prior.

    After Kingma & Welling 2013, figure 4: the coordinates are its quantiles, z1 to the right and z2 upwards.

    Args:
        likelihood: Called with latents ``[columns^2, 2]``; the means of what it returns are drawn.
        columns: The number of images in a row and in a column.
    """
    reference = next(likelihood.parameters(), torch.empty(0))
    steps = (torch.arange(columns, device=reference.device, dtype=reference.dtype) + 0.5) / columns
    quantiles = Normal(0.0, 1.0).icdf(steps)
    upwards, rightwards = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    latents = torch.stack([rightwards, upwards], dim=-1).reshape(-1, 2)
    return image_grid(likelihood(latents).mean, columns)


def codes(z: Tensor, labels: Tensor | None = None) -> Figure:
    """Scatters two-dimensional codes ``[n, 2]``, coloured by label ``[n]`` where there is one."""
    figure = new_figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.add_subplot(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    points = z.detach().cpu().numpy()
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=2)
        return figure
    kinds = labels.cpu().numpy()
    for kind in sorted(set(kinds.tolist())):
        chosen = points[kinds == kind]
        axes.scatter(chosen[:, 0], chosen[:, 1], s=2, color=f"C{kind % 10}", label=str(kind))
    axes.legend(markerscale=5, ncols=2)
    return figure


def _mosaic(images: Tensor, columns: int) -> Tensor:
    images = _pad(images, columns)
    n, channels, height, width = images.shape
    grid = images.reshape(n // columns, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    return grid.reshape(n // columns * height, columns * width, channels)


def _pad(images: Tensor, columns: int) -> Tensor:
    missing = -len(images) % columns
    return torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images

"""Pictures of a VAE in training. They use the same random numbers each time, and do not change the training."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyro_vae import plots
from pyro_vae.models.parts_fit import trial
from pyro_vae.system.randomness import reseed
from pyro_vae.system.threads import in_turn
from pyro_vae.training.logs.failures import failures_warned

if TYPE_CHECKING:
    import PIL.Image
    from matplotlib.figure import Figure

    from pyro_vae.training.run import Run

DPI = 150
SAMPLES, RECONSTRUCTIONS = 100, 50
ENCODED_AT_ONCE = 500


def in_unit_interval(x: Tensor, images: Tensor) -> Tensor:
    """Grey levels of x from 0 to 1, on the CPU. If ``images`` exceed this interval, x is scaled by their range."""
    known = images.float().nan_to_num(0.0)
    low, high = known.min().clamp_max(0.0).cpu(), known.max().clamp_min(1.0).cpu()
    return ((x.float().nan_to_num(0.0).cpu() - low) / (high - low)).clamp(0.0, 1.0)


def samples(vae: Any, images: Tensor) -> Figure:
    """Draws samples from the model and the means of p(x | z) beside them; for another kind of module, its samples."""
    with _reproducible(vae):
        if not hasattr(vae, "draw_prior"):
            return plots.image_grid(in_unit_interval(vae.sample(SAMPLES), images), title="samples")
    draws, means = drawn(vae, SAMPLES)
    return plots.samples(in_unit_interval(draws, images), in_unit_interval(means, images))


def drawn(vae: Any, n: int) -> tuple[Tensor, Tensor]:
    """Samples from the model and the means of p(x | z) at the same latents, each ``[n, *event]``."""
    with _reproducible(vae):
        _, p_x = vae.draw_prior(n)
        return p_x.sample(), p_x.mean


def reconstructions(vae: Any, images: Tensor) -> Figure:
    """Draws the first images and, below each, the mean of p(x | z) at its code."""
    images = images[:RECONSTRUCTIONS]
    with _reproducible(vae) as device:
        y = vae.reconstruct(images.to(device))
    return plots.reconstructions(in_unit_interval(images, images), in_unit_interval(y, images))


def due_figures(run: Run, images: Tensor | None, every: int, place: Path | str) -> dict[str, Figure]:
    """Samples and reconstructions by name, every few epochs and after the last; a failure causes a warning.

    Args:
        run: The run.
        images: Images to reconstruct; without them nothing is due.
        every: The number of epochs between pictures.
        place: Where the figures belong: a folder, or the name of a service.
    """
    figures: dict[str, Figure] = {}
    if images is not None and (run.is_done or run.progress.epoch % every == 0):
        for draw in (samples, reconstructions):
            with failures_warned(place / draw.__name__ if isinstance(place, Path) else place):
                figures[draw.__name__] = draw(run.vae, images)
    return figures


def as_image(figure: Figure) -> PIL.Image.Image:
    """The figure as an image."""
    import PIL.Image

    return PIL.Image.open(io.BytesIO(plots.png(figure, DPI)))


def curves(run: Run) -> Figure:
    """Draws the losses of a run."""
    names = [name for name in ("train", "valid") if f"{name}_loss" in run.history[-1]]
    return plots.curves({name: [row[f"{name}_loss"] for row in run.history] for name in names})


def codes(vae: Any, images: Tensor) -> dict[str, Tensor]:
    """The codes of images, ``[n, latent]``, by site: means of the posterior, or draws if it has no mean."""
    with _reproducible(vae) as device:
        parts = [_codes(vae, part.to(device)) for part in images.split(ENCODED_AT_ONCE)]
    return {name: torch.cat([part[name].flatten(1).cpu() for part in parts]) for name in parts[0]}


def _codes(vae: Any, x: Tensor) -> dict[str, Tensor]:
    if hasattr(vae, "codes"):
        return vae.codes(x)
    z = vae.encode(x)  # a module of another kind
    return z if isinstance(z, dict) else {"z": z}


@contextmanager
def _reproducible(vae: nn.Module) -> Iterator[torch.device]:
    """Sets evaluation mode and the same random seed each time; other threads wait. Gives the device.

    Raises:
        ValueError: If parameters are sharded over processes (FSDP), because all processes would have to take part.
    """
    if any(hasattr(parameter, "placements") for parameter in vae.parameters()):
        raise ValueError("the parameters are sharded over processes")
    device = next(vae.parameters()).device
    with in_turn(), trial({"vae": vae}):
        reseed(0, device)
        yield device

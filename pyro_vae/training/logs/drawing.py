"""What pictures of a VAE in training show. Draws are the same each time, and leave no trace in what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vae import plots
from pyro_vae.models.hierarchical import HierarchicalVAE
from pyro_vae.models.parts_fit import trial
from pyro_vae.models.vae import VAE
from pyro_vae.system.randomness import reseed
from pyro_vae.system.threads import one_thread_at_a_time

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyro_vae.training.run import Run

__all__ = ["check_images", "codes", "curves", "in_unit_interval", "reconstructions", "samples"]

SAMPLES, RECONSTRUCTIONS = 100, 50
ENCODED_AT_ONCE = 500


def check_images(images: Tensor) -> Tensor:
    """Returns images ``[n, channels, height, width]``, of 1 or 3 channels, as they are.

    Raises:
        TypeError: If they are not a tensor.
        ValueError: If they have another shape.
    """
    expected = "expected [n, 1 or 3, height, width] with n at least 1"
    if not isinstance(images, Tensor):
        raise TypeError(f"images are of type {type(images).__name__}; {expected}")
    if images.ndim != 4 or 0 in images.shape or images.shape[1] not in (1, 3):
        raise ValueError(f"images have shape {list(images.shape)}; {expected}")
    return images


def in_unit_interval(x: Tensor, images: Tensor) -> Tensor:
    """x as grey levels from 0 to 1, on the CPU; where some of ``images`` are outside of that, on the scale of these."""
    known = images.float().nan_to_num(0.0)
    low, high = known.min().clamp_max(0.0).cpu(), known.max().clamp_min(1.0).cpu()
    return ((x.float().nan_to_num(0.0).cpu() - low) / (high - low)).clamp(0.0, 1.0)


def samples(vae: nn.Module, images: Tensor) -> Figure:
    """Draws the means of p(x | z) at draws from the prior; of a module of another kind, its own samples."""
    with _as_it_is(vae):
        x = _means(vae, SAMPLES)
    return plots.image_grid(in_unit_interval(x, images))


def reconstructions(vae: nn.Module, images: Tensor) -> Figure:
    """Draws the first images and, below each, the mean of p(x | z) at its code."""
    images = images[:RECONSTRUCTIONS]
    with _as_it_is(vae) as device:
        y = _reconstruct(vae, images.to(device))
    return plots.reconstructions(in_unit_interval(images, images), in_unit_interval(y, images))


def curves(run: Run) -> Figure:
    """Draws the losses of a run."""
    names = [name for name in ("train", "valid") if f"{name}_loss" in run.history[-1]]
    return plots.curves({name: [row[f"{name}_loss"] for row in run.history] for name in names})


def codes(vae: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The codes of images, ``[n, latent]``, by site; draws from the posterior, if it has no mean in closed form."""
    with _as_it_is(vae) as device:
        parts = [_encode(vae, part.to(device)) for part in images.split(ENCODED_AT_ONCE)]
    return {name: torch.cat([part[name].flatten(1).cpu() for part in parts]) for name in parts[0]}


@contextmanager
def _as_it_is(vae: nn.Module) -> Iterator[torch.device]:
    """In evaluation mode, and with the same noise each time; gives the device.

    Raises:
        ValueError: If parameters are spread over processes (FSDP), which would all have to take part.
    """
    if any(hasattr(parameter, "placements") for parameter in vae.parameters()):
        raise ValueError("the parameters are spread over processes")
    device = next(vae.parameters()).device
    with trial({"vae": vae}):
        reseed(0, device)
        yield device


def _means(vae: Any, n: int) -> Tensor:
    if not isinstance(vae, VAE | HierarchicalVAE):
        return vae.sample(n)
    z = vae.prior().sample((n,))
    for layer in vae.layers if isinstance(vae, HierarchicalVAE) else ():
        z = layer(z).sample()
    return vae.likelihood(z).mean


@one_thread_at_a_time
def _reconstruct(vae: Any, x: Tensor) -> Tensor:
    try:
        return vae.reconstruct(x)
    except NotImplementedError:  # the posterior has no mean, as that of a flow
        return vae.likelihood(vae.guide(x)).mean


@one_thread_at_a_time
def _encode(vae: Any, x: Tensor) -> dict[str, Tensor]:
    try:
        z = vae.encode(x)
    except NotImplementedError:
        trace = poutine.trace(vae.guide).get_trace(x)
        return {name: trace.nodes[name]["value"] for name in trace.stochastic_nodes if name != "data"}
    return z if isinstance(z, dict) else {"z": z}

"""``pyro-vae sample``."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from tyro.conf import Positional

from pyro_vae import VAE, load, plots
from pyro_vae.checks import check_count
from pyro_vae.cli.pictures import is_image, save_figure
from pyro_vae.cli.run_files import folder_of
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import replace, writable_folder

__all__ = ["Sample"]

ROWS = 1000  # to decode at once


@dataclass(frozen=True)
class Sample:
    """Draws from the model: a picture of the means of p(x | z) for z from the prior, and draws of x in a file."""

    run: Positional[Path]
    """Folder of the run, of which the best weights are taken; or one of its checkpoints."""
    count: int = 100
    """Number of draws."""
    picture: Path | None = None
    """PNG to draw the means in, if they are images; by default samples.png in the folder."""
    draws: Path | None = None
    """File .npy for draws of x, or .safetensors for these, their latents z and the means of p(x | z)."""
    seed: int = 0
    """Of the draws."""
    device: str | None = None
    """Such as cpu or cuda:1; by default the GPU if there is one."""

    def __call__(self) -> None:
        """Draws.

        Raises:
            CheckpointError: If the run cannot be loaded.
            TypeError: If it is of another class than ``VAE``.
            ValueError: If an option has a value that cannot be, or there is nothing to write.
            OSError: If a file cannot be written.
        """
        check_count("--count", self.count)
        if self.draws is not None and self.draws.suffix not in (".npy", ".safetensors"):
            raise ValueError(f"--draws is {str(self.draws)!r}; expected a file .npy or .safetensors")
        device = choose_device(self.device)
        vae = load(self.run).to(device)
        if not isinstance(vae, VAE):
            raise TypeError(f"the run is of a {type(vae).__name__}; expected a VAE of one layer")
        if not is_image(vae.event_shape) and (self.draws is None or self.picture is not None):
            raise ValueError(f"a datapoint has shape {list(vae.event_shape)} and is no image; --draws writes to a file")
        torch.manual_seed(self.seed)
        drawn = _draw(vae, self.count)
        if self.draws is not None:
            writable_folder(self.draws.parent)
            replace(self.draws, _npy(drawn["x"]) if self.draws.suffix == ".npy" else safetensors.torch.save(drawn))
            print(f"wrote {self.draws}")
        if is_image(vae.event_shape):
            picture = self.picture or folder_of(self.run) / "samples.png"
            writable_folder(picture.parent)
            print(f"wrote {save_figure(plots.image_grid(drawn['mean'].clamp(0, 1)), picture)}")


def _npy(x: Tensor) -> bytes:
    content = io.BytesIO()
    np.save(content, x.numpy())
    return content.getvalue()


@torch.no_grad()
def _draw(vae: VAE, count: int) -> dict[str, Tensor]:
    """Latents ``[count, latent]``, the means of p(x | z) and draws of x, each ``[count, *event]``, on the CPU."""
    z = vae.prior().sample((count,))
    parts = [vae.likelihood(part) for part in z.split(ROWS)]
    means, draws = (torch.cat([part.mean for part in parts]), torch.cat([part.sample() for part in parts]))
    return {name: tensor.cpu().contiguous() for name, tensor in (("x", draws), ("z", z), ("mean", means))}

"""Pictures of a run while it trains."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.processes import Processes
from pyro_vae.system.files import replace, writable_folder
from pyro_vae.training.logs.drawing import check_images, curves, reconstructions, samples
from pyro_vae.training.logs.failures import failures_warned
from pyro_vae.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Pictures"]

DPI = 150


class Pictures:
    """Draws ``samples.png``, ``reconstructions.png`` and ``curves.png`` every few epochs, and after the last.

    A callback for :func:`~pyro_vae.fit`. The samples are means of p(x | z) at draws from the prior, from the same
    noise each time, so that one sees them change. A file is replaced when the new one is whole. A picture that cannot
    be drawn is warned of, and training goes on.

    Args:
        folder: Where to.
        images: What is reconstructed, such as validation data, ``[n, channels, height, width]`` with 1 or 3 channels,
            as the VAE takes them; the first 50. Grey levels are from 0 to 1, or what is in them if that is more.
        every: Epochs from one time to the next.

    Raises:
        TypeError: If the images are not a tensor.
        ValueError: If they have another shape, or ``every`` is not at least 1.
        OSError: If the folder cannot be written to.
    """

    def __init__(self, folder: str | Path, images: Tensor, every: int = 5) -> None:
        self._images = check_images(images)
        self._every = check_count("every", every)
        self._folder = writable_folder(folder)

    def __call__(self, run: Run) -> None:
        """Draws, if it is time to."""
        is_due = run.is_done or run.progress.epoch % self._every == 0
        if is_due and Processes(torch.device("cpu")).is_first:
            self._draw("samples", lambda: samples(run.vae, self._images))
            self._draw("reconstructions", lambda: reconstructions(run.vae, self._images))
            self._draw("curves", lambda: curves(run))

    def _draw(self, name: str, draw: Callable[[], Figure]) -> None:
        path = self._folder / f"{name}.png"
        content = io.BytesIO()
        with failures_warned(path):
            draw().savefig(content, format="png", dpi=DPI)
            replace(path, content.getvalue())

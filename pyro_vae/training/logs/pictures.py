"""Pictures of a run while it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pyro_vae.checks import check_count, check_images
from pyro_vae.plots import png
from pyro_vae.processes import is_first_process
from pyro_vae.system.files import replace, writable_folder
from pyro_vae.training.logs.drawing import DPI, curves, reconstructions, samples
from pyro_vae.training.logs.failures import failures_warned
from pyro_vae.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictures:
    """Draws ``samples.png``, ``reconstructions.png`` and ``curves.png`` every few epochs, and after the last.

    A callback for :func:`~pyro_vae.fit`. The samples are shown with the means of p(x | z) beside them. They use the
    same random numbers each time, so that the pictures of different epochs can be compared. A file is replaced only
    when the new one is complete. A picture that cannot be drawn causes a warning, and training continues.

    Args:
        folder: The folder for the files.
        images: Images to reconstruct, such as validation data, ``[n, channels, height, width]`` with 1 or 3 channels,
            as the VAE takes them; the first 50 are drawn. Grey levels are scaled to the range of the images, or from 0
            to 1 if they lie in this interval.
        every: The number of epochs between pictures.

    Raises:
        TypeError: If the images are not a tensor.
        ValueError: If they have another shape, or ``every`` is not at least 1.
        OSError: If the folder cannot be written to.

    Example:
        >>> from pyro_vae.training.logs import Pictures
        >>> pictures = Pictures("pictures", images=x, every=10)  # fit(..., callbacks=[pictures])
    """

    def __init__(self, folder: str | Path, images: Tensor, every: int = 5) -> None:
        self._images = check_images(images)
        self._every = check_count("every", every)
        self._folder = writable_folder(folder)

    def __call__(self, run: Run) -> None:
        """Draws the pictures if they are due."""
        is_due = run.is_done or run.progress.epoch % self._every == 0
        if is_due and is_first_process():
            self._draw("samples", lambda: samples(run.vae, self._images))
            self._draw("reconstructions", lambda: reconstructions(run.vae, self._images))
            self._draw("curves", lambda: curves(run))

    def _draw(self, name: str, draw: Callable[[], Figure]) -> None:
        path = self._folder / f"{name}.png"
        with failures_warned(path):
            replace(path, png(draw(), DPI))

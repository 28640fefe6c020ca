"""A run in TensorBoard while it trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.functional import pad

from pyro_vae.checks import check_count, check_images
from pyro_vae.processes import is_first_process
from pyro_vae.system.files import writable_folder
from pyro_vae.system.packages import import_extra
from pyro_vae.system.warning import quiet
from pyro_vae.training.logs.drawing import codes, due_figures, in_unit_interval
from pyro_vae.training.logs.failures import failures_warned
from pyro_vae.training.logs.numbers import LOSS, scalars
from pyro_vae.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROJECTED = 5000
SPRITE = 8192  # the width of the largest picture that the projector takes, in pixels


class TensorBoard:
    """Writes each epoch's row of the history as scalars, pictures every few epochs, and codes after the last.

    A callback for :func:`~pyro_vae.fit`; ``tensorboard --logdir FOLDER`` shows it. A resumed run may use the same
    folder: each row of the history is written once. If something cannot be written,
    there is a warning, and training continues.

    Args:
        folder: The folder for the logs.
        images: Test data for pictures, ``[n, channels, height, width]`` with 1 or 3 channels, as the VAE takes them.
            Samples and reconstructions are those of :class:`~pyro_vae.training.logs.Pictures`; the embedding projector
            shows the codes of the first 5000 images (fewer, if they are larger than 115 pixels), for each latent site.
        labels: The labels of the images, ``[n]``, for the projector.
        every: The number of epochs between pictures.

    Raises:
        ImportError: If the package ``tensorboard`` is missing.
        TypeError: If images or labels are not a tensor.
        ValueError: If their shapes are wrong or differ in n, there are labels without images, or ``every`` is not at
            least 1.
        OSError: If the folder cannot be written to.

    Example:
        >>> from pyro_vae.training import logs
        >>> run = fit(vae, x, epochs=2, callbacks=[logs.TensorBoard("logs")], progress=False)
    """

    def __init__(
        self, folder: str | Path, images: Tensor | None = None, labels: Tensor | None = None, every: int = 5
    ) -> None:
        _summary_writer()
        self._images = None if images is None else check_images(images)
        self._labels = None if labels is None else _check_labels(labels, images)
        self._every = check_count("every", every)
        self._folder = writable_folder(folder)
        self._writer: Any = None
        self._rows = 0  # the number of rows of the history that are written

    def __call__(self, run: Run) -> None:
        """Writes the row, and pictures if they are due."""
        if not is_first_process():
            return
        figures = due_figures(run, self._images, self._every, self._folder)
        with failures_warned(self._folder):
            self._write(run.history, figures)
            if run.is_done and self._images is not None:
                self._project(run.vae, self._images, run.progress.step)
        if run.is_done:
            self._close()

    def _write(self, history: Sequence[dict[str, Any]], figures: dict[str, Figure]) -> None:
        if self._writer is None or len(history) != self._rows + 1:  # an earlier write failed, or the run is another one
            self._open(history)
        for row in history[self._rows :]:
            for name, value in scalars(row).items():
                self._writer.add_scalar(name, value, row["step"])
        for name, figure in figures.items():
            self._writer.add_figure(name, figure, history[-1]["step"])
        self._writer.flush()
        self._rows = len(history)

    def _open(self, history: Sequence[dict[str, Any]]) -> None:
        """Resumes after the rows that are in the folder, and removes later ones."""
        self._close()
        self._folder.mkdir(parents=True, exist_ok=True)  # someone may have removed it
        with _quiet():
            there = _steps(self._folder) if len(history) > 1 else set()
            last = len(history) - 1  # this row is new, even if the folder has its step
            self._rows = next((i for i, row in enumerate(history[:last]) if row["step"] not in there), last)
            first_step = history[self._rows - 1]["step"] + 1 if self._rows else 0
            self._writer = _summary_writer()(str(self._folder), purge_step=first_step)

    def _project(self, vae: nn.Module, images: Tensor, step: int) -> None:
        """Writes the files of the embedding projector."""
        height, width = images.shape[2:]
        size = max(height, width)
        images = images[: min(PROJECTED, (SPRITE // size) ** 2)]
        labels = None if self._labels is None else self._labels[: len(images)].tolist()
        squares = pad(in_unit_interval(images, images), (0, size - width, 0, size - height))
        for site, z in codes(vae, images).items():
            with _quiet():
                self._writer.add_embedding(z, labels, squares, step, site)

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(Exception):  # it raises its earlier error again
                writer.close()


def _check_labels(labels: Tensor, images: Tensor | None) -> Tensor:
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels are of type {type(labels).__name__}; expected a tensor [n]")
    if images is None:
        raise ValueError("there are labels without images")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels have shape {list(labels.shape)}; expected [{len(images)}], one for each image")
    return labels


def _summary_writer() -> Any:
    with _quiet():
        module = import_extra("torch.utils.tensorboard", "TensorBoard logs need a package", "tensorboard")
    return module.SummaryWriter


def _steps(folder: Path) -> set[int]:
    """The steps of the rows that TensorBoard shows for a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), {"scalars": 0, "images": 1}).Reload()
    return {event.step for event in events.Scalars(LOSS)} if LOSS in events.Tags()["scalars"] else set()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the output, logs and warnings of tensorboard."""
    with quiet("tensorboard"), redirect_stdout(None):
        yield

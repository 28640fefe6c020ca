"""A run of training: its model, its history, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pyro_vae.html_table import WithSummary, html_table
from pyro_vae.training.history_plot import draw_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]


@dataclass
class RunProgress:
    """How far a run is.

    Attributes:
        epoch: The number of epochs that are done.
        batch: The number of batches done in this epoch.
        step: The number of steps that are done.
        loss: The sum of the losses in this epoch.
        rows: The number of their datapoints.
        skipped: The number of steps without an update, because the loss or a gradient was not finite.
        seconds: The time that the run has taken.
        epoch_seconds: The time that this epoch has taken.
        best_epoch: The epoch with the lowest validation loss, from 1; 0 before there is one.
        best_loss: That loss.

    Example:
        >>> run = fit(vae, x, epochs=2, batch_size=4, progress=False)
        >>> run.progress.epoch, run.progress.step
        (2, 4)
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    rows: int = 0
    skipped: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    best_epoch: int = 0
    best_loss: float = float("inf")

    def begin_epoch(self) -> None:
        """Sets the counts of the epoch to zero."""
        self.batch = self.rows = 0
        self.loss = self.epoch_seconds = 0.0


@dataclass(repr=False)
class Run(WithSummary):
    """What :func:`~pyro_vae.fit` returns, and what it calls callbacks with.

    Attributes:
        vae: The VAE that is trained.
        history: A dictionary for each epoch: ``pandas.DataFrame(run.history)`` makes a table of them.
        progress: How far it is.
        epochs: The number of epochs that it takes.
        out: The folder in which it is saved, or None.
        is_done: Whether this was the last epoch.
        settings: The arguments of ``fit`` that say how to train, by name, and fingerprints of the data.

    Example:
        >>> run = fit(vae, x[:6], x[6:], epochs=2, progress=False)
        >>> print(run)
        epochs: 2 of 2
        train loss, nats per datapoint: ...
        valid loss, nats per datapoint: ...
        ...
    """

    vae: nn.Module
    epochs: int
    out: Path | None = None
    history: list[Row] = field(default_factory=list)
    progress: RunProgress = field(default_factory=RunProgress)
    is_done: bool = False
    settings: Row = field(default_factory=dict)

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the lowest validation loss, from 1; None without validation."""
        return self.progress.best_epoch or None

    @property
    def seconds(self) -> float:
        """How long training has taken in all sessions, including validation and saving."""
        return self.progress.seconds

    def summary(self) -> str:
        """How far the run is, its last losses, and its best epoch."""
        return "\n".join(f"{name}: {words}" for name, words in self._rows.items())

    def plot(self) -> Figure:
        """The losses of each epoch and, with validation, rate against distortion."""
        return draw_history(self.history)

    @property
    def _rows(self) -> dict[str, str]:
        """What there is to know, in words, by name."""
        progress = self.progress
        rows = {"epochs": f"{progress.epoch} of {self.epochs}" + ("" if self.is_done else ", not done")}
        for name, value in (self.history[-1] if self.history else {}).items():
            if name.startswith(("train_", "valid_")):
                rows[f"{name.replace('_', ' ')}, nats per datapoint"] = f"{value:.3f}"
        if self.best_epoch is not None:
            rows["best epoch"] = f"{self.best_epoch}, with valid loss {progress.best_loss:.3f}"
        if progress.skipped:
            rows["updates skipped"] = f"{progress.skipped} of {progress.step}, as something was not finite"
        rows["time"] = f"{progress.seconds:.1f} seconds"
        if self.out is not None:
            rows["folder"] = str(self.out)
        return rows

    def __repr__(self) -> str:
        losses = self.history[-1] if self.history else {}
        words = [f"epochs={self.progress.epoch} of {self.epochs}"]
        words += [f"{name}={losses[name]:.3f}" for name in ("train_loss", "valid_loss") if name in losses]
        words += [f"best_epoch={self.best_epoch}"] if self.best_epoch is not None else []
        return f"Run({', '.join(words)}, seconds={self.progress.seconds:.1f}, is_done={self.is_done})"

    def _repr_html_(self) -> str:
        return html_table({"model": type(self.vae).__name__, **self._rows})


Callback = Callable[[Run], Any]

"""A run of training: its model, its history, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

__all__ = ["Callback", "Row", "Run", "RunProgress"]

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


@dataclass
class Run:
    """What :func:`~pyro_vae.fit` returns, and what it calls callbacks with.

    Attributes:
        vae: The VAE that is trained.
        history: A dictionary for each epoch: ``pandas.DataFrame(run.history)`` makes a table of them.
        progress: How far it is.
        epochs: The number of epochs that it takes.
        out: The folder in which it is saved, or None.
        is_done: Whether this was the last epoch.
    """

    vae: nn.Module
    epochs: int
    out: Path | None = None
    history: list[Row] = field(default_factory=list)
    progress: RunProgress = field(default_factory=RunProgress)
    is_done: bool = False

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the lowest validation loss, from 1; None without validation."""
        return self.progress.best_epoch or None

    @property
    def seconds(self) -> float:
        """How long training has taken in all sessions, including validation and saving."""
        return self.progress.seconds


Callback = Callable[[Run], Any]

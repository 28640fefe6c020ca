"""A run of training: how far it is, and what it has seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

__all__ = ["Callback", "Progress", "Row", "Run"]

Row = dict[str, Any]


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: The number of epochs that are done.
        batch: The number of batches of the next one that are done.
        step: The number of steps that are done.
        loss: The sum of their losses in this epoch.
        rows: The number of their datapoints.
        skipped: The number of them that were without an update, since something was not finite.
        seconds: The time that the run has taken, and in this epoch ``epoch_seconds``.
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


@dataclass
class Run:
    """What :func:`~pyro_vae.fit` returns, and what it calls callbacks with.

    Attributes:
        vae: The VAE that is trained.
        history: A row for each epoch, as a dictionary: ``pandas.DataFrame(run.history)`` makes a table of them.
        progress: How far it is.
        epochs: How far it is to go.
        out: The folder that it is kept in, or None.
        is_done: Whether this was the last epoch.
    """

    vae: nn.Module
    epochs: int
    out: Path | None = None
    history: list[Row] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    is_done: bool = False

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the lowest validation loss, from 1; None without validation."""
        return self.progress.best_epoch or None

    @property
    def seconds(self) -> float:
        """How long training has taken, validation and checkpoints included, over all of its sessions."""
        return self.progress.seconds


Callback = Callable[[Run], Any]

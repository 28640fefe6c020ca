"""How far a run is, for those who watch it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pyro_vae.training.run import Run

__all__ = ["describe_row", "progress_bar"]

SECONDS = 0.2


@contextmanager
def progress_bar(run: Run, batches: int | None, shown: bool) -> Iterator[Callable[[], None]]:
    """A bar on the standard error, if that is a terminal or a notebook. Gives what to call at every step."""
    console = Console(stderr=True)
    if not shown or not (console.is_terminal or console.is_jupyter):
        yield lambda: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=run.epochs)
        last = 0.0

        def show() -> None:
            nonlocal last
            if time.monotonic() - last < SECONDS:
                return
            last = time.monotonic()
            part = run.progress.batch / batches if batches else 0.0
            bar.update(task, completed=run.progress.epoch + part, description=describe_row(run))

        yield show


def describe_row(run: Run) -> str:
    """The last epoch that was done, in a line."""
    if not run.history:
        return f"epoch 1/{run.epochs}"
    row = run.history[-1]
    words = [f"epoch {row['epoch']}/{run.epochs}", f"loss {row['train_loss']:.2f}"]
    words += [f"valid {row['valid_loss']:.2f}"] if "valid_loss" in row else []
    return "  ".join([*words, f"{row['datapoints_per_second']:,.0f}/s"])

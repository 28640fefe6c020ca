"""How far a run is, for those who watch it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pyro_vae.processes import Processes
from pyro_vae.training.run import Run

__all__ = ["describe_row", "progress_bar"]

SECONDS = 0.2


@contextmanager
def progress_bar(run: Run, batches: Callable[[], int | None], shown: bool) -> Iterator[Callable[[], None]]:
    """Shows progress: a bar on a terminal, or in a notebook with ``ipywidgets``; elsewhere a line for each epoch.

    Args:
        run: The run.
        batches: How many an epoch has, if that is known.
        shown: Whether to show it; only the first process does.

    Yields:
        What to call after every step, and after every epoch.
    """
    if not shown or not Processes(torch.device("cpu")).is_first:
        yield lambda: None
        return
    console = Console(stderr=True)
    has_bar = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    if not has_bar:
        yield _lines(run)
        return
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    # In a notebook the last line stays.
    with Progress(*columns, console=console, transient=not console.is_jupyter) as bar:
        task = bar.add_task(describe_row(run), total=run.epochs)
        last = 0.0

        def update() -> None:
            progress, all_batches = run.progress, batches()
            part = min(1.0, progress.batch / all_batches) if all_batches else 0.0
            bar.update(task, completed=progress.epoch + part, description=describe_row(run))

        def show() -> None:
            nonlocal last
            if time.monotonic() - last > SECONDS:
                last = time.monotonic()
                update()

        try:
            yield show
        finally:
            update()


def _lines(run: Run) -> Callable[[], None]:
    done = len(run.history)

    def show() -> None:
        nonlocal done
        if len(run.history) > done:
            done = len(run.history)
            print(describe_row(run), file=sys.stderr, flush=True)

    return show


def describe_row(run: Run) -> str:
    """The last epoch that was done, in a line; in the first one, its loss so far."""
    if not run.history:
        progress = run.progress
        so_far = f"  loss {progress.loss / progress.rows:.2f} so far" if progress.rows else ""
        return f"epoch 1/{run.epochs}{so_far}"
    row = run.history[-1]
    words = [f"epoch {row['epoch']}/{run.epochs}", f"loss {row['train_loss']:.2f}"]
    words += [f"valid {row['valid_loss']:.2f}"] if "valid_loss" in row else []
    return "  ".join([*words, f"{row['datapoints_per_second']:,.0f}/s"])

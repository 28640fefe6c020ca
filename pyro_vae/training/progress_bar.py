"""The progress of a run, on the screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import rich.progress
from rich.console import Console

from pyro_vae.processes import is_first_process
from pyro_vae.system.progress import Progress
from pyro_vae.training.run import Run

SECONDS = 0.2


def epochs_left(run: Run, progress: Progress) -> Iterable[int]:
    """The epochs that are left of a run, from 0; in the first process wrapped by ``progress`` if that is a function."""
    epochs = range(run.progress.epoch, run.progress.epoch if run.is_done else run.epochs)
    return epochs if isinstance(progress, bool) or not is_first_process() else progress(epochs)


@contextmanager
def progress_bar(run: Run, batches: Callable[[], int | None], progress: Progress) -> Iterator[Callable[[], None]]:
    """Shows progress: a bar on a terminal, or in a notebook with ``ipywidgets``; elsewhere a line for each epoch.

    Args:
        run: The run.
        batches: Returns the number of batches in an epoch, if it is known.
        progress: Only True shows something, and only in the first process.

    Yields:
        A function to call after every step, and after every epoch.
    """
    if progress is not True or not is_first_process():
        yield lambda: None
        return
    console = Console(stderr=True)
    has_bar = find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    if not has_bar:
        yield _lines(run)
        return
    text = rich.progress.TextColumn("{task.description}")
    columns = text, rich.progress.BarColumn(), rich.progress.TimeRemainingColumn()
    # In a notebook the last line stays.
    with rich.progress.Progress(*columns, console=console, transient=not console.is_jupyter) as bar:
        task = bar.add_task(describe_row(run), total=run.epochs)
        last = 0.0

        def update() -> None:
            num_batches = batches()
            part = min(1.0, run.progress.batch / num_batches) if num_batches else 0.0
            bar.update(task, completed=run.progress.epoch + part, description=describe_row(run))

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
    """The last epoch in one line; during the first epoch, its loss so far."""
    if not run.history:
        progress = run.progress
        so_far = f"  loss {progress.loss / progress.rows:.2f} so far" if progress.rows else ""
        return f"epoch 1/{run.epochs}{so_far}"
    row = run.history[-1]
    words = [f"epoch {row['epoch']}/{run.epochs}", f"loss {row['train_loss']:.2f}"]
    words += [f"valid {row['valid_loss']:.2f}"] if "valid_loss" in row else []
    return "  ".join([*words, f"{row['datapoints_per_second']:,.0f}/s"])

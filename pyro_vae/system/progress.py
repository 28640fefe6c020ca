"""Progress bars: the meaning of ``progress=`` in all functions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import rich.progress
from rich.console import Console
from torch import Tensor

#: True shows a bar, False shows nothing; a function wraps what is iterated over, as ``tqdm.tqdm`` does.
Progress = bool | Callable[[Sequence[Any]], Iterable[Any]]


def shown(progress: Progress, items: Sequence[Any], description: str) -> Iterable[Any]:
    """The items, with a progress bar while they are iterated over.

    The bar is on the standard error if that is a terminal or a notebook, and is removed at the end. After the first
    item it shows an estimate of the total time.

    Args:
        progress: Whether to show a bar, or a function that wraps the items.
        items: Blocks of datapoints, or numbers of steps.
        description: The text of the bar.
    """
    if not isinstance(progress, bool):
        return progress(items)
    console = Console(stderr=True)
    return _bar(items, description, console) if progress and (console.is_terminal or console.is_jupyter) else items


def _bar(items: Sequence[Any], description: str, console: Console) -> Iterator[Any]:
    sizes = [len(item) if isinstance(item, Tensor) else 1 for item in items]
    total, done, start = sum(sizes), 0, time.monotonic()
    with rich.progress.Progress(console=console, transient=True) as bar:
        task = bar.add_task(description, total=total)
        for item, size in zip(items, sizes, strict=True):
            yield item
            done += size
            seconds = (time.monotonic() - start) * total / done
            bar.update(task, completed=done, description=f"{description}, about {seconds:.0f} s in all")

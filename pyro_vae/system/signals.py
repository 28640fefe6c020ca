"""Ctrl-C and SIGTERM, taken when it suits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["signals_noted"]


@contextmanager
def signals_noted(note: Callable[[int], None]) -> Iterator[None]:
    """Calls ``note`` with the number of the first SIGINT or SIGTERM that comes; the next one does what it always does.

    Outside of the main thread, where Python takes no signals, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    process = os.getpid()

    def handle(number: int, _: Any) -> None:
        restore()
        if os.getpid() == process:
            note(number)
        else:  # a worker of a data loader, say, that was forked: this is none of its business
            os.kill(os.getpid(), number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()

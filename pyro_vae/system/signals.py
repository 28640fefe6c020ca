"""Ctrl-C and SIGTERM, noted for later instead of raised at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def signals_noted(note: Callable[[int], None]) -> Iterator[None]:
    """Calls ``note`` with the number of the first SIGINT or SIGTERM; the next one has its usual effect.

    Outside of the main thread it does nothing, since Python handles signals only there.
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
        else:  # a forked process, such as a worker of a data loader, which has the usual handlers
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

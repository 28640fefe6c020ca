"""New processes that have imported the package already: copies of one that has. An import takes seconds.

This module and those that it names are imported there, so they import no pytest.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

IMPORTED = ["arviz", "every_estimator", "new_process", "train_together", "train_until_killed"]


def start(context: ForkServerContext, output: Path, function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """A process that calls a function, and writes what it prints to ``output.stdout`` and ``output.stderr``."""
    process = context.Process(target=_printing_to, args=(output, function, arguments))
    process.start()
    return process


def of_two(context: ForkServerContext, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in the first of two processes that ``torchrun`` could have started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, processes = [], []
    for rank in range(2):
        here, there = context.Pipe()
        processes.append(context.Process(target=_as_rank, args=(rank, port, there, function, arguments)))
        processes[-1].start()
        there.close()
        pipes.append(here)
    try:
        results = []
        for pipe in pipes:
            result, error = pipe.recv() if pipe.poll(240) else (None, "it has not ended within four minutes")
            assert error is None, error
            results.append(result)
    except BaseException:
        for process in processes:  # one would wait for the other
            process.kill()
        raise
    finally:
        for process in processes:
            process.join()
    return results[0]


def script(path: Path, *arguments: Any) -> None:
    """Runs a script as ``python path arguments`` does."""
    sys.argv = [str(path), *map(str, arguments)]
    runpy.run_path(str(path), run_name="__main__")


def _printing_to(output: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with output.with_suffix(f".{name}").open("w") as file:
            os.dup2(file.fileno(), descriptor)
    function(*arguments)


def _as_rank(rank: int, port: int, pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    try:
        pipe.send((function(*arguments), None))
    except BaseException:
        pipe.send((None, traceback.format_exc()))
        raise

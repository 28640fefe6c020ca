"""A lock on the file or folder of a run, so that no other run writes there at the same time."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]  # typed as a module, and checked for None before use

_descriptors: set[int] = set()  # of the locks that this process holds


@contextmanager
def locked(path: Path, lend: bool = False) -> Iterator[None]:
    """Locks the path for this process by a lock on a small file, which the system releases if the process dies.

    The lock file is in the folder, or beside the file. If the system or the file system does not support locks, there
    is no lock.

    Args:
        path: A folder that exists, or a file, which need not exist.
        lend: Whether functions called by this thread, and child processes of this process, may lock the path again.

    Raises:
        OSError: If another run holds the lock; the message names its process.
    """
    descriptor = _lock(path, lend)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                _side_file(path).unlink(missing_ok=True)  # while locked: no other process has it then
            _descriptors.discard(descriptor)
            os.close(descriptor)


def _side_file(path: Path) -> Path:
    return path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")


def _lock(path: Path, lend: bool) -> int | None:
    side = _side_file(path)
    while fcntl is not None:
        try:
            descriptor = os.open(side, os.O_CREAT | os.O_RDWR, 0o666)
        except OSError:  # no such folder, or not writable: the write itself will report it
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(side)):  # else its holder has removed it
                    _write(descriptor, lend)
                    _descriptors.add(descriptor)
                    return descriptor
        except BlockingIOError as error:
            holder = _read(descriptor)
            os.close(descriptor)
            if _lends(holder):
                return None
            raise OSError(f"{str(path)!r} is in use by another run, {_in_words(holder)}") from error
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
        os.close(descriptor)
    return None


def _write(descriptor: int, lend: bool) -> None:
    """Writes the holder of the lock to the file; if the disk is full, the lock works without this."""
    holder = {"host": socket.gethostname(), "process": os.getpid(), "thread": threading.get_ident(), "lend": lend}
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _read(descriptor: int) -> dict[str, Any]:
    try:
        holder = dict(json.loads(os.pread(descriptor, 4096, 0)))
    except (OSError, ValueError, TypeError):  # its holder has not written it yet
        return {}
    return holder if holder.keys() >= {"host", "process", "thread", "lend"} else {}


def _lends(holder: dict[str, Any]) -> bool:
    """Whether the holder of the lock is this thread or the parent of this process, and lends it."""
    if not holder or not holder["lend"] or holder["host"] != socket.gethostname():
        return False
    here = os.getpid(), threading.get_ident()
    return (holder["process"], holder["thread"]) == here or holder["process"] == os.getppid()


def _in_words(holder: dict[str, Any]) -> str:
    if not holder:
        return "which has just started"
    if holder["host"] != socket.gethostname():
        return f"process {holder['process']} on {holder['host']}"
    return f"process {holder['process']}" + (" (this one)" if holder["process"] == os.getpid() else "")


def _close_in_child() -> None:
    """Closes the lock files in a forked worker, which would otherwise hold the locks after its parent has died."""
    for descriptor in _descriptors:
        with suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)

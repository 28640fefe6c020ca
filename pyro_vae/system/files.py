"""Atomic writes."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pyro_vae.system.signals import signals_noted


def replace(path: Path, data: bytes) -> None:
    """Writes a file atomically: the old file is replaced when the new one is on disk, so it is complete at any time.

    Raises:
        OSError: If it cannot be written; the old file is unchanged.
    """
    replace_all({path: data})


def replace_all(contents: Mapping[Path, bytes], obsolete: Iterable[Path] = ()) -> None:
    """Writes several files, all or none: no old file is replaced before all new ones are on disk.

    Ctrl-C waits while the files get their names.

    Args:
        contents: What to write, by path.
        obsolete: Files to delete, if they exist, as soon as the new ones have their names.

    Raises:
        OSError: If one of them cannot be written; the old files are unchanged.
    """
    new = {path: path.with_name(f".{path.name}.new") for path in contents}
    signals: list[int] = []
    try:
        for path, data in contents.items():
            with _naming(path):
                _write(new[path], data)
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with signals_noted(signals.append):
            for path in contents:
                with _naming(path):
                    new[path].replace(path)
            for path in obsolete:
                with _naming(path):
                    path.unlink(missing_ok=True)
    except BaseException:  # also Ctrl-C, which must not leave a partial file
        for path in new.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)
    for number in signals:
        signal.raise_signal(number)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Names the file in errors of the system."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def writable_folder(path: str | Path) -> Path:
    """Creates the folder if it does not exist, and checks that files can be written to it. ``~`` is the home folder.

    Raises:
        OSError: If they cannot; the message names the folder.
    """
    path = Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"cannot write to the folder {str(path)!r}: {error.strerror or error}") from error
    return path


def _sync_folder(folder: Path) -> None:
    """Writes the new name of a file to disk too, if the system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

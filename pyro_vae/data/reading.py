"""Errors of files that cannot be read, in one sentence that names the file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

#: The extra of the package that has what reads such files, by the name of the module that is missing.
EXTRAS = {
    "h5py": "files", "zarr": "files", "datasets": "files", "anndata": "counts", "scipy": "counts",
    "pyarrow": "tables", "openpyxl": "tables",
}  # fmt: skip


class RefusedError(ValueError):
    """A file is refused, and the message says why; :func:`reading` does not change it."""


@contextmanager
def reading(path: Path, what: str = "data file") -> Iterator[None]:
    """Wraps a library's functions that read a file, so that each error names the file.

    Raises:
        OSError: If the operating system refuses to read the file.
        ModuleNotFoundError: If a package is not installed.
        ValueError: If the file is damaged, or of another format.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # those of libraries about the file are of no use to the user
            yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0] or next((each for each in EXTRAS if each in str(error)), "")
        how = f"pip install 'pyro-vae[{EXTRAS[package]}]'" if package in EXTRAS else f"pip install {package}"
        raise ModuleNotFoundError(f"to read {str(path)!r}, install {package}: {how}", name=package) from error
    except (MemoryError, RefusedError):
        raise
    except Exception as error:  # libraries do not document what they raise for invalid files
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = "it is empty" if path.is_file() and path.stat().st_size == 0 else reason(error)
        raise ValueError(f"the {what} {str(path)!r} cannot be read: {why}") from error


def reason(error: Exception) -> str:
    """Why a file cannot be read. The library's own message is not shown: it may advise to execute pickled objects."""
    if isinstance(error, UnpicklingError) or any(word in str(error) for word in ("pickle", "Python objects")):
        return "it has pickled Python objects, which may run any code when loaded; expected arrays of numbers"
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    return "it is missing" if isinstance(error, KeyError) else "it is damaged, or in another format than its name says"

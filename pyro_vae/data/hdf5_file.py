"""Reads arrays from HDF5 files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyro_vae.data.reading import RefusedError


@contextmanager
def open_hdf5(path: Path) -> Iterator[dict[str, Any]]:
    """The data sets of a file by their paths in it, such as ``group/images``; their values are read when asked for.

    Raises:
        ImportError: If h5py is not installed.
        Exception: Whatever h5py raises if the file cannot be read.
        RefusedError: If pandas wrote the file, because its arrays are not a table.
    """
    import h5py

    arrays: dict[str, Any] = {}

    def add(name: str, item: Any) -> None:
        if "pandas_type" in item.attrs:
            raise RefusedError(f"the data file {str(path)!r} has a table of pandas; save it as .parquet or .csv")
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            arrays[name] = item

    with h5py.File(path, "r") as file:
        file.visititems(add)
        yield arrays

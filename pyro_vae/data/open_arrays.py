"""Opens files of arrays, each by its own library, without executing anything in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.formats import ARRAYS
from pyro_vae.data.hdf5_file import open_hdf5
from pyro_vae.data.npy_file import open_npy
from pyro_vae.data.npz import open_npz
from pyro_vae.data.reading import reading
from pyro_vae.data.zarr_folder import open_zarr
from pyro_vae.programs.arrays import as_tensor

#: Of these files, rows can be read without the others.
BY_ROWS = (".npy", ".h5", ".hdf5", ".zarr", "")


@contextmanager
def open_pt(path: Path) -> Iterator[dict[str, Any]]:
    """The tensor of a file, or the dictionary of tensors, in memory."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    yield content if isinstance(content, dict) else {"array": content}


OPENERS: dict[str, Callable[[Path], AbstractContextManager[Mapping[str, Any]]]] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".pt": open_pt,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".zarr": open_zarr,
    "": open_zarr,  # a folder
}


@contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of a file by name, each with ``shape``, ``dtype`` and values that are read when asked for.

    Raises:
        OSError: If the file cannot be read.
        ModuleNotFoundError: If a package that reads such files is not installed.
        ValueError: If it is damaged, or of an unknown format.
    """
    suffix = path.suffix.lower()
    if suffix not in OPENERS:
        raise ValueError(f"the data file {str(path)!r} has an unknown format; expected one of {', '.join(ARRAYS)}")
    if not path.is_dir():
        path.open("rb").close()  # errors of the operating system have other types in some libraries
    with ExitStack() as stack:
        with reading(path):
            arrays = stack.enter_context(OPENERS[suffix](path))
        yield arrays


def read_tensor(path: Path, name: str, array: Any, rows: Any = ...) -> Tensor:
    """The values of an array in an open file, or some of its rows, as they are in the file.

    Raises:
        OSError: If they cannot be read.
        ValueError: If they are damaged, or not numbers.
    """
    expected = f"{name} of the data file {str(path)!r} is not an array of numbers"
    array = array if hasattr(array, "shape") else np.array(array, dtype=None if isinstance(array, list) else object)
    if getattr(array.dtype, "kind", "f") not in "biufc":  # torch's dtypes have no kind
        raise ValueError(expected)
    with reading(path):
        values = array if isinstance(array, Tensor) else np.asarray(array[rows])
    try:
        tensor = as_tensor(values)
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise TypeError("it is sparse, quantized or a meta tensor")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(expected) from error
    return tensor

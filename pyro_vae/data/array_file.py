"""An array in a file, whose rows are read when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_vae.data.choose_arrays import choose_arrays
from pyro_vae.data.exact import check_exact
from pyro_vae.data.from_file import check_data, check_labels
from pyro_vae.data.layout import Layout
from pyro_vae.data.open_arrays import BY_ROWS, open_arrays, read_tensor
from pyro_vae.system.memory import return_freed_memory_in_workers

ROWS, NUMBERS = 200, 2**22  # that are looked at, to find the layout


class ArrayFile(Dataset[Tensor]):
    """The rows of an array in a file .npy, .h5 or .hdf5, or in a Zarr folder, each ``[*event]``.

    Rows are read from the file when they are asked for, so that an array larger than memory can be trained on::

        images = data.ArrayFile("images.h5")
        fit(vae, DataLoader(images, 64, shuffle=True, num_workers=2))

    Bytes are divided by 255, all other numbers become floats. Channels that are last become first. Shuffled rows of a
    compressed file are fast only if its chunks have few rows.

    Args:
        path: The file.
        array: The name of the array, if the file has several.
        labels: The name of the array with the labels, by default labels or label if there is one.

    Attributes:
        labels: The labels, ``[n]``; None if there are none.
        shape: The shape of one row as it is returned.

    Raises:
        OSError: If the file cannot be read.
        ModuleNotFoundError: If a package that reads such files is not installed.
        ValueError: If it is damaged, or its content is not as expected.

    Example:
        >>> import numpy as np
        >>> np.save("x.npy", np.zeros((5, 8, 12, 3), dtype=np.uint8))
        >>> pyro_vae.data.ArrayFile("x.npy")
        ArrayFile(5 x [3, 8, 12])
    """

    def __init__(self, path: str | Path, array: str | None = None, labels: str | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in BY_ROWS:
            raise ValueError(
                f"rows of {str(path)!r} cannot be read without the others; expected one of {', '.join(BY_ROWS[:-1])}"
            )
        with open_arrays(self.path) as content:
            names = choose_arrays(self.path, content, array, labels)
            self.array = names["train"]
            chosen = content[self.array]
            check_data(self.path, self.array, chosen)
            self._length = chosen.shape[0]
            step = -(-self._length // max(1, min(ROWS, NUMBERS // prod(chosen.shape[1:]))))
            rows = read_tensor(self.path, self.array, chosen, np.arange(0, self._length, step))
            self.labels: Tensor | None = None
            if "train_labels" in names:
                self.labels = read_tensor(self.path, names["train_labels"], content[names["train_labels"]])
                check_labels(self.path, {"train": self, "train_labels": self.labels}, names)
        check_exact(f"{self.array} of the data file {str(path)!r}", rows)
        self._layout = Layout.of(rows)
        self.shape = tuple(self._layout(rows[:1]).shape[1:])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Tensor:
        """The row at this place, ``[*event]``."""
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """The rows at these places."""
        return_freed_memory_in_workers()
        return list(self.tensor(indices))

    def tensor(self, indices: Iterable[int] | None = None) -> Tensor:
        """All rows, or some, ``[n, *event]``, in memory."""
        chosen = range(len(self)) if indices is None else indices
        rows, places = np.unique(np.fromiter(chosen, dtype=np.int64), return_inverse=True)  # as HDF5 wants them
        # Opened for each batch: a file that stays open cannot be shared by processes, and memory-mapped pages stay.
        with open_arrays(self.path) as content:
            x = read_tensor(self.path, self.array, content[self.array], rows)
        return self._layout(x[torch.from_numpy(places)])

    def __repr__(self) -> str:
        return f"ArrayFile({len(self)} x {list(self.shape)})"

"""Sparse counts: only the rows of a batch are made dense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_vae.data.h5ad_file import read_h5ad
from pyro_vae.data.reading import reading
from pyro_vae.system.memory import return_freed_memory_in_workers


class SparseCounts(Dataset[Tensor]):
    """The rows of a sparse matrix of SciPy, each ``[features]``, as floats when they are asked for.

    Args:
        matrix: A sparse matrix or array ``[n, features]`` of counts, of any format.

    Attributes:
        shape: The shape of one row, ``(features,)``.

    Raises:
        TypeError: If it is not a sparse matrix.
        ValueError: If it is empty, or a value is not a count.

    Example:
        >>> from scipy import sparse
        >>> pyro_vae.data.SparseCounts(sparse.csr_array([[0, 3], [1, 0]]))[0]
        tensor([0., 3.])
    """

    def __init__(self, matrix: Any) -> None:
        if not hasattr(matrix, "tocsr") or matrix.ndim != 2:
            raise TypeError(f"matrix is of type {type(matrix).__name__}; expected a sparse matrix of SciPy")
        if 0 in matrix.shape:
            raise ValueError(f"matrix has shape {list(matrix.shape)}; expected at least one row and one column")
        self.matrix = matrix.tocsr()
        self.matrix.sum_duplicates()
        self.shape = self.matrix.shape[1:]
        values = self.matrix.data
        wrong = ~((values >= 0) & (values % 1 == 0))
        if wrong.any():
            place = int(wrong.nonzero()[0][0])
            row = int(np.searchsorted(self.matrix.indptr, place, side="right")) - 1
            raise ValueError(
                f"the sparse matrix has {int(wrong.sum())} values that are not counts: the first is {values[place]} in "
                f"row {row}, column {int(self.matrix.indices[place])}"
            )

    @classmethod
    def read(cls, path: str | Path, layer: str | None = None) -> SparseCounts:
        """Reads a file of ``scipy.sparse.save_npz`` or, if anndata is installed, the counts of an ``.h5ad`` file.

        Args:
            path: The file.
            layer: The name of the layer of an ``.h5ad`` file that has the counts; by default ``X``.

        Raises:
            OSError: If the file cannot be read.
            ModuleNotFoundError: If a package that reads such files is not installed.
            ValueError: If it is damaged, or not such a file, or a value is not a count.
        """
        path = Path(path)
        if path.suffix.lower() == ".h5ad":
            return cls(read_h5ad(path, layer)[0])
        path.open("rb").close()
        with reading(path, "sparse matrix"):
            from scipy import sparse

            matrix = sparse.load_npz(path)
        return cls(matrix)

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        """The row at this place, ``[features]``."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """The rows at these places: one look-up for a whole batch."""
        return_freed_memory_in_workers()
        return list(self.tensor(indices))

    def tensor(self, indices: Iterable[int] | None = None) -> Tensor:
        """All rows, or some, ``[n, features]``, in memory."""
        matrix = self.matrix if indices is None else self.matrix[list(indices)]
        return torch.from_numpy(matrix.toarray()).float()

    def __repr__(self) -> str:
        filled = self.matrix.nnz / (self.matrix.shape[0] * self.matrix.shape[1])
        return f"SparseCounts({self.matrix.shape[0]} x {self.matrix.shape[1]}, {filled:.1%} not zero)"

"""Reads counts of genes and the labels of cells from .h5ad files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vae.data.class_numbers import class_numbers
from pyro_vae.data.reading import reading


def read_h5ad(
    path: Path, layer: str | None = None, labels: str | None = None
) -> tuple[Any, Tensor | None, tuple[str, ...]]:
    """Reads a file of anndata.

    Args:
        path: The file.
        layer: The name of a layer; by default the matrix ``X``.
        labels: The column of ``obs`` with labels.

    Returns:
        A sparse matrix ``[n, features]``, the labels 0, 1, ..., ``[n]``, of a cell without a label -1, and their names.

    Raises:
        OSError: If the file cannot be read.
        ModuleNotFoundError: If anndata is not installed.
        ValueError: If the file is damaged, has no such layer or column, or its values are not counts.
    """
    path.open("rb").close()
    with reading(path):
        import anndata

        content = anndata.read_h5ad(path)
        from scipy import sparse
    names = [name for name in content.layers if name is not None]  # None is X, from anndata 0.13 on
    layers = ", ".join(names) or "none"
    if layer is not None and layer not in names:
        raise ValueError(f"array is {layer!r}; the data file {str(path)!r} has the layers {layers}")
    if labels is not None and labels not in content.obs:
        raise ValueError(f"labels is {labels!r}; obs of the data file {str(path)!r} has {', '.join(content.obs)}")
    matrix = content.X if layer is None else content.layers[layer]
    if matrix is None:
        raise ValueError(f"the data file {str(path)!r} has no X; choose a layer with array=NAME; its layers: {layers}")
    matrix = sparse.csr_array(matrix)
    if not ((matrix.data >= 0) & (matrix.data % 1 == 0)).all():
        raise ValueError(
            f"{'X' if layer is None else layer} of the data file {str(path)!r} has values that are not counts; choose "
            f"a layer of counts with array=NAME; its layers: {layers}"
        )
    if labels is None:
        return matrix, None, ()
    return matrix, *class_numbers(content.obs[labels])

"""ArviZ before and after 1.0, imported at its first use, since the import takes seconds."""

from __future__ import annotations

import warnings
from typing import Any


def import_arviz() -> tuple[Any, bool]:
    """The module, and whether it is of version 1 or later."""
    # arviz 0.23 announces its next version at every import.
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        import arviz
    return arviz, int(arviz.__version__.split(".")[0]) >= 1


def arviz_data(
    groups: dict[str, dict[str, Any]],
    dims: dict[str, list[str]] | None = None,
    coords: dict[str, Any] | None = None,
) -> Any:
    """An ``InferenceData`` (ArviZ before 1.0) or a ``DataTree`` of groups of arrays.

    Args:
        groups: Arrays by name, by group: ``[chain, draw, ...]``, in a group of data ``[...]``.
        dims: The names of the dimensions after chain and draw.
        coords: The values of dimensions, by name.
    """
    arviz, is_new = import_arviz()
    if is_new:
        return arviz.from_dict(groups, dims=dims, coords=coords)
    return arviz.from_dict(**groups, dims=dims, coords=coords)

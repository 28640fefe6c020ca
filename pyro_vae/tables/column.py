"""One column of a table: its kind, and its values as numbers and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pyro_vae.checks import check_choice, check_positive
from pyro_vae.likelihoods import columns
from pyro_vae.nn.kind import Kind

_INTEGERS = [f"{sign}nt{bits}" for sign in ("i", "ui") for bits in (8, 16, 32, 64)]
_NULLABLE = {"bool": "boolean"} | {name: name.replace("u", "U").replace("i", "I") for name in _INTEGERS}

#: The kinds, by name. The last means that the column is left out.
KINDS = ("real", "positive", "count", "binary", "categorical", "ordinal", "drop")


@dataclass(frozen=True)
class Column:
    """How the values of one column become numbers.

    Attributes:
        name: The name of the column.
        kind: One of ``KINDS``.
        dtype: The dtype that the column has in a frame.
        why: Why it was taken to be of this kind.
        categories: For binary, categorical and ordinal columns, the values that the numbers 0, 1, ... stand for.
        center: For numbers, the mean that standardizes them or their logarithms.
        scale: For numbers, the standard deviation that standardizes them or their logarithms.
        shared: For numbers, whether the noise has one scale for all datapoints, rather than one that depends on z.
    """

    name: str
    kind: str
    dtype: str
    why: str = ""
    categories: tuple[Any, ...] = ()
    center: float = 0.0
    scale: float = 1.0
    shared: bool = False

    def __post_init__(self) -> None:
        """Checks a description, which may come from a file.

        Raises:
            ValueError: If the kind is not one of ``KINDS``, or its categories or scales are invalid.
        """
        check_choice(f"the kind of column {self.name!r}", self.kind, KINDS)
        least = {"binary": 2, "categorical": 2, "ordinal": 2}.get(self.kind, 0)
        if len(self.categories) < least:
            raise ValueError(f"column {self.name!r} has {len(self.categories)} categories; expected at least {least}")
        if not math.isfinite(self.center):
            raise ValueError(f"the center of column {self.name!r} is {self.center!r}; expected a finite number")
        check_positive(f"the scale of column {self.name!r}", self.scale)

    def module(self) -> Kind:
        """The kind as a module, for ``likelihoods.Columns`` and ``nn.ColumnFeatures``."""
        if self.kind == "binary":
            return columns.Binary()
        if self.kind in ("categorical", "ordinal"):
            return {"categorical": columns.Categorical, "ordinal": columns.Ordinal}[self.kind](len(self.categories))
        kinds = {"real": columns.Real, "positive": columns.Positive, "count": columns.Count}
        return kinds[self.kind](self.center, self.scale, shared=self.shared)

    def numbers(self, values: pd.Series) -> np.ndarray:
        """The values as numbers ``[n]``, NaN where they are missing.

        Raises:
            ValueError: If a value is invalid in this column.
        """
        missing = values.isna().to_numpy()
        if self.categories:
            places = {value: i for i, value in enumerate(self.categories)}
            found = [math.nan if gone else places.get(value, -1) for value, gone in zip(values, missing, strict=True)]
            numbers = np.array(found, dtype=np.float64)
            self._refuse(numbers == -1, values, f"expected one of {_short(self.categories)}")
            return numbers
        if values.dtype == object or isinstance(values.dtype, pd.StringDtype):
            numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
            self._refuse(np.isnan(numbers) & ~missing, values, "expected a number")
        else:
            numbers = values.to_numpy(np.float64, na_value=np.nan, copy=True)  # pandas 3 has arrays that are read-only
        self._refuse(np.isinf(numbers), values, "expected a finite number")
        if self.kind == "positive":
            self._refuse(numbers <= 0, values, "expected a positive number")
        if self.kind == "count":
            self._refuse((numbers < 0) | ((numbers % 1 != 0) & ~missing), values, "expected a count 0, 1, 2, ...")
        return numbers

    def values(self, numbers: np.ndarray) -> pd.Series:
        """The numbers ``[n]`` as values of the dtype that the column had; NaN becomes a missing value."""
        missing = np.isnan(numbers)
        if self.categories:
            index = np.where(missing, -1, np.rint(numbers).clip(0, len(self.categories) - 1)).astype(int)
            found = [None if i < 0 else self.categories[i] for i in index]
            if self.dtype == "category":
                kind = pd.CategoricalDtype(list(self.categories), ordered=self.kind == "ordinal")
                return pd.Series(found, dtype=kind, name=self.name)
            values = pd.Series(found, dtype=object, name=self.name)
        else:
            is_integer = self.kind == "count" or pd.api.types.is_integer_dtype(self.dtype)
            values = pd.Series(np.rint(numbers) if is_integer else numbers, name=self.name)
        return values.astype(_NULLABLE.get(self.dtype, self.dtype) if missing.any() else self.dtype)

    def _refuse(self, wrong: np.ndarray, values: pd.Series, expected: str) -> None:
        if wrong.any():
            row = int(wrong.nonzero()[0][0])
            first = values.tolist()[row]
            raise ValueError(
                f"column {self.name!r} ({self.kind}) has {int(wrong.sum())} invalid values: the first is {first!r} in "
                f"row {row}; {expected}"
            )


def _short(values: tuple[Any, ...]) -> str:
    shown = ", ".join(map(repr, values[:8]))
    return f"{shown}, ... ({len(values)} in all)" if len(values) > 8 else shown

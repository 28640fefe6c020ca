"""Finds the kind of a column of a data frame by its dtype and its values."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from pyro_vae.checks import check_choice
from pyro_vae.system.warning import warn
from pyro_vae.tables.column import KINDS, Column

DATES = ("datetime64", "datetime", "date", "timedelta64", "timedelta", "time", "period", "interval")
_DAY = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
_DAY_IN_WORDS = r"\d{1,2}[- ][A-Za-z]{3,9}[- ,]+\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4}"
DATE_WORDS = rf"(({_DAY}|{_DAY_IN_WORDS})([ T]\d{{1,2}}:\d{{2}}.*)?|\d{{1,2}}:\d{{2}}(:\d{{2}}.*)?)$"
# Such as 1,234.5 or 12,5 % or 3 EUR.
NUMBER_WORDS = r"\s*[-+$€£]?\s*\d{1,3}([., ']?\d{3})*([.,]\d+)?\s*([%$€£]|\s[A-Za-z]{1,4})?\s*$"
CODES = (-9999, -999, -99, 999, 9999, 99999)  # that tables often have for missing values
MOST_CATEGORIES = 50  # a column with more different words is a text or a name, unless the user says otherwise
MOST_LEVELS = 10  # up to this number of different integers are ordered categories
ROWS_FOR_LEVEL = 20  # with this many rows for each integer, missing integers are not due to chance
LARGE = 20  # integers with a larger mean are modelled as real numbers, unless there are zeros and they are skewed
ROWS_FOR_IDS = 20
ROWS_FOR_SCALES = 5000  # with fewer rows, a scale of the noise that depends on z overfits
ROWS_FOR_TWO = 10  # with fewer rows, two different numbers may be chance


def find_column(values: pd.Series, kind: str | None = None) -> Column:
    """Finds the kind of a column, and what its values are standardized by.

    Args:
        values: The column.
        kind: Its kind, if that is known.

    Raises:
        ValueError: If the kind is not one of ``KINDS``, the values do not have it, or the kind cannot be told.
    """
    name, known = str(values.name), _plain(values.dropna())
    if kind is not None:
        check_choice(f"the kind of column {name!r}", kind, KINDS)
    if kind == "drop":
        return Column(name, "drop", str(values.dtype), "as chosen")
    if known.empty:
        raise ValueError(f"column {name!r} has no values: all are missing; give it the kind drop")
    found, why = (kind, "as chosen") if kind is not None else _kind(name, known)
    if found == "drop":
        return Column(name, "drop", str(values.dtype), why)
    if found in ("binary", "categorical", "ordinal"):
        categories = _categories(name, known, found)
        return Column(name, found, str(values.dtype), why, categories)
    column = Column(name, found, str(values.dtype), why)
    numbers = column.numbers(known)
    numbers = np.log(numbers) if found == "positive" else np.log1p(numbers) if found == "count" else numbers
    spread = float(numbers.std())
    shared = len(known) < ROWS_FOR_SCALES
    return Column(name, found, str(values.dtype), why, (), float(numbers.mean()), spread if spread > 0 else 1.0, shared)


def _kind(name: str, known: pd.Series) -> tuple[str, str]:
    problem = _problem(known)
    if problem:
        raise ValueError(f"column {name!r} has {problem}")
    unique = known.nunique()
    if isinstance(known.dtype, pd.CategoricalDtype):
        return ("ordinal", "an ordered category") if known.cat.ordered else ("categorical", "a category")
    if pd.api.types.is_bool_dtype(known):
        return "binary", "true or false"
    if unique == 1:
        return "drop", "one value only"
    if not pd.api.types.is_numeric_dtype(known):
        return _words(name, known, unique)
    numbers = known.to_numpy(np.float64)
    _warn_of_code(name, numbers)
    if np.isinf(numbers).any():
        raise ValueError(f"column {name!r} has {int(np.isinf(numbers).sum())} infinite values; make them missing")
    if unique == 2 and (set(numbers) == {0.0, 1.0} or len(numbers) >= ROWS_FOR_TWO):
        return "binary", "two different numbers"
    if not (numbers % 1 == 0).all():
        return _continuous(numbers)
    if unique == len(known) > ROWS_FOR_IDS and (np.diff(np.sort(numbers)) == 1).all():
        return "drop", "an identifier: each integer once"
    if unique == len(known) > ROWS_FOR_IDS and name == "Unnamed: 0":  # what pandas calls an index without a name
        return "drop", "an index: a column without a name, no integer twice"
    if unique <= MOST_LEVELS and numbers.min() in (0, 1) and (np.diff(np.unique(numbers)) == 1).all():
        return "ordinal", f"the integers from {numbers.min():.0f} to {numbers.max():.0f}"
    if unique <= MOST_LEVELS and len(numbers) >= ROWS_FOR_LEVEL * unique:
        return "ordinal", f"{unique} different integers"
    if numbers.min() >= 0 and numbers.var() > numbers.mean() / 2:
        # The variance of a count is at least its mean: too much for large numbers that others determine closely.
        if numbers.mean() < LARGE or (numbers.min() == 0 and _skewness(numbers) > 1):
            return "count", "integers of at least 0"
        return _continuous(numbers)
    return "real", "integers"


def _warn_of_code(name: str, numbers: np.ndarray) -> None:
    """Warns of a number such as -999 that several rows have, and that is far from all others: a missing value."""
    for code in CODES:
        others = numbers[numbers != code]
        times = len(numbers) - len(others)
        if times > 1 and len(others) > 1 and np.abs(others - code).min() > np.ptp(others):
            warn(
                f"column {name!r} has {code} {times} times, far from all other values; if it means that a value is "
                "missing, leave these fields empty"
            )


def _plain(known: pd.Series) -> pd.Series:
    """Values of the dtype object, such as decimal numbers, as numbers or booleans where they are those."""
    if known.dtype != object:
        return known
    inferred = pd.api.types.infer_dtype(known)
    if inferred == "integer" and known.abs().max() >= 2**63:  # as long as identifiers are; floats would be rounded
        return known
    if inferred in ("decimal", "integer", "floating", "mixed-integer-float"):
        return known.astype(np.float64)
    return known.astype(bool) if inferred == "boolean" else known


def _problem(known: pd.Series) -> str:
    """Why values are neither numbers nor categories, in words, or nothing."""
    inferred = pd.api.types.infer_dtype(known)
    if inferred in DATES or (inferred == "string" and known.astype(str).str.match(DATE_WORDS).all()):
        return "dates or times; convert them to numbers, or give it the kind drop"
    if inferred == "complex":
        return "complex numbers; split them into two columns, or give it the kind drop"
    if inferred in ("mixed", "bytes") and not known.map(lambda value: isinstance(value, Hashable)).all():
        return "lists or other objects; split them into columns, or give it the kind drop"
    return ""


def _words(name: str, known: pd.Series, unique: int) -> tuple[str, str]:
    is_number = pd.to_numeric(known, errors="coerce").notna() | known.astype(str).str.match(NUMBER_WORDS)
    if is_number.mean() > 0.5 and (unique > MOST_LEVELS or not is_number.all()):
        if is_number.all():
            raise ValueError(
                f"column {name!r} has numbers as text, such as {known.iloc[0]!r}; make them numbers, or give its kind: "
                "categorical or drop"
            )
        raise ValueError(
            f"column {name!r} has numbers, and words such as {known[~is_number].iloc[0]!r}; make the words missing "
            "values, or give its kind: categorical or drop"
        )
    if unique == 2:
        return "binary", "two different words"
    if unique == len(known) > ROWS_FOR_IDS:
        return "drop", "an identifier: no word twice"
    if unique > MOST_CATEGORIES:
        raise ValueError(
            f"column {name!r} has {unique} different words, so it may be a text or a name; give its kind: drop or "
            "categorical"
        )
    return "categorical", f"{unique} different words"


def _continuous(numbers: np.ndarray) -> tuple[str, str]:
    if numbers.min() > 0:
        skew, log_skew = _skewness(numbers), _skewness(np.log(numbers))
        if skew > 0.5 and abs(log_skew) < skew / 2:
            return "positive", "positive and skewed"
    return "real", "real numbers"


def _skewness(numbers: np.ndarray) -> float:
    spread = numbers.std()
    return float((((numbers - numbers.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0


def _categories(name: str, known: pd.Series, kind: str) -> tuple[Any, ...]:
    if isinstance(known.dtype, pd.CategoricalDtype):
        present = set(known)
        values = [value for value in known.cat.categories.tolist() if known.cat.ordered or value in present]
    else:
        try:
            values = sorted(known.unique().tolist())
        except TypeError:  # of different types
            values = sorted(known.unique().tolist(), key=lambda value: (type(value).__name__, str(value)))
    if len(values) < 2 or (kind == "binary" and len(values) > 2):
        expected = "two" if kind == "binary" else "two or more"
        raise ValueError(f"column {name!r} has {len(values)} different values; a {kind} column has {expected}")
    return tuple(values)

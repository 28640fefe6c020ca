"""Data frames of pandas and polars as data frames of pandas."""

from __future__ import annotations

from typing import Any

import pandas as pd


def as_pandas(frame: Any) -> pd.DataFrame:
    """A data frame of pandas as it is, and one of polars converted.

    Raises:
        TypeError: If it is neither.
        ModuleNotFoundError: If pyarrow is not installed, which polars needs to convert it.
        ValueError: If it is empty, or two columns have the same name.
    """
    if type(frame).__module__.partition(".")[0] == "polars" and type(frame).__name__ == "DataFrame":
        frame = _of_polars(frame)
    if not isinstance(frame, pd.DataFrame):
        lazy = "; call its method collect()" if type(frame).__name__ == "LazyFrame" else ""
        raise TypeError(
            f"frame is of type {type(frame).__name__}; expected a pandas.DataFrame or a polars.DataFrame{lazy}"
        )
    if frame.empty:
        raise ValueError(f"frame has {len(frame)} rows and {len(frame.columns)} columns; expected at least one of each")
    names = [str(name) for name in frame.columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"frame has two columns with the name {twice[0]!r}")
    return frame


def _of_polars(frame: Any) -> pd.DataFrame:
    try:
        converted = frame.to_pandas()
    except ImportError as error:
        raise ModuleNotFoundError(
            "to convert a frame of polars, install pyarrow: pip install 'pyro-vae[tables]'", name="pyarrow"
        ) from error
    for name, dtype in frame.schema.items():
        if frame[name].null_count() and (dtype.is_integer() or str(dtype) == "Boolean"):
            # polars makes floats and objects of them
            nullable = "boolean" if str(dtype) == "Boolean" else str(dtype)  # such as Int64
            converted[name] = pd.array(frame[name].to_list(), dtype=nullable)
    return converted

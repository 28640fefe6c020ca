"""Data frames from files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_vae.data.npz import reason

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FRAMES", "read_frame"]

#: The kinds of files, by suffix.
FRAMES = (".csv", ".tsv", ".parquet", ".feather", ".xlsx")


def read_frame(path: str | Path) -> pd.DataFrame:
    r"""Reads a table: CSV, TSV, Parquet, Feather or Excel. Empty fields are missing values.

    Args:
        path: The file. Its suffix says what it is. The first line of a text has the names of the columns.

    Raises:
        OSError: If the file cannot be read.
        ModuleNotFoundError: If a package that reads such files is not installed; the message names it.
        ValueError: If it is damaged, of another kind, or a row has another number of fields than the first.

    Example:
        >>> _ = open("birds.csv", "w").write("length,kind\n10.5,owl\n,wren\n")
        >>> pyro_vae.data.read_frame("birds.csv")
           length  kind
        0    10.5   owl
        1     NaN  wren
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FRAMES:
        raise ValueError(f"the table {str(path)!r} is of another kind; expected one of {', '.join(FRAMES)}")
    try:
        if suffix in (".csv", ".tsv"):
            _check_fields(path, "," if suffix == ".csv" else "\t")
        frame = _read(path, suffix)
    except ImportError as error:
        package = "openpyxl" if suffix == ".xlsx" else "pyarrow"
        raise ModuleNotFoundError(f"to read {str(path)!r}, install {package}: pip install {package}") from error
    except (OSError, _RaggedError):
        raise
    except Exception as error:  # nobody lists what libraries raise at content that is not theirs
        raise ValueError(f"the table {str(path)!r} cannot be read: {reason(error)}") from error
    if frame.empty:
        raise ValueError(f"the table {str(path)!r} has no rows")
    return frame.rename(columns=str)


def _read(path: Path, suffix: str) -> pd.DataFrame:
    import pandas as pd  # the import takes half a second

    if suffix in (".csv", ".tsv"):
        return pd.read_csv(path, sep="," if suffix == ".csv" else "\t", encoding="utf-8-sig")
    return {".parquet": pd.read_parquet, ".feather": pd.read_feather, ".xlsx": pd.read_excel}[suffix](path)


class _RaggedError(ValueError):
    pass


def _check_fields(path: Path, separator: str) -> None:
    """Checks that all rows have one number of fields: pandas fills up those that are too short."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator)
        expected = len(next(rows, []))
        for row in rows:
            if row and len(row) != expected:
                raise _RaggedError(
                    f"line {rows.line_num} of the table {str(path)!r} has {len(row)} fields; expected {expected}, one "
                    "for each name in its first line"
                )

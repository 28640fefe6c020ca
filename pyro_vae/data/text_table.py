"""Tables from text: CSV with commas, semicolons, tabs or vertical bars."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_vae.data.reading import RefusedError
from pyro_vae.system.warning import warn

if TYPE_CHECKING:
    import pandas as pd


DECIMAL_COMMA = r"[-+]?\d+(,\d+)?"


def read_text_table(path: Path) -> pd.DataFrame:
    """Reads a text in UTF-8 whose first line has the names of the columns.

    Raises:
        RefusedError: If the first line does not contain names, or a row has the wrong number of fields.
        Exception: Whatever Python and pandas raise for other content.
    """
    import pandas as pd  # the import takes half a second

    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
    separator = max(",;\t|", key=lambda each: len(next(csv.reader([first], delimiter=each), [])))
    if path.suffix.lower() == ".tsv":
        separator = "\t"
    _check_fields(path, separator)
    frame = pd.read_csv(path, sep=separator, encoding="utf-8-sig", skipinitialspace=True)
    frame = frame.drop(columns=[name for name in frame if name.startswith("Unnamed: ") and frame[name].isna().all()])
    if separator != ",":
        words = frame.select_dtypes(["object", "string"]).dropna(how="all")
        for name in words:
            known = words[name].dropna().astype(str)
            if known.str.fullmatch(DECIMAL_COMMA).all() and known.str.contains(",").any():
                frame[name] = pd.to_numeric(words[name].astype(str).str.replace(",", "."), errors="coerce")
    return frame


def warn_of_data_as_names(path: Path, frame: pd.DataFrame) -> None:
    """Warns if the first line seems to be a row of data."""
    for name in frame.select_dtypes(["object", "string"]):
        if (frame[name] == name).any():
            warn(f"the first line of the table {str(path)!r} may be data, not names: {name!r} is also a value below it")


def _check_fields(path: Path, separator: str) -> None:
    """Checks the names of columns, and that all rows have one field for each: pandas would fill short rows."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator, skipinitialspace=True)
        names = next(rows, [])
        if not any(names):
            raise RefusedError(f"the table {str(path)!r} cannot be read: it is empty")
        twice = [name for name in names if name and names.count(name) > 1]
        numbers = [name for name in names if _is_number(name)]
        if (len(numbers) == len(names) and not _is_increasing(names)) or not all(name.isdigit() for name in numbers):
            raise RefusedError(
                f"the first line of the table {str(path)!r} has numbers, {', '.join(numbers[:3])}, ...; expected the "
                "names of the columns"
            )
        if twice:
            raise RefusedError(f"the table {str(path)!r} has two columns with the name {twice[0]!r}")
        for row in rows:
            if len(names) == len(row) == 1 and len(row[0].split()) == len(names[0].split()) > 1:
                raise RefusedError(
                    f"the lines of the table {str(path)!r} have one field, such as {names[0]!r}; expected fields that "
                    "are separated by commas, semicolons, tabs or vertical bars"
                )
            if row and len(row) != len(names):
                raise RefusedError(
                    f"line {rows.line_num} of the table {str(path)!r} has {len(row)} fields; expected {len(names)}, "
                    "one for each name in its first line"
                )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_increasing(names: list[str]) -> bool:
    """Whether names are such as 0, 1, 2, ... or years."""
    return all(name.isdigit() for name in names) and sorted(set(names), key=int) == names

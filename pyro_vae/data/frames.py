"""Data frames from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyro_vae.data.formats import FRAMES, format_of
from pyro_vae.data.hugging_face import frame_of
from pyro_vae.data.reading import reading
from pyro_vae.data.text_table import read_text_table, warn_of_data_as_names

if TYPE_CHECKING:
    import pandas as pd


TEXTS = (".csv", ".tsv")


def read_frame(path: str | Path) -> pd.DataFrame:
    r"""Reads a table: CSV, TSV, Parquet, Feather, Arrow or Excel, or a data set of Hugging Face.

    In a text, empty fields are missing values. Its fields may be separated by commas, semicolons, tabs or vertical
    bars. Numbers may have a decimal comma if fields are not separated by commas.

    Args:
        path: The file, or the folder of a data set. The suffix of a file says what it is. The first line of a text has
            the names of the columns.

    Raises:
        OSError: If the file cannot be read.
        ModuleNotFoundError: If a package that reads such files is not installed; the message names it.
        ValueError: If it is damaged, has an unknown format, or a row has the wrong number of fields.

    Example:
        >>> _ = open("birds.csv", "w").write("length,kind\n10.5,owl\n,wren\n")
        >>> pyro_vae.data.read_frame("birds.csv")
           length  kind
        0    10.5   owl
        1     NaN  wren
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if format_of(path) == "dataset":
        frame = frame_of(path)
    elif suffix not in FRAMES:
        raise ValueError(f"the table {str(path)!r} has an unknown format; expected one of {', '.join(FRAMES)}")
    else:
        path.open("rb").close()  # errors of the operating system have other types in some libraries
        with reading(path, "table"):
            frame = read_text_table(path) if suffix in TEXTS else _read(path, suffix)
        if suffix in TEXTS:
            warn_of_data_as_names(path, frame)
    if frame.empty:
        raise ValueError(f"the table {str(path)!r} has no rows")
    return frame.rename(columns=str)


def _read(path: Path, suffix: str) -> pd.DataFrame:
    import pandas as pd  # the import takes half a second

    readers = {".parquet": pd.read_parquet, ".feather": pd.read_feather, ".arrow": pd.read_feather}
    return (readers | {".xlsx": pd.read_excel})[suffix](path)

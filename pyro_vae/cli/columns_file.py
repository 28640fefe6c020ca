"""Files with one line, or one row of an array, for each datapoint."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_vae.system.files import replace, writable_folder

if TYPE_CHECKING:
    from torch import Tensor


def write_columns(path: Path, columns: Mapping[str, Tensor]) -> None:
    """Writes columns ``[n]`` by name as a .csv file, with the number of the datapoint in front.

    Raises:
        ValueError: If the path is not that of a .csv file.
        OSError: If it cannot be written.
    """
    if path.suffix != ".csv":
        raise ValueError(f"the file is {str(path)!r}; expected .csv")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", *columns])
    writer.writerows([i, *row] for i, row in enumerate(zip(*(each.tolist() for each in columns.values()), strict=True)))
    writable_folder(path.parent)
    replace(path, text.getvalue().encode())


def as_npy(x: Tensor) -> bytes:
    """The content of a .npy file with this array."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, x.cpu().numpy())
    return content.getvalue()

"""How a datapoint is shown: as an image, as lines, or as a table."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyro_vae.likelihoods import columns
from pyro_vae.nn.kind import Kind

if TYPE_CHECKING:
    from pyro_vae.tables import Table

MOST_ROWS = 64  # values of a vector that are shown as a table; longer ones are a line
LEAST_STEPS = 16  # an image with a height or width of 1 and at least this length is a line, as in pyro_vae.plots


def view_of(
    x: Tensor, table: Table | None, names: Sequence[str] | None, kinds: Sequence[Kind] | None = None
) -> dict[str, Any]:
    """How datapoints x ``[n, *event]`` are shown, as JSON.

    Args:
        x: Data; NaN is a missing value.
        table: The columns, if x is a table.
        names: Names of the values of a vector, or of the features of a series.
        kinds: The kinds of the columns, if x is a table.

    Raises:
        ValueError: If the number of names or columns is wrong.
    """
    event = tuple(x.shape[1:])
    if table is not None:
        return {"kind": "table", "columns": [_column(column) for column in check_table(table, event).kept]}
    if kinds is not None:
        named = zip(_names(names, event[0], "x"), kinds, strict=True)
        return {"kind": "table", "columns": [_column_of_kind(name, kind) for name, kind in named]}
    if len(event) == 3 and not _is_line(event):
        return _image(x, event)
    if len(event) == 1 and (names is not None or event[0] <= MOST_ROWS):
        shown = _names(names, event[0], "x")
        return {"kind": "table", "columns": [{"name": name, "type": "number"} for name in shown]}
    steps, features = (
        (event[-1] * event[-2], event[0]) if len(event) == 3 else event if len(event) == 2 else (prod(event), 1)
    )
    return {
        "kind": "series",
        "steps": steps,
        "features": features,
        "names": _names(names, features, "feature "),
        "range": _range(x),
        "stepsFirst": len(event) == 2,
    }


def as_shown(x: Tensor, view: dict[str, Any]) -> Tensor:
    """Datapoints ``[n, *event]`` as the page draws them.

    Returns:
        Images ``[n, channels, height, width]`` with 1 or 3 channels, from 0 to 1, NaN where a value is missing; for
        series and tables x itself, ``[n, values]``.
    """
    if view["kind"] != "image":
        return x.flatten(1).float()
    low, high = view["range"]
    images = (x.float() - low) / (high - low)
    return images if x.shape[1] == view["channels"] else _tiled(images)


def check_table(table: Table, event: tuple[int, ...]) -> Table:
    """Returns the table if it describes data of this shape.

    Raises:
        ValueError: If it has another number of columns.
    """
    if event != (len(table.kept),):
        raise ValueError(f"table has {len(table.kept)} columns; a datapoint has shape {list(event)}")
    return table


def _column(column: Any) -> dict[str, Any]:
    if column.categories:
        return {"name": column.name, "type": column.kind, "categories": [str(each) for each in column.categories]}
    is_integer = column.kind == "count" or column.dtype.lower().startswith(("int", "uint"))
    return {"name": column.name, "type": "count" if is_integer else "number"}


def _column_of_kind(name: str, kind: Kind) -> dict[str, Any]:
    """A column with a known kind and without names of categories, which are then numbers."""
    if isinstance(kind, columns.Binary):
        return {"name": name, "type": "binary", "categories": ["0", "1"]}
    if isinstance(kind, (columns.Categorical, columns.Ordinal)):
        numbers = [str(i) for i in range(kind.categories)]
        return {"name": name, "type": type(kind).__name__.lower(), "categories": numbers}
    return {"name": name, "type": "number"}


def _is_line(event: tuple[int, ...]) -> bool:
    return min(event[1:]) == 1 and max(event[1:]) >= LEAST_STEPS


def _image(x: Tensor, event: tuple[int, ...]) -> dict[str, Any]:
    channels, height, width = event
    known = x[~x.isnan()].float() if x.is_floating_point() else x.flatten().float()
    low = min(0.0, known.min().item()) if len(known) else 0.0
    high = max(1.0, known.max().item()) if len(known) else 1.0
    tiles = 1 if channels in (1, 3) else channels
    # Images that are mostly empty, such as digits, are ink on paper: dark on a light page, light on a dark one.
    is_ink = channels != 3 and len(known) > 0 and known.median().item() <= low + 0.1 * (high - low)
    return {
        "kind": "image",
        "height": height,
        "width": width * tiles,
        "channels": 3 if channels == 3 else 1,
        "tiles": tiles,
        "range": [low, high],
        "ink": is_ink,
    }


def _tiled(images: Tensor) -> Tensor:
    """``[n, channels, height, width]`` to ``[n, 1, height, channels * width]``: channels side by side."""
    return images.permute(0, 2, 1, 3).flatten(2).unsqueeze(1)


def _names(names: Sequence[str] | None, count: int, prefix: str) -> list[str]:
    if names is None:
        return [f"{prefix}{i + 1}" for i in range(count)]
    if isinstance(names, str) or len(names) != count:
        raise ValueError(f"names is {names!r}; expected {count} names")
    return [str(name) for name in names]


def _range(x: Tensor) -> list[float]:
    """The smallest and the largest known value, some distance apart."""
    known = x[~x.isnan()] if x.is_floating_point() else x
    low, high = (known.min().item(), known.max().item()) if known.numel() else (0.0, 1.0)
    return [low, high] if high > low else [low - 0.5, high + 0.5]

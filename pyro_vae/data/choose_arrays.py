"""Chooses the data and the labels among the arrays of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPLITS = ("train", "valid", "test")
LABELS = ("train_labels", "valid_labels", "test_labels")
USUAL_LABELS = ("labels", "label")


def choose_arrays(
    path: Path, content: Mapping[str, Any], array: str | None = None, labels: str | None = None
) -> dict[str, str]:
    """The names of the arrays in a file, by their role: train, valid, test, train_labels, ...

    Args:
        path: The file, for messages.
        content: Its arrays by name.
        array: The name of the data. By default the array train; or else the only array of two or more dimensions.
        labels: The name of the labels. By default train_labels with train; with another array labels or label, if it
            has numbers in one dimension.

    Raises:
        ValueError: If it has no such array, or it is unclear which one has the data.
    """
    said = ", ".join(f"{name} {list(getattr(each, 'shape', []))}" for name, each in content.items())
    if not content:
        raise ValueError(f"the data file {str(path)!r} has no arrays")
    for option, name in (("array", array), ("labels", labels)):
        if name is not None and name not in content:
            raise ValueError(f"{option} is {name!r}; the data file {str(path)!r} has {said}")
    if array is None and "train" in content:
        found = {name: name for name in (*SPLITS, *LABELS) if name in content}
    else:
        with_rows = [name for name, each in content.items() if len(getattr(each, "shape", ())) > 1 and name != labels]
        if array is None and len(with_rows) == 1:
            array = with_rows[0]
        elif array is None and len(content) == 1:
            array = next(iter(content))
        elif array is None:
            raise ValueError(
                f"the data file {str(path)!r} has the arrays {said}; choose one with array=NAME, or name one train"
            )
        found = {"train": array}
        if labels is None and array not in SPLITS:
            labels = next((name for name in USUAL_LABELS if _are_labels(content.get(name))), None)
    return found if labels is None else {**found, "train_labels": labels}


def _are_labels(found: Any) -> bool:
    """Whether an array that was not asked for can be labels: others of this name are left alone."""
    is_number = getattr(getattr(found, "dtype", None), "kind", "f") in "biuf"  # torch's dtypes have no kind
    return is_number and len(getattr(found, "shape", ())) == 1

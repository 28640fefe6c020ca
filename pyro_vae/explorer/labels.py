"""Labels of datapoints, and their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def label_names(labels: Any, names: Sequence[str] | None, n: int) -> tuple[Tensor | None, list[str]]:
    """The number of the label of each datapoint, ``[n]``, and the name of each label.

    Args:
        labels: Integers ``[n]``, whose names are in ``names``; or any values, such as words; or None.
        names: The names of the integers 0, 1, 2, ...
        n: The number of datapoints.

    Raises:
        ValueError: If the number of labels is wrong, or a label has no name.
    """
    if labels is None:
        return None, []
    values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if len(values) != n or any(isinstance(each, list) for each in values):
        raise ValueError(f"labels has {len(values)} values; expected one for each of {n} datapoints")
    if names is not None:
        numbers = set(range(len(names)))
        wrong = [each for each in values if each not in numbers and each != -1]
        if wrong:
            raise ValueError(f"labels has the value {wrong[0]!r}; expected numbers from 0 to {len(names) - 1}")
        named = [str(name) for name in names]
        index = [int(each) for each in values]
        if -1 in index:  # of a value that is missing
            named.append("missing")
            index = [len(named) - 1 if each < 0 else each for each in index]
        return torch.tensor(index), named
    try:
        kinds = sorted(set(values))
    except TypeError:  # of different types
        kinds = sorted(set(values), key=str)
    places = {kind: i for i, kind in enumerate(kinds)}
    return torch.tensor([places[each] for each in values]), [_word(kind) for kind in kinds]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

"""The values of a column as classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd


def class_numbers(values: pd.Series) -> tuple[Tensor, tuple[str, ...]]:
    """The classes 0, 1, ... of values ``[n]``, in the order of the values, -1 where one is missing; and their names."""
    numbers, kinds = values.factorize(sort=True)
    return torch.from_numpy(numbers.astype(np.int64)), tuple(map(str, kinds))

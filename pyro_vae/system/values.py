"""Values of tensors that are put back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["values_kept"]


@contextmanager
def values_kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Restores the values of tensors, such as running statistics, on leaving."""
    before = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)

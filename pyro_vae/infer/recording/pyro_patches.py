"""Attributes that are others for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pyro.infer.util
import torch
from torch import Tensor

__all__ = ["replaced", "sums_look_at_nothing"]


@contextmanager
def replaced(attributes: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Sets attributes (owner, name, value), and sets them back on leaving."""
    with ExitStack() as stack:
        for owner, name, value in attributes:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


@contextmanager
def sums_look_at_nothing() -> Iterator[None]:
    """Lets the expectations of ``TraceEnum_ELBO`` be recorded.

    Pyro selects the terms of positive probability, if not all are, except while it is traced: then it always selects.
    Here it is told that it is traced, and zeros take the place of what is not selected. In a sum of products they do
    the same, and how many terms there are does not depend on their values.
    """
    with replaced([(pyro.infer.util, "torch", _TorchThatTraces()), (Tensor, "masked_select", _with_zeros)]):
        yield


def _with_zeros(terms: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, terms, torch.zeros_like(terms)).reshape(-1)


class _TorchThatTraces:
    _C = SimpleNamespace(_get_tracing_state=lambda: True)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

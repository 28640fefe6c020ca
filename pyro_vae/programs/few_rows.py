"""Inspects programs by running them on a few rows of the data, so that large data need little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pyro
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_vae.system.randomness import seeded

FEW = 61  # rows; a prime, which is unlikely to be the size of anything else
MOST_ROWS, MOST_NUMBERS = 4096, 2**22

Found = TypeVar("Found")


def is_large(x: Tensor) -> bool:
    """Whether data ``[n, *event]`` are too large for running programs on all of them just to inspect them."""
    return len(x) > FEW and (len(x) > MOST_ROWS or x.numel() > MOST_NUMBERS)


def rows_at_once(x: Tensor) -> int:
    """The number of rows of such data that are not too large."""
    return min(MOST_ROWS, max(FEW, MOST_NUMBERS // max(1, x[0].numel())))


def on_few_rows(look: Callable[[Tensor], Found], x: Tensor) -> Found | None:
    """The result of a function that runs programs, on the first few rows of the data; or None.

    None means that a few rows are not enough: the programs fail on them, or they leave something behind that depends on
    the number of rows. That is a new parameter in Pyro's store, or an automatic guide that creates its parameters at
    its first call. Such parameters are removed again.

    Args:
        look: The function.
        x: Data, ``[n, *event]``.
    """
    store = pyro.get_param_store()
    before = set(store.keys())

    def new() -> dict[str, Tensor]:
        return {name: store[name].detach().clone() for name in store.keys() - before}

    def forget() -> None:
        for name in store.keys() - before:
            del store[name]

    try:
        with _guides_are_made():
            with seeded(0, x.device):
                found = look(x[:FEW])
            made = new()
            if made:
                forget()
                with seeded(0, x.device):
                    look(x[-FEW + 1 :])
                if not _same(made, new()):
                    forget()
                    return None
    except Exception:  # programs that need all rows may raise anything; a real error will show on all rows
        forget()
        return None
    return found


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].shape == b[name].shape and torch.equal(a[name], b[name]) for name in a)


@contextmanager
def _guides_are_made() -> Iterator[None]:
    """Refuses the first call of an automatic guide, at which it creates parameters for the rows that it gets."""

    def check(module: nn.Module, _: Any) -> None:
        if getattr(module, "prototype_trace", module) is None:
            raise RuntimeError("the guide makes its parameters when it is first called")

    with register_module_forward_pre_hook(check):
        yield

"""Running programs on a few rows of the data, to see what they are like: the rest need not be in memory at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pyro
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_vae.system.randomness import generators_kept, reseed

__all__ = ["is_large", "on_few_rows", "rows_at_once"]

# So many rows are few; a prime, which is the size of hardly anything else.
FEW = 61
MOST_ROWS, MOST_NUMBERS = 4096, 2**22

Found = TypeVar("Found")


def is_large(x: Tensor) -> bool:
    """Whether the data ``[n, *event]`` are too many to run programs on all of them, only to see what they are like."""
    return len(x) > FEW and (len(x) > MOST_ROWS or x.numel() > MOST_NUMBERS)


def rows_at_once(x: Tensor) -> int:
    """How many rows of such data are not large."""
    return min(MOST_ROWS, max(FEW, MOST_NUMBERS // max(1, x[0].numel())))


def on_few_rows(look: Callable[[Tensor], Found], x: Tensor) -> Found | None:
    """What a function of data finds that runs programs, on the first few rows; or None.

    It is None if the programs fail on so few, and where what they leave behind would be another thing after all rows:
    a parameter that Pyro's store has not had before, and an automatic guide that makes its parameters when it is first
    called. Of these, nothing is left.

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
            found, made = _seeded(look, x[:FEW]), new()
            if made:
                forget()
                _seeded(look, x[-FEW + 1 :])
                if not _same(made, new()):
                    forget()
                    return None
    except Exception:  # whatever the programs raise that want all rows; or all rows will show what is wrong
        forget()
        return None
    return found


def _seeded(look: Callable[[Tensor], Found], x: Tensor) -> Found:
    with generators_kept(x.device):
        reseed(0, x.device)
        return look(x)


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].shape == b[name].shape and torch.equal(a[name], b[name]) for name in a)


@contextmanager
def _guides_are_made() -> Iterator[None]:
    """Refuses to call a guide of Pyro's for the first time, when it makes its parameters, for the rows that it gets."""

    def check(module: nn.Module, _: Any) -> None:
        if getattr(module, "prototype_trace", module) is None:
            raise RuntimeError("the guide makes its parameters when it is first called")

    hook = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()

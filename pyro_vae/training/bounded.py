"""A bound on what is computed, for modules that are built as a file says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyro_vae.system.private_apis import TorchDispatchMode
from pyro_vae.system.trees import flatten, leaves_of, map_leaves

__all__ = ["Bounded"]


class Bounded(TorchDispatchMode):
    """Refuses what would take far more memory, or far more operations, than weights of a known size call for.

    Args:
        size: That of the weights, in bytes.

    Raises:
        ValueError: Within, before the operation that is too much.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._largest = 2**30 + 16 * size
        self._made = 2**28 + 16 * size  # in all, of what is made of nothing: the rest is made of that
        self._operations = 10_000 + 10 * size
        self._sizes: dict[Any, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Computes what is asked for, if it is not too much."""
        kwargs = kwargs or {}
        leaves, treespec = flatten((args, kwargs))
        kind = func, treespec, *((each.shape, each.dtype) if isinstance(each, Tensor) else each for each in leaves)
        if kind not in self._sizes:
            self._sizes[kind] = _size(func, args, kwargs)
        size = self._sizes[kind]
        if not any(isinstance(each, Tensor) for each in leaves):
            self._made -= size
        self._operations -= 1
        if size > self._largest or self._made < 0 or self._operations < 0:
            raise ValueError(f"it would take far more memory or time than its weights call for, by {func}")
        return func(*args, **kwargs)


def _size(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """The size in bytes of what an operation gives, which is found out without doing it."""
    args, kwargs = map_leaves(lambda each: each.to("meta") if isinstance(each, Tensor) else each, (args, kwargs))
    if "device" in kwargs:
        kwargs["device"] = "meta"
    try:
        results = leaves_of(func(*args, **kwargs))
    except Exception:  # it depends on values, as indices of what is not zero do; those are no more than the input
        return 0
    return max((each.untyped_storage().nbytes() for each in results if isinstance(each, Tensor)), default=0)

"""A bound on memory and time for modules that are built from the description in a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from pyro_vae.system.private_apis import TorchDispatchMode
from pyro_vae.system.trees import flatten, leaves_of, map_leaves

# The results of these are as large as the largest of their inputs, or smaller. Torch marks most others of this kind.
_NO_LARGER = frozenset(
    f"aten.{name}.default"
    for name in (
        *("uniform_", "normal_", "zero_", "copy_"),
        *("bernoulli", "randn_like", "rand_like", "empty_like", "ones_like", "zeros_like"),
        *("_is_all_true", "allclose"),
    )
)
_PRODUCTS = frozenset({"aten.mm.default", "aten.addmm.default"})  # of their last two inputs


class Bounded(TorchDispatchMode):
    """Refuses to use far more memory, or far more operations, than weights of a known size need.

    Args:
        size: The size of the weights, in bytes.

    Raises:
        ValueError: Within the context, before the operation that is too large.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._largest = 2**30 + 16 * size
        self._made = 2**28 + 16 * size  # in total, by operations without tensors as inputs
        self._operations = 10_000 + 10 * size
        self._sizes: dict[Any, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Runs the operation if it is within the bounds."""
        kwargs = kwargs or {}
        leaves, treespec = flatten((args, kwargs))
        kind = func, treespec, *((each.shape, each.dtype) if isinstance(each, Tensor) else each for each in leaves)
        if kind not in self._sizes:
            tensors = [each for each in leaves if isinstance(each, Tensor)]
            known = _known_size(func, tensors) if tensors else None
            self._sizes[kind] = _size(func, args, kwargs) if known is None else known
        size = self._sizes[kind]
        if not any(isinstance(each, Tensor) for each in leaves):
            self._made -= size
        self._operations -= 1
        if size > self._largest or self._made < 0 or self._operations < 0:
            raise ValueError(f"it would take far more memory or time than its weights need, by {func}")
        return func(*args, **kwargs)


def _known_size(func: Callable[..., Any], tensors: Sequence[Tensor]) -> int | None:
    """A bound on the size in bytes of the largest result of a common operation, and None for others.

    It saves time: the first operation on the device "meta" often makes torch import its compiler, a thousand modules.
    """
    name, tags = str(func), getattr(func, "tags", ())
    if torch.Tag.pointwise in tags or name == "aten.normal.Tensor_Tensor":
        reversed_shapes = zip_longest(*(reversed(each.shape) for each in tensors), fillvalue=1)
        number = math.prod(0 if 0 in sizes else max(sizes) for sizes in reversed_shapes)
    elif name in _NO_LARGER or getattr(torch.Tag, "reduction", None) in tags:
        number = max(each.numel() for each in tensors)
    elif name in _PRODUCTS:
        number = tensors[-2].shape[0] * tensors[-1].shape[-1]
    else:
        return None
    return number * max(torch.get_default_dtype().itemsize, *(each.itemsize for each in tensors))


def _size(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """The size in bytes of the largest result of an operation, without computing it."""
    args, kwargs = map_leaves(lambda each: each.to("meta") if isinstance(each, Tensor) else each, (args, kwargs))
    if "device" in kwargs:
        kwargs["device"] = "meta"
    try:
        with torch.device("meta"):
            results = leaves_of(func(*args, **kwargs))
    except Exception:  # the size depends on values, as that of nonzero() does; it is no larger than the input
        return 0
    return max((each.untyped_storage().nbytes() for each in results if isinstance(each, Tensor)), default=0)

"""The arguments of a step, and which calls one recorded step will do for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vae.system.grad_mode import differentiable
from pyro_vae.system.trees import flatten, unflatten

_PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device)


class Call:
    """A call of two programs.

    Args:
        args: The arguments of the programs.
        kwargs: Likewise.
        gather: Maps the first argument that is given to the first argument of the programs.
    """

    def __init__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], gather: Callable[[Any], Any] | None = None
    ) -> None:
        self._gather = gather
        self._leaves, self._treespec = flatten((args, kwargs))
        self.tensors = [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""
        return self.tensors[0].device if self.tensors else torch.device("cpu")

    def arguments(self, tensors: Sequence[Tensor] | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the programs; if ``tensors`` are given, with these instead of those of the call."""
        remaining = iter(self.tensors if tensors is None else tensors)
        leaves = [differentiable(next(remaining)) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = unflatten(leaves, self._treespec)
        return (args if self._gather is None else (self._gather(args[0]), *args[1:])), kwargs

    def signature(self) -> Any | None:
        """Equal for calls that differ only in the values of tensors; None if an argument cannot be compared."""
        described: list[Any] = [self._gather, self._treespec]
        described += [torch.is_autocast_enabled(self.device.type), torch.get_autocast_dtype(self.device.type)]
        described += [[id(each) for each in self.tensors].index(id(tensor)) for tensor in self.tensors]  # same tensors
        for leaf in self._leaves:
            if isinstance(leaf, Tensor) and not leaf.requires_grad and leaf.layout == torch.strided:
                described.append((leaf.shape, leaf.stride(), leaf.dtype, leaf.device))
            elif isinstance(leaf, _PLAIN):
                described.append((type(leaf), leaf))
            else:
                return None
        return tuple(described)


def split_numbers(signature: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[float, ...]]:
    """A signature without the values of its numbers, and these values."""
    is_number = [isinstance(each, tuple) and each[0] in (int, float) for each in signature]
    rest = tuple(each[0] if found else each for each, found in zip(signature, is_number, strict=True))
    return rest, tuple(each[1] for each, found in zip(signature, is_number, strict=True) if found)

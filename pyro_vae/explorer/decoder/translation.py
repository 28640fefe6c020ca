"""A program while it is made from a graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.explorer.decoder.program import Program


@dataclass(frozen=True)
class Array:
    """An array of the program, with the shape that it has here."""

    number: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


class Translation:
    """The program so far, and the value of each node: a tensor if it depends on weights alone, else an array.

    Args:
        operators: For the name of each operator, a function of this translation, the node and the operator's
            arguments.
    """

    def __init__(self, operators: dict[str, Any]) -> None:
        self.operators = operators
        self.program = Program()
        self.values: dict[Any, Any] = {}

    def input(self, node: Any) -> None:
        """The input z."""
        shape = tuple(node.meta["val"].shape)
        self.program.input = self.program.array(math.prod(shape))
        self.values[node] = Array(self.program.input, shape)

    def output(self, node: Any) -> None:
        """The results."""
        self.program.outputs = [self.number(self.values[each]) for each in node.args[0]]

    def call(self, node: Any) -> None:
        """One call of an operator."""
        known = self.values
        args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), known.__getitem__)
        if not has_array((args, kwargs)):
            known[node] = node.target(*args, **kwargs)
            return
        name = name_of(node.target)
        if name.startswith(("_assert", "sym_constrain")):  # they compute nothing
            return
        if name == "getitem":
            known[node] = args[0][args[1]]
            return
        translate = self.operators.get(name)
        if translate is None:
            raise ValueError(
                f"the likelihood uses the operator {node.target}, which the explorer's JavaScript does not support"
            )
        known[node] = translate(self, node, *args, **kwargs)

    def number(self, value: Any) -> int:
        """The array of a value: weights and Python numbers become constants."""
        if isinstance(value, Array):
            return value.number
        return self.program.constant(as_tensor(value).to(torch.float32))

    def add(self, kind: str, shape: tuple[int, ...], /, **settings: Any) -> Array:
        """Adds an operation with a result of this shape."""
        return Array(self.program.add(kind, math.prod(shape), **settings), shape)

    def elementwise(self, function: str, shape: tuple[int, ...], *operands: Any) -> Array:
        """A function of each value of operands that broadcast to a shape."""
        strides = [_broadcast_strides(value, shape) for value in operands]
        settings = {} if not any(strides) else {"shape": list(shape), "strides": strides}
        return self.add(
            "elementwise", shape, function=function, inputs=[self.number(each) for each in operands], **settings
        )

    def move(self, move: Callable[[Tensor], Any], value: Any) -> Any:
        """What an operator that only moves values does: it is run on the positions 0, 1, 2, ..."""
        if not isinstance(value, Array):
            return move(value)
        positions = torch.arange(value.size, dtype=torch.float64).reshape(value.shape)
        moved = move(positions)
        if isinstance(moved, (list, tuple)):
            return [self._moved(value, positions, each) for each in moved]
        return self._moved(value, positions, moved)

    def _moved(self, value: Array, positions: Tensor, moved: Tensor) -> Array:
        shape = tuple(moved.shape)
        if moved.numel() == value.size and torch.equal(moved.reshape(-1), positions.reshape(-1)):
            return Array(value.number, shape)
        if moved.untyped_storage().data_ptr() == positions.untyped_storage().data_ptr():
            strides = {"shape": list(shape), "strides": list(moved.stride()), "offset": moved.storage_offset()}
            return self.add("strided", shape, input=value.number, **strides)
        return self.gathered(value, moved)

    def gathered(self, value: Array, positions: Tensor, fill: float = 0.0) -> Array:
        """The values at these positions, and ``fill`` where a position is negative."""
        if positions.numel() == value.size and torch.equal(
            positions.reshape(-1), torch.arange(value.size).to(positions)
        ):
            return Array(value.number, tuple(positions.shape))
        places = self.program.constant(positions.to(torch.int32))
        return self.add("gather", tuple(positions.shape), input=value.number, positions=places, fill=fill)

    def dense(self, value: Any, order: tuple[int, ...]) -> Any:
        """The value with its dimensions in another order, one after the other in memory."""
        return self.move(lambda each: each.permute(order), value)


def has_array(args: Any) -> bool:
    """Whether something depends on z: an array, or a list or dictionary with one."""
    if isinstance(args, Array):
        return True
    if isinstance(args, dict):
        return any(map(has_array, args.values()))
    return isinstance(args, (list, tuple)) and any(map(has_array, args))


def name_of(target: Any) -> str:
    """The name of an operator, without its overload: ``add`` for ``aten.add.Tensor``."""
    return getattr(getattr(target, "overloadpacket", target), "__name__", str(target))


def as_tensor(value: Any) -> Tensor:
    """A number as a tensor without dimensions; a tensor as it is."""
    return value if isinstance(value, Tensor) else torch.tensor(float(value))


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of an array, a tensor, or a number."""
    return value.shape if isinstance(value, Array) else tuple(as_tensor(value).shape)


def out_shape(node: Any) -> tuple[int, ...]:
    """The shape of the result of a node."""
    return tuple(node.meta["val"].shape)


def _broadcast_strides(value: Any, shape: tuple[int, ...]) -> list[int] | None:
    """The strides of a value that broadcasts to a shape; None if it has this shape."""
    own = shape_of(value)
    if own == shape:
        return None
    return list(torch.empty(own).expand(shape).stride())

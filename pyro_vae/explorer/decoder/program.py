"""The list of operations that JavaScript runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Program:
    """Operations on arrays of numbers, in the order in which they run.

    Attributes:
        input: The number of the array that holds z.
        outputs: The numbers of the arrays that hold the results.
        sizes: The number of values in each array.
        constants: The weights, by the number of their array; float32, or int32 for positions.
        operations: Each has a kind, the arrays that it reads and writes, and its settings; ``kernels.js`` has a
            function for each kind.
    """

    input: int = 0
    outputs: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    constants: dict[int, Tensor] = field(default_factory=dict)
    operations: list[dict[str, Any]] = field(default_factory=list)

    def array(self, size: int) -> int:
        """Adds an array of a size; returns its number."""
        self.sizes.append(size)
        return len(self.sizes) - 1

    def constant(self, values: Tensor) -> int:
        """Adds an array with these values; returns its number."""
        number = self.array(values.numel())
        self.constants[number] = values.detach().contiguous().reshape(-1)
        return number

    def add(self, kind: str, size: int, /, **settings: Any) -> int:
        """Adds an operation; returns the number of the array that it writes, of this size."""
        out = self.array(size)
        self.operations.append({"kind": kind, "out": out, **settings})
        return out

"""Supports of data, with names that are readable in the messages of ``VAE.check``."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import constraints


class FiniteReals(constraints.Constraint):
    """The real numbers, without the infinities that ``torch.distributions.constraints.real`` accepts."""

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is finite."""
        return value.isfinite()

    def __repr__(self) -> str:
        return "finite real numbers"


class Counts(constraints.Constraint):
    """The integers 0, 1, 2, ..., as floats."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is a finite integer of at least 0."""
        return (value >= 0) & (value % 1 == 0)

    def __repr__(self) -> str:
        return "counts (integers of at least 0)"


class Levels(constraints.Constraint):
    """Equally spaced levels from 0 to 1, such as 8-bit pixels divided by 255.

    A value may differ from a level by a hundredth of a step, since dtypes round k / 255 differently.

    Args:
        levels: The number of levels.
    """

    is_discrete = True

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is one of the levels."""
        steps = value * (self.levels - 1)
        return ((steps - steps.round()).abs() < 0.01) & (steps > -0.5) & (steps < self.levels - 0.5)

    def __repr__(self) -> str:
        return f"the {self.levels} levels k / {self.levels - 1} from 0 to 1"

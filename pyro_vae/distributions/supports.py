"""What data may be, in words that read well in the message of ``VAE.check``."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import constraints

__all__ = ["Counts", "FiniteReals", "Levels"]


class FiniteReals(constraints.Constraint):
    """The real numbers; unlike ``torch.distributions.constraints.real`` without the infinities."""

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is finite."""
        return value.isfinite()

    def __repr__(self) -> str:
        return "finite real numbers"


class Counts(constraints.Constraint):
    """0, 1, 2 and so on."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is a finite integer of at least 0."""
        return (value >= 0) & (value % 1 == 0)

    def __repr__(self) -> str:
        return "counts (integers of at least 0)"


class Levels(constraints.Constraint):
    """Equally spaced levels from 0 to 1, as 8-bit pixels are once divided by 255.

    A value may be a hundredth of a step away, since dtypes round k / 255 differently.

    Args:
        levels: Their number.
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

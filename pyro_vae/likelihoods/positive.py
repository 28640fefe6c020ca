"""Positive numbers that all datapoints share: fixed, or learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.checks import check_positive

__all__ = ["PositiveParameter", "as_positive"]


class PositiveParameter(nn.Module):
    """A positive number, or one for each of an array of values, to be learned: floor + exp(raw).

    Args:
        initial: The initial value: a number, or a tensor that broadcasts with the event shape.
        floor: What it cannot fall below.

    Raises:
        ValueError: If the floor is not positive, or an initial value is not above it.
    """

    def __init__(self, initial: float | Tensor, floor: float = 1e-3) -> None:
        super().__init__()
        self.floor = floor = check_positive("floor", floor)
        initial = torch.as_tensor(initial, dtype=torch.get_default_dtype())
        if not ((initial > floor) & initial.isfinite()).all():
            raise ValueError(f"initial is {initial.tolist()}; expected finite values above the floor, {floor}")
        self.initial = initial.tolist()
        self.raw = nn.Parameter((initial - floor).log())

    def forward(self) -> Tensor:
        """Returns the value, of the shape of the initial one."""
        return self.floor + self.raw.exp()


class _Constant(nn.Module):
    """A number that is not learned, and follows ``.to``."""

    value: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(float(value)), persistent=False)

    def forward(self) -> Tensor:
        return self.value


def as_positive(name: str, value: float | nn.Module) -> nn.Module:
    """Returns a module that returns a positive tensor: the value itself, or a constant if it is a number.

    Raises:
        ValueError: If it is a number that is not positive, or neither; the message has the name.
    """
    if isinstance(value, nn.Module):
        return value
    return _Constant(check_positive(name, value, "a positive number, or a module such as PositiveParameter"))

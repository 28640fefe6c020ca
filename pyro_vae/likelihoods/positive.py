"""Positive parameters of likelihoods that all datapoints share, fixed or learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.checks import check_positive


class PositiveParameter(nn.Module):
    """A learned positive number, or an array of them: floor + exp(raw).

    Args:
        initial: The initial value: a number, or a tensor that broadcasts with the event shape.
        floor: The lower limit of the values.

    Raises:
        ValueError: If the floor is not a positive number, or an initial value is not above it.

    Example:
        >>> likelihoods.PositiveParameter(torch.tensor([1.0, 2.0]))()
        tensor([1., 2.], grad_fn=<AddBackward0>)
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
        """Returns the values, with the shape of the initial ones."""
        return self.floor + self.raw.exp()


class _Constant(nn.Module):
    """A fixed number, as a buffer that ``.to`` moves."""

    value: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(float(value)), persistent=False)

    def forward(self) -> Tensor:
        return self.value


def as_positive(name: str, value: float | nn.Module) -> nn.Module:
    """Returns a module that returns a positive tensor: the value itself if it is a module, else a constant.

    Raises:
        ValueError: If it is neither a positive number nor a module; the message contains the name.
    """
    if isinstance(value, nn.Module):
        return value
    return _Constant(check_positive(name, value, "a positive number, or a module such as PositiveParameter"))

"""Checks of arguments, each with one clear sentence when they fail."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["call_part", "check_choice", "check_count", "check_positive", "check_rows"]


def check_count(name: str, value: int, least: int = 1) -> int:
    """Returns the value if it is an integer of at least ``least``.

    Raises:
        ValueError: If not; the message has the name.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}")
    return int(value)


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Returns the value if it is one of the choices.

    Raises:
        ValueError: If not; the message has the name.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")
    return value


def check_positive(name: str, value: float) -> float:
    """Returns the value if it is a positive, finite number.

    Raises:
        ValueError: If not; the message has the name.
    """
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}; expected a positive number")
    return value


def check_rows(x: Tensor, event: str = "*event") -> Tensor:
    """Returns x if it is a tensor ``[n, *event]`` with at least one row.

    Raises:
        TypeError: If x is not a tensor.
        ValueError: If it has no rows.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x is of type {type(x).__name__}; expected a tensor of shape [n, {event}]")
    if x.ndim == 0 or x.shape[0] == 0:
        raise ValueError(f"x has shape {list(x.shape)}; expected [n, {event}] with at least one datapoint")
    return x


def call_part(name: str, part: nn.Module, *inputs: Tensor) -> Distribution:
    """Calls a part that other parts gave the inputs of.

    Raises:
        TypeError: If it does not return a distribution.
        ValueError: If it fails.
    """
    try:
        distribution = part(*inputs)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"{name} failed, so the parts do not fit together: {error}") from error
    if not isinstance(distribution, Distribution):
        raise TypeError(f"{name} returned a {type(distribution).__name__}; expected a distribution")
    return distribution

"""Checks of arguments, each with one clear sentence when they fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

Choice = TypeVar("Choice")


def check_count(name: str, value: int, least: int = 1) -> int:
    """Returns the value as an ``int`` if it is an integer of at least ``least``.

    Raises:
        ValueError: If it is not; the message contains the name.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; expected an integer of at least {least}")
    return int(value)


def check_choice(name: str, value: Choice, choices: Sequence[Choice]) -> Choice:
    """Returns the value if it is one of the choices.

    Raises:
        ValueError: If it is not; the message contains the name.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")
    return value


def check_positive(name: str, value: float, expected: str = "a positive number") -> float:
    """Returns the value as a ``float`` if it is a positive, finite number, of Python or NumPy, but not ``True``.

    Args:
        name: The name of the argument, for the message.
        value: The value.
        expected: What else the message says is expected.

    Raises:
        ValueError: If it is not; the message contains the name.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}; expected {expected}")
    return float(value)


def check_rows(x: Tensor, event: str = "*event") -> Tensor:
    """Returns x if it is a tensor ``[n, *event]`` with at least one row.

    Raises:
        TypeError: If x is not a tensor.
        ValueError: If x has no rows.
    """
    from torch import Tensor

    if not isinstance(x, Tensor):
        raise TypeError(f"x is of type {type(x).__name__}; expected a tensor of shape [n, {event}]")
    if x.ndim == 0 or x.shape[0] == 0:
        raise ValueError(f"x has shape {list(x.shape)}; expected [n, {event}] with at least one datapoint")
    return x


def is_image(event_shape: Sequence[int]) -> bool:
    """Whether a datapoint of this shape is an image that can be drawn, ``[1 or 3, height, width]``."""
    return len(event_shape) == 3 and event_shape[0] in (1, 3) and 0 not in event_shape


def check_images(images: Tensor, name: str = "images") -> Tensor:
    """Returns the images if they are a tensor ``[n, channels, height, width]`` with 1 or 3 channels.

    Raises:
        TypeError: If they are not a tensor.
        ValueError: If they have another shape.
    """
    from torch import Tensor

    expected = "expected [n, 1 or 3, height, width] with n at least 1"
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} are of type {type(images).__name__}; {expected}")
    if images.ndim == 0 or images.shape[0] == 0 or not is_image(images.shape[1:]):
        raise ValueError(f"{name} have shape {list(images.shape)}; {expected}")
    return images


def call_part(name: str, part: Callable[..., Any], *inputs: Tensor) -> Distribution:
    """Calls a part with the outputs of other parts.

    Raises:
        TypeError: If it does not return a distribution.
        ValueError: If it fails.
    """
    from torch.distributions import Distribution

    try:
        distribution = part(*inputs)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"{name} failed, so the parts do not fit together: {error}") from error
    if not isinstance(distribution, Distribution):
        raise TypeError(f"{name} returned a {type(distribution).__name__}; expected a distribution")
    return distribution

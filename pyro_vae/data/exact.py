"""Checks that float32 can represent numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.system.warning import warn

MOST_ROUNDING = 0.01  # of the standard deviation
NUMBERS = 2**22  # that are looked at, to save memory


def check_exact(name: str, x: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Warns of integers that rounding changes, such as long identifiers, and of a spread that is lost in an offset.

    Args:
        name: What the numbers are, for messages.
        x: The numbers, of any shape; NaN is a missing value.
        dtype: The dtype that they will have.

    Raises:
        ValueError: If a number is infinite, or too large for the dtype.
    """
    if x.dtype in (torch.uint8, torch.bool) or x.is_complex():
        return
    as_floats = str(dtype).removeprefix("torch.")
    if x.to(dtype).isinf().any():
        raise ValueError(f"{name} has infinite numbers, or numbers too large for {as_floats}")
    x = x.flatten()[:NUMBERS].double()
    x = x[~x.isnan()]
    rounded = x.to(dtype).double()
    change = (rounded - x).abs()
    if not change.any():
        return
    worst = int(change.argmax())
    if bool((x % 1 == 0).all()):
        warn(
            f"{name} has integers that {as_floats} cannot represent: {x[worst]:.0f} becomes {rounded[worst]:.0f}; "
            "leave it out if it is an identifier"
        )
    elif change[worst] > MOST_ROUNDING * x.std(correction=0):
        warn(f"{name} has numbers so large that {as_floats} rounds off their differences; subtract a constant")

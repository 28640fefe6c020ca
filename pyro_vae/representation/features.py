"""Checks features and converts them to float64."""

from __future__ import annotations

import torch
from torch import Tensor


def as_features(least: int = 1, **named: Tensor) -> list[Tensor]:
    """Returns several sets of features ``[n, features]`` in float64.

    Args:
        least: The smallest number of rows.
        **named: The features by name, all with the same number of columns and on the same device.

    Raises:
        TypeError: If one is not a floating-point tensor.
        ValueError: If one has the wrong shape, too few rows, values that are not finite, or a number of columns or a
            device other than that of the first.
    """
    first_name, first = next(iter(named.items()))
    for name, x in named.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = f"dtype {x.dtype}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
            raise TypeError(f"{name} is of {kind}; expected a floating-point tensor [n, features]")
        if x.ndim != 2 or x.shape[0] < least or x.shape[1] == 0:
            raise ValueError(
                f"{name} has shape {list(x.shape)}; expected [n, features] with n at least {least} "
                "(use .flatten(1) for images)"
            )
        if x.shape[1] != first.shape[1]:
            raise ValueError(f"{name} has {x.shape[1]} features; expected {first.shape[1]}, as {first_name}")
        if x.device != first.device:
            raise ValueError(f"{name} is on device {x.device}; expected {first.device}, as {first_name}")
        if not x.isfinite().all():
            raise ValueError(f"{name} has {int((~x.isfinite()).sum())} values that are NaN or infinite")
    return [x.detach().to(torch.float64) for x in named.values()]

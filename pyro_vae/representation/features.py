"""What can be taken as features: checked early, then computed with in float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["as_features"]


def as_features(least: int = 1, **named: Tensor) -> list[Tensor]:
    """Returns features ``[n, features]``, by name, in float64.

    Args:
        least: The number of rows that each needs.
        **named: The features, all with as many columns and on the same device.

    Raises:
        TypeError: If one is not a tensor of real numbers.
        ValueError: If one is misshapen, has too few rows, is not finite, or does not go with the first.
    """
    first_name, first = next(iter(named.items()))
    for name, x in named.items():
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = f"dtype {x.dtype}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
            raise TypeError(f"{name} is of {kind}; expected a floating-point tensor [n, features]")
        if x.ndim != 2 or x.shape[0] < least or x.shape[1] == 0:
            raise ValueError(
                f"{name} has shape {list(x.shape)}; expected [n, features] with n at least {least} "
                "(.flatten(1) makes images into features)"
            )
        if x.shape[1] != first.shape[1]:
            raise ValueError(f"{name} has {x.shape[1]} features, and {first_name} has {first.shape[1]}")
        if x.device != first.device:
            raise ValueError(f"{name} is on device {x.device}, and {first_name} on {first.device}")
        if not x.isfinite().all():
            raise ValueError(f"{name} has {int((~x.isfinite()).sum())} values that are NaN or infinite")
    return [x.detach().to(torch.float64) for x in named.values()]

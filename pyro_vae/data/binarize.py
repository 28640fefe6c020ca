"""Ways to make grey images in [0, 1] binary. To keep them grey is to call none of these.

The numbers that result from different ways cannot be compared. The literature trains on the dynamic one, or trains and
tests on one fixed binarization (``load("binarized_mnist")``).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dynamic", "fixed", "threshold"]


def dynamic(x: Tensor) -> Tensor:
    """Draws every pixel anew from a Bernoulli with its grey level as the probability; call it at every visit.

    It does not look for NaN, which becomes 0: ``Batches`` does, once for all visits.

    Raises:
        TypeError: If x is not of floats.
    """
    _check_dtype(x)
    return (torch.rand_like(x) < x).to(x.dtype)  # on a CPU four times as fast as torch.bernoulli


def fixed(x: Tensor, seed: int = 0) -> Tensor:
    """Draws every pixel once: the same for the same seed, on every device; other random draws are not affected.

    Raises:
        TypeError: If x is not of floats.
        ValueError: If a value is NaN or outside of [0, 1].
    """
    _check_grey(x)
    generator = torch.Generator().manual_seed(seed)
    return torch.bernoulli(x.cpu(), generator=generator).to(x.device)


def threshold(x: Tensor, level: float = 0.5) -> Tensor:
    """Sets pixels above the level to 1, the others to 0.

    Raises:
        TypeError: If x is not of floats.
        ValueError: If a value is NaN or outside of [0, 1].
    """
    _check_grey(x)
    return (x > level).to(x.dtype)


def _check_dtype(x: Tensor) -> None:
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}; expected grey levels in [0, 1] as floats")


def _check_grey(x: Tensor) -> None:
    _check_dtype(x)
    outside = ~((x >= 0) & (x <= 1))
    if outside.any():
        raise ValueError(f"x has {int(outside.sum())} values that are NaN or outside of [0, 1]")

"""Ways to make grey images in [0, 1] binary. To keep them grey is to call none of these.

The numbers that result from different ways cannot be compared. The literature trains on the dynamic one and tests on a
fixed one (Burda et al. 2015), or does both on one fixed binarization (``load("binarized_mnist")``).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dynamic", "fixed", "threshold"]


def dynamic(x: Tensor) -> Tensor:
    """Draws every pixel anew from a Bernoulli with its grey level as the probability; call it at every visit."""
    return torch.bernoulli(x)


def fixed(x: Tensor, seed: int = 0) -> Tensor:
    """Draws every pixel once: the same for the same seed, on every device; other random draws are not affected."""
    generator = torch.Generator().manual_seed(seed)
    return torch.bernoulli(x.cpu(), generator=generator).to(x.device)


def threshold(x: Tensor, level: float = 0.5) -> Tensor:
    """Sets pixels above the level to 1, the others to 0."""
    return (x > level).to(x.dtype)

"""Computes gradients also inside ``torch.no_grad`` and ``torch.inference_mode``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["differentiable", "gradients_enabled"]


@contextmanager
def gradients_enabled() -> Iterator[None]:
    """Enables gradients, also if a caller has disabled them."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@torch.inference_mode(False)
def differentiable(x: Tensor) -> Tensor:
    """The tensor, copied if it was made in inference mode, since such tensors cannot be used for gradients."""
    return x.clone() if x.is_inference() else x

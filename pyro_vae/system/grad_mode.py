"""Gradients, wherever one is called: under ``torch.no_grad`` and ``torch.inference_mode`` too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["differentiable", "gradients_enabled"]


@contextmanager
def gradients_enabled() -> Iterator[None]:
    """Has torch compute gradients."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@torch.inference_mode(False)
def differentiable(x: Tensor) -> Tensor:
    """The tensor, as one that gradients may be taken with: those made in inference mode are not."""
    return x.clone() if x.is_inference() else x

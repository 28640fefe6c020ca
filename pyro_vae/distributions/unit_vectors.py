"""Directions of vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_vectors(x: Tensor) -> Tensor:
    """x / norm(x) for vectors ``[*batch, d]``, and (1, 0, ..., 0) for zero vectors.

    Pyro's ``safe_normalize`` gives the same numbers, but writes to memory by a mask, which torch cannot trace.
    """
    unit = x / torch.linalg.norm(x, dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    first = (torch.arange(x.shape[-1], device=x.device) == 0).to(x.dtype)
    return torch.where((unit == 0).all(dim=-1, keepdim=True), first, unit)

"""Scales from the outputs of a network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["positive_scale"]


def positive_scale(raw: Tensor) -> Tensor:
    """sqrt(softplus(raw)^2 + eps), with eps the precision of the dtype; any shape.

    It does not overflow (it is linear above), and for locations of order 1, as under a standard normal prior, it does
    not fall so low that z - loc, of which log q is computed, loses more than half of its digits to rounding. At scales
    of order 1 it is softplus(raw) to rounding, so that float64 gives the model that float32 was trained as.
    """
    return (softplus(raw).square() + torch.finfo(raw.dtype).eps).sqrt()

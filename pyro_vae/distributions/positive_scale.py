"""Positive scales from the outputs of a network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def positive_scale(raw: Tensor) -> Tensor:
    """sqrt(softplus(raw)^2 + eps), where eps is the precision of the dtype, for a tensor of any shape.

    It is linear for large arguments, so it does not overflow. It has a lower limit, such that for locations of order 1,
    as under a standard normal prior, z - loc (from which log q is computed) keeps at least half of its digits. Scales
    of order 1 equal softplus(raw) up to rounding, so a model trained in float32 is the same model in float64.
    """
    return (softplus(raw).square() + torch.finfo(raw.dtype).eps).sqrt()

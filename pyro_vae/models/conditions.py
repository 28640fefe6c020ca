"""How parts are called with the conditions y of a datapoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.programs.arguments import most_tensors, parameters_of


def append(vectors: Tensor, conditions: Tensor) -> Tensor:
    """Appends conditions ``[*batch, conditions]`` to vectors ``[*batch, size]``; leading dimensions broadcast.

    Returns:
        ``[*batch, size + conditions]``; integers get the dtype of the conditions.
    """
    if not vectors.is_floating_point():
        vectors = vectors.to(conditions.dtype)
    batch = torch.broadcast_shapes(vectors.shape[:-1], conditions.shape[:-1])
    return torch.cat([vectors.expand(*batch, -1), conditions.expand(*batch, -1)], dim=-1)


def posterior_given(posterior: nn.Module, x: Tensor, y: Tensor, event_dims: int) -> Any:
    """Calls a posterior with data and conditions.

    A ``forward`` with two required arguments gets x and y as they are; one with a single argument gets x, flattened,
    with y appended.

    Args:
        posterior: The posterior.
        x: Data, ``[*batch, *event]``.
        y: Conditions, ``[*batch, conditions]``; the leading dimensions of x and y broadcast.
        event_dims: The number of dimensions of one datapoint, ``len(event)``.

    Returns:
        q(z | x, y).
    """
    required = [parameter for parameter in parameters_of(posterior) if parameter.default is parameter.empty]
    if most_tensors(required) == 2:
        return posterior(x, y)
    return posterior(append(x.flatten(-event_dims), y))

"""Hamiltonian Monte Carlo for many chains and many datapoints at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Move", "hmc_move"]


class Move(NamedTuple):
    """Where the chains are after a transition."""

    position: Tensor  #: ``[chains, n, dims]``.
    acceptance: Tensor  #: The probability with which each proposed move was accepted, ``[chains, n]``.


def hmc_move(
    position: Tensor,
    log_density: Callable[[Tensor], Tensor],
    step_size: Tensor,
    scale: Tensor,
    num_leapfrog: int,
) -> Move:
    """One transition that leaves the density invariant, for each chain by itself (Neal 2011, section 5.3).

    The step size is drawn anew within 20% of what is given, so that no chain goes round in a circle. A move to where
    the density is NaN or zero is rejected.

    Args:
        position: Where the chains are, ``[chains, n, dims]``.
        log_density: Maps positions to log-densities ``[chains, n]``, up to a constant for each datapoint.
        step_size: For each datapoint, ``[n]``.
        scale: For each dimension, ``[n, dims]``: about the standard deviation there.
        num_leapfrog: The number of leapfrog steps.
    """
    jitter = 0.8 + 0.4 * torch.rand(position.shape[:2], dtype=position.dtype, device=position.device)
    step = (step_size * jitter)[..., None] * scale
    momentum = torch.randn_like(position)  # in units of 1 / scale
    before, gradient = _value_and_gradient(log_density, position)
    energy = before - momentum.square().sum(-1) / 2
    moved = position
    for _ in range(num_leapfrog):
        momentum = momentum + step / 2 * gradient
        moved = moved + step * momentum
        after, gradient = _value_and_gradient(log_density, moved)
        momentum = momentum + step / 2 * gradient
    log_ratio = after - momentum.square().sum(-1) / 2 - energy
    acceptance = log_ratio.clamp_max(0).exp().nan_to_num(nan=0.0)
    accepted = torch.rand_like(acceptance) < acceptance
    return Move(torch.where(accepted[..., None], moved, position), acceptance)


@torch.enable_grad()
def _value_and_gradient(log_density: Callable[[Tensor], Tensor], position: Tensor) -> tuple[Tensor, Tensor]:
    position = position.detach().requires_grad_()
    value = log_density(position)
    (gradient,) = torch.autograd.grad(value.sum(), position)
    return value.detach(), gradient

"""Hamiltonian Monte Carlo for many chains and many datapoints at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

PERSISTENCE = 0.8  # the share of the momentum that is kept, per leapfrog step


class State(NamedTuple):
    """The position of chains, and the two log-densities between which they are annealed."""

    position: Tensor  #: ``[chains, n, dims]``.
    start: Tensor  #: The log-density at inverse temperature 0, ``[chains, n]``.
    end: Tensor  #: The log-density at inverse temperature 1, ``[chains, n]``.
    start_gradient: Tensor  #: ``[chains, n, dims]``.
    end_gradient: Tensor  #: ``[chains, n, dims]``.

    def at(self, inverse_temperature: Tensor) -> tuple[Tensor, Tensor]:
        """The log-density and its gradient at inverse temperatures ``[n]``."""
        by_dim = inverse_temperature[:, None]
        value = torch.lerp(self.start, self.end, inverse_temperature)
        return value, self.start_gradient + by_dim * (self.end_gradient - self.start_gradient)


class Move(NamedTuple):
    """The chains after a transition."""

    state: State
    acceptance: Tensor  #: The probability with which each proposed move was accepted, ``[chains, n]``.
    momentum: Tensor  #: For the next transition, ``[chains, n, dims]``.


def hmc_move(
    state: State,
    evaluate: Callable[[Tensor], State],
    inverse_temperature: Tensor,
    step_size: Tensor,
    num_leapfrog: int,
    momentum: Tensor | None = None,
) -> Move:
    """One transition of each chain that leaves its density invariant (Neal 2011, section 5.3).

    Part of the momentum of the last transition is kept (Horowitz 1991), so that many transitions with few leapfrog
    steps move as far as few with many. The momentum is reversed where a move is rejected.

    In the coordinates of the positions, the density is roughly standard normal. The Hamiltonian is split accordingly
    (Shahbaba et al. 2014, section 3.1): the motion under a standard normal, a rotation, is exact, and only the rest of
    the gradient is applied in steps. The step size is drawn within 20% of the given one, so that chains do not move in
    circles. A move to a point where the density is NaN or zero is rejected.

    Args:
        state: The state of the chains.
        evaluate: Maps positions to states.
        inverse_temperature: The inverse temperature of each datapoint, ``[n]``.
        step_size: The step size of each datapoint, an angle, ``[n]``.
        num_leapfrog: The number of leapfrog steps.
        momentum: The momentum of the last transition, ``[chains, n, dims]``; by default a new one is drawn.
    """
    position = state.position
    jitter = 0.8 + 0.4 * torch.rand(position.shape[:2], dtype=position.dtype, device=position.device)
    step = (step_size * jitter)[..., None]
    cos, sin = step.cos(), step.sin()
    fresh, kept = torch.randn_like(position), PERSISTENCE**num_leapfrog
    momentum = before = fresh if momentum is None else kept * momentum + math.sqrt(1 - kept**2) * fresh
    value, gradient = state.at(inverse_temperature)
    energy = value - momentum.square().sum(-1) / 2
    moved = state
    for _ in range(num_leapfrog):
        momentum = momentum + step / 2 * (gradient + position)
        position, momentum = cos * position + sin * momentum, cos * momentum - sin * position
        moved = evaluate(position)
        value, gradient = moved.at(inverse_temperature)
        momentum = momentum + step / 2 * (gradient + position)
    log_ratio = value - momentum.square().sum(-1) / 2 - energy
    acceptance = log_ratio.clamp_max(0).exp().nan_to_num(nan=0.0)
    accepted = torch.rand_like(acceptance) < acceptance
    chosen = State(*(_choose(accepted, new, old) for new, old in zip(moved, state, strict=True)))
    return Move(chosen, acceptance, _choose(accepted, momentum, -before))


def _choose(accepted: Tensor, new: Tensor, old: Tensor) -> Any:
    return torch.where(accepted if new.ndim == 2 else accepted[..., None], new, old)

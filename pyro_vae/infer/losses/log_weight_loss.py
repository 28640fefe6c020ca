"""What losses on the log-weights have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import Layout, Program, find_layout

__all__ = ["LogWeightLoss"]


class LogWeightLoss(ABC):
    """A loss that is a function of the log-weights of each datapoint: ``loss(model, guide, x)``, summed over them.

    It goes wherever an ELBO of Pyro goes: into ``SVI`` (Pyro's too) and ``fit``. Both programs are called with the same
    arguments, of which the first is the data, and share a plate over the rows of it, as in
    :func:`pyro_vae.weights.log_weights`. Particles are drawn at once, under a plate to the left of the programs' own.

    Args:
        num_particles: The number of draws for each datapoint.

    Raises:
        ValueError: If that is not a positive integer; when called, if the programs share no data plate, a site lies
            outside of it, their sites do not match, or the loss takes gradients through draws that have none.
    """

    through_draws = True  #: Whether gradients go through the draws, which then have to be reparameterized.

    def __init__(self, num_particles: int = 1) -> None:
        self.num_particles = check_count("num_particles", num_particles)
        self._programs: tuple[Program, Program] | None = None
        self._layout: Layout | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What other processes need: not the programs that it has met, which may be no more than local functions."""
        return {**vars(self), "_programs": None, "_layout": None}

    @abstractmethod
    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``, in nats."""

    def __call__(self, model: Program, guide: Program, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, ``[]``, with its gradient."""
        here = _at(model, args, kwargs), _at(guide, args, kwargs)
        if self._layout is None or self._programs != (model, guide):  # for which they are run once more
            self._layout, self._programs = find_layout(*here, check_rows(x)), (model, guide)
        particles = Particles(*here, x, self.num_particles, self._layout)
        if self.through_draws and torch.is_grad_enabled() and particles.not_reparameterized:
            raise ValueError(
                f"site {particles.not_reparameterized[0]!r} of the guide is not reparameterized, so its draws have no "
                f"gradient, which {type(self).__name__} goes by; ScoreFunction and WakeWake do without"
            )
        return -particles.weight * self.objective(particles).sum()


def _at(program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    """The program as one of x alone."""
    return lambda x: program(x, *args, **kwargs)

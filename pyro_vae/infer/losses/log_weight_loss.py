"""The base class of losses on the log-weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import Layout, Program, find_layout


class LogWeightLoss(ABC):
    """A function of the log-weights of each datapoint, summed over datapoints, as a loss: ``loss(model, guide, x)``.

    Use it like the ELBOs of Pyro, in ``SVI`` (also Pyro's) and ``fit``. Both programs are called with the
    same arguments, the first of which is the data, and share a plate over the rows of the data, as in
    :func:`pyro_vae.weights.log_weights`. Particles are drawn at once, in a plate to the left of the programs' plates.

    Args:
        num_particles: The number of draws for each datapoint.

    Raises:
        ValueError: If ``num_particles`` is not a positive integer; when called, if the programs share no data plate, a
            site lies outside of it, their sites do not match, or the loss needs reparameterized draws and a site of
            the guide has none.

    Example:
        >>> class MedianELBO(losses.LogWeightLoss):
        ...     def objective(self, particles):
        ...         return particles.log_weights(particles.latents).median(0).values
        >>> MedianELBO(num_particles=5)(vae.model, vae.guide, x).shape
        torch.Size([])
    """

    through_draws = True  #: Whether gradients go through the draws, which must then be reparameterized.

    def __init__(self, num_particles: int) -> None:
        self.num_particles = check_count("num_particles", num_particles)
        self._programs: tuple[Program, Program] | None = None
        self._layout: Layout | None = None

    def __getstate__(self) -> dict[str, Any]:
        """The state without the last programs, which may be local functions that cannot be pickled."""
        return {**vars(self), "_programs": None, "_layout": None}

    @abstractmethod
    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""

    def __call__(self, model: Program, guide: Program, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, ``[]``, in nats, summed over the datapoints; it is differentiable."""
        here = _at(model, args, kwargs), _at(guide, args, kwargs)
        if self._layout is None or self._programs != (model, guide):  # this runs both once more
            self._layout, self._programs = find_layout(*here, check_rows(x)), (model, guide)
        particles = Particles(*here, x, self.num_particles, self._layout)
        if self.through_draws and torch.is_grad_enabled() and particles.not_reparameterized:
            raise ValueError(
                f"site {particles.not_reparameterized[0]!r} of the guide is not reparameterized, so its draws have no "
                f"gradient, which {type(self).__name__} needs; ScoreFunction and WakeWake do not need it"
            )
        return -particles.weight * self.objective(particles).sum()


def _at(program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    """The program as a function of x alone."""
    return lambda x: program(x, *args, **kwargs)

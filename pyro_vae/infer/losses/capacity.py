"""A rate that is held at some level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_positive
from pyro_vae.infer.losses.latent_sites import draw

__all__ = ["Capacity"]


class Capacity:
    """The negative log-likelihood plus weight * |KL - capacity|: it asks for a rate of that capacity.

    That is equation 8 of Burgess et al. 2018, with the KL averaged over the batch, in closed form where there is one.
    The capacity is raised from nothing in the course of training: ``Capacity(1000.0, lambda epoch: min(25.0, epoch))``.
    ``fit`` says before every step what the epoch is; in a loop of your own, call :meth:`at_epoch`.

    Args:
        weight: The weight, gamma there: large, for it to be held.
        nats: The capacity, C there: a number, or a function of the number of epochs done (no integer in between).

    Raises:
        ValueError: If the weight is not a positive number.
    """

    def __init__(self, weight: float, nats: float | Callable[[float], float]) -> None:
        self.weight = check_positive("weight", weight)
        self._schedule = nats
        self.nats = torch.zeros(())  #: The capacity now.
        self.at_epoch(0.0)

    def at_epoch(self, epoch: float) -> None:
        """Sets the capacity to what it is after so many epochs."""
        self.nats.fill_(self._schedule(epoch) if callable(self._schedule) else self._schedule)

    def __call__(
        self, model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss, summed over the datapoints, with its gradient."""
        log_likelihood, sites = draw(model, guide, x, *args, **kwargs)
        rate = sum(site.divergence.sum() for site in sites.values()) / len(x)
        (site, *_) = sites.values()  # all have one scale
        self.nats = self.nats.to(x.device)
        return self.weight * site.scale * len(x) * (rate - self.nats).abs() - log_likelihood

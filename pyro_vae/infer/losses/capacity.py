"""The ELBO with the KL term held at a target value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_positive
from pyro_vae.infer.losses.latent_sites import draw
from pyro_vae.weights import Program


class Capacity:
    """The negative log-likelihood plus ``weight * |KL - capacity|``, which holds the KL term at the capacity.

    This is equation 8 of Burgess et al. 2018. The KL is averaged over the batch, and in closed form if there is one.
    The capacity usually grows from zero during training: ``Capacity(1000.0, lambda epoch: min(25.0, epoch))``. ``fit``
    sets the epoch before every step; in a training loop of your own, call :meth:`at_epoch`.

    Args:
        weight: The weight gamma of the paper; a large one holds the KL close to the capacity.
        nats: The capacity C of the paper, in nats: a number, or a function of the number of epochs done (a float).

    Raises:
        ValueError: If ``weight`` is not a positive number.

    Example:
        >>> loss = losses.Capacity(1000.0, lambda epoch: min(25.0, epoch))
        >>> loss.at_epoch(2.5)
        >>> loss.nats
        tensor(2.5000)
    """

    def __init__(self, weight: float, nats: float | Callable[[float], float]) -> None:
        self.weight = check_positive("weight", weight)
        self._schedule = nats
        self.nats = torch.zeros(())  #: The present capacity, ``[]``.
        self.at_epoch(0.0)

    def at_epoch(self, epoch: float) -> None:
        """Sets the capacity to its value after this number of epochs."""
        self.nats.fill_(self._schedule(epoch) if callable(self._schedule) else self._schedule)

    def __call__(self, model: Program, guide: Program, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, ``[]``, in nats, summed over the datapoints; it is differentiable."""
        log_likelihood, sites = draw(model, guide, x, *args, **kwargs)
        rate = sum(site.divergence.sum() for site in sites.values()) / len(x)
        (site, *_) = sites.values()  # all have one scale
        self.nats = self.nats.to(x.device)
        return self.weight * site.scale * len(x) * (rate - self.nats).abs() - log_likelihood

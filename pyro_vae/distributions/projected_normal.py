"""A distribution on the sphere that can be sampled by reparameterization, in any dimension."""

from __future__ import annotations

import math

import torch
from pyro import distributions as dist
from torch import Tensor

__all__ = ["ProjectedNormal"]


class ProjectedNormal(dist.ProjectedNormal):
    """The direction u = y / norm(y) of y ~ N(mu, I) (Pukkila & Rao 1988, equation 2.4).

    Pyro's distribution of this name, with its density in every dimension d and accurate in both tails. In polar
    coordinates y = r u, so that with respect to surface area, for t = u . mu,

        p(u) = (2 pi)^(-d/2) exp(-norm(mu - t u)^2 / 2) times the integral of r^(d-1) exp(-(r - t)^2 / 2) over r > 0.

    As in Pyro, ``mean`` is the mean direction mu / norm(mu), on the sphere, and not E[u], which lies inside of it.

    Args:
        concentration: mu, ``[*batch, d]``: its direction is the mean direction, and its norm the concentration.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-densities with respect to surface area in nats, ``[*batch]``, at unit vectors ``[*batch, d]``."""
        if self._validate_args:
            self._validate_sample(value)
        dim = self.event_shape[0]
        t = (value * self.concentration).sum(-1, keepdim=True)
        # Not norm(mu)^2 - t^2, which for a concentrated distribution is a small difference of large numbers.
        across = (self.concentration - t * value).square().sum(-1)
        return _log_radial_integral(dim, t.squeeze(-1)) - 0.5 * across - 0.5 * dim * math.log(2 * math.pi)


def _log_radial_integral(dim: int, t: Tensor) -> Tensor:
    """log of the integral of r^(dim - 1) exp(-(r - t)^2 / 2) over r > 0, elementwise in t.

    By the trapezoidal rule, which converges exponentially fast for what is smooth and vanishes at both ends. Over
    log r the integrand r^dim exp(-(r - t)^2 / 2) has one mode, where r (r - t) = dim; in units of the width there, and
    through a sinh that shortens its exponential tail, the same nodes serve every dim and t. The relative error is below
    1e-11. (The recurrence over dim, for t < 0, cancels unless it is run backward.)
    """
    x = torch.linspace(-5, 3, 81, dtype=t.dtype, device=t.device)
    asinh = torch.asinh(t / (2 * math.sqrt(dim)))
    mode = math.sqrt(dim) * asinh.exp()
    width = 1 / torch.hypot(mode, torch.full_like(mode, math.sqrt(dim)))
    offset = width.unsqueeze(-1) * x.sinh()  # log r, relative to the mode
    growth = offset.expm1()  # r / mode - 1
    # The exponent relative to that at the mode: zero there and negative elsewhere, without cancellation.
    exponent = dim * (offset - growth) - 0.5 * (mode.unsqueeze(-1) * growth).square()
    area = (exponent.exp() * x.cosh()).sum(-1) * 0.1
    return dim * (0.5 * math.log(dim) + asinh) - 0.5 * (dim / mode).square() + area.log() + width.log()

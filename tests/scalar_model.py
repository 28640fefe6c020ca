"""A model of one latent and one value, small enough that expectations over the noise of a few particles are integrals.

p(z) = N(0, 1), p(x | z) = N(a z + b, s^2), q(z | x) = N(c x + d, r^2). The expectation of any function of the
log-weights of k particles is a Gauss-Hermite sum over their k noises, and so is its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

MODEL = ("a", "b", "log_s")
GUIDE = ("c", "d", "log_r")


class ScalarModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        start = {"a": 1.2, "b": -0.3, "log_s": -0.2, "c": 0.3, "d": 0.4, "log_r": -0.1}
        for name, value in start.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value, dtype=torch.float64)))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            pyro.sample("x", dist.Normal(self.a * z + self.b, self.log_s.exp()), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.c * x + self.d, self.log_r.exp()))

    # What follows uses nothing of Pyro or of the library.

    def draw(self, x: float, noise: Tensor) -> Tensor:
        return self.c * x + self.d + self.log_r.exp() * noise

    def log_joint(self, x: float, z: Tensor) -> Tensor:
        return _log_normal(z, 0.0, torch.zeros(())) + _log_normal(x, self.a * z + self.b, self.log_s)

    def log_posterior(self, x: float, z: Tensor) -> Tensor:
        return _log_normal(z, self.c * x + self.d, self.log_r)

    def log_evidence(self, x: float) -> Tensor:
        variance = self.a**2 + (2 * self.log_s).exp()
        return -0.5 * (math.log(2 * math.pi) + variance.log() + (x - self.b) ** 2 / variance)

    def expectation(self, function: Callable[[Tensor], Tensor], num_particles: int, nodes: int) -> Tensor:
        """The mean of function(noise), noise ``[particles, points]``, over standard normal noise; ``[]``."""
        points, weights = np.polynomial.hermite_e.hermegauss(nodes)
        points, weights = torch.tensor(points), torch.tensor(weights / weights.sum())
        noise = torch.cartesian_prod(*[points] * num_particles).reshape(-1, num_particles).T
        weight = torch.cartesian_prod(*[weights] * num_particles).reshape(-1, num_particles).prod(-1)
        return (weight * function(noise)).sum()

    def parameters_of(self, names: tuple[str, ...]) -> list[nn.Parameter]:
        return [getattr(self, name) for name in names]


def _log_normal(value, loc, log_scale: Tensor) -> Tensor:
    return -0.5 * math.log(2 * math.pi) - log_scale - 0.5 * ((value - loc) / log_scale.exp()) ** 2

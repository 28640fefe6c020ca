"""Two hundred and more linear-Gaussian models, of 1 to 20 latent dimensions, as one pair of plain Pyro programs.

Datapoint n has a model of its own, p(z) = N(0, I), p(x | z) = N(W_n z + b_n, s_n^2 I). To stand in one tensor the
weights of unused latent dimensions are zero, which changes nothing: they are left with their prior.
"""

from __future__ import annotations

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

DIMS = 20


class ManyLinearGaussians:
    def __init__(self, n: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        self.latent = 1 + torch.arange(n) % DIMS
        self.used = torch.arange(DIMS) < self.latent[:, None]
        self.weight = normal(n, DIMS + 2, DIMS) * self.used[:, None] / self.latent[:, None, None].sqrt()
        self.bias = normal(n, DIMS + 2)
        self.scale = 0.3 + torch.rand(n, 1, dtype=torch.float64, generator=generator)
        self.x = (self.weight @ normal(n, DIMS, 1))[..., 0] + self.bias + self.scale * normal(n, DIMS + 2)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(DIMS, dtype=x.dtype), 1.0).to_event(1))
            loc = torch.einsum("nij,...nj->...ni", self.weight, z) + self.bias
            pyro.sample("x", dist.Normal(loc, self.scale).to_event(1), obs=x)

    def guide(self, shift: float = 0.0, widen: float = 1.0):
        """The exact posterior, moved by ``shift`` standard deviations and widened by ``widen`` in the used dimensions."""
        precision = torch.eye(DIMS) + self.weight.mT @ self.weight / self.scale[..., None] ** 2
        covariance = torch.linalg.inv(precision)
        residual = (self.x - self.bias) / self.scale**2
        loc = (covariance @ self.weight.mT @ residual[..., None])[..., 0]
        tril = torch.linalg.cholesky(covariance)
        loc = loc + shift * self.used * tril.diagonal(dim1=-2, dim2=-1)
        tril = torch.where(self.used, widen, 1.0)[..., None] * tril

        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=tril))

        return guide

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), ``[n]``."""
        noise = self.scale[..., None] ** 2 * torch.eye(DIMS + 2)
        covariance = self.weight @ self.weight.mT + noise
        return dist.MultivariateNormal(self.bias, covariance).log_prob(x)

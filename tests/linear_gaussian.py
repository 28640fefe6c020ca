"""A model whose evidence and posterior are known: p(z) = N(0, I), p(x | z) = N(W z + b, s^2 I).

Probabilistic PCA (Tipping & Bishop 1999). Everything that the library estimates has an exact answer here.
"""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae import VAE, priors


class LinearLikelihood(nn.Module):
    """p(x | z) = N(W z + b, s^2 I)."""

    def __init__(self, weight: Tensor, bias: Tensor, scale: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.scale = scale

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal(z @ self.weight.T + self.bias, self.scale).to_event(1)


class LinearPosterior(nn.Module):
    """The exact posterior, moved by ``shift`` of its standard deviations and widened by ``widen``."""

    def __init__(self, likelihood: LinearLikelihood, shift: float = 0.0, widen: float = 1.0) -> None:
        super().__init__()
        self.likelihood, self.shift, self.widen = likelihood, shift, widen

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        exact = exact_posterior(self.likelihood, x)
        shift = self.shift * exact.scale_tril.diagonal(dim1=-2, dim2=-1)
        return dist.MultivariateNormal(exact.loc + shift, scale_tril=self.widen * exact.scale_tril)


def exact_posterior(likelihood: LinearLikelihood, x: Tensor) -> dist.MultivariateNormal:
    """p(z | x) for x ``[*batch, event]``."""
    weight, variance = likelihood.weight, likelihood.scale**2
    covariance = torch.linalg.inv(torch.eye(weight.shape[1], dtype=weight.dtype) + weight.T @ weight / variance)
    loc = (x - likelihood.bias) @ weight @ covariance / variance
    return dist.MultivariateNormal(loc, scale_tril=torch.linalg.cholesky(covariance))


def exact_log_evidence(likelihood: LinearLikelihood, x: Tensor) -> Tensor:
    """log p(x), ``[n]``."""
    weight = likelihood.weight
    noise = likelihood.scale**2 * torch.eye(len(weight), dtype=weight.dtype)
    return dist.MultivariateNormal(likelihood.bias, weight @ weight.T + noise).log_prob(x).detach()


def random_instance(
    seed: int, latent: int, event: int, n: int, shift: float = 0.0, widen: float = 1.0
) -> tuple[VAE, Tensor]:
    """A random linear-Gaussian VAE in float64, and data drawn from it."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(event, latent, dtype=torch.float64, generator=generator)
    bias = torch.randn(event, dtype=torch.float64, generator=generator)
    scale = 0.3 + torch.rand((), dtype=torch.float64, generator=generator).item()
    likelihood = LinearLikelihood(weight, bias, scale)
    vae = VAE(priors.StandardNormal(latent).double(), likelihood, LinearPosterior(likelihood, shift, widen))
    z = torch.randn(n, latent, dtype=torch.float64, generator=generator)
    noise = torch.randn(n, event, dtype=torch.float64, generator=generator)
    return vae, (z @ weight.T + bias + scale * noise)

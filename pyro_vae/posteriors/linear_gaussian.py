"""The exact posterior of a linear-Gaussian model."""

from __future__ import annotations

from itertools import chain

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import Normal

from pyro_vae.checks import call_part, check_count
from pyro_vae.distributions.independent import split_independent
from pyro_vae.system.tracing import validation


class LinearGaussian(nn.Module):
    """p(z | x) where p(z) = N(0, I) and p(x | z) = N(W z + b, diag(s^2)) (Bishop 2006, equation 2.116).

    With one shared s this is probabilistic PCA (Tipping & Bishop 1999), with one s for each dimension factor analysis.
    W, b and s are taken from the likelihood at every call, so the posterior stays exact while the likelihood is
    trained. It has no parameters of its own, every log-weight is log p(x), and the ELBO is the log-likelihood.

    Args:
        likelihood: The likelihood of the model: ``likelihood(z)``, for z ``[*batch, latent]``, returns independent
            normals of event shape ``[*event]`` whose locations are affine in z and whose scales do not depend on z.
        latent_dim: The number of latent dimensions, at least 1.

    Raises:
        TypeError: If the likelihood is not an ``nn.Module``.
        ValueError: If ``latent_dim`` is not a positive integer, or the likelihood is not linear-Gaussian.

    Example:
        >>> likelihood = likelihoods.Normal(torch.nn.Linear(2, 5), scale=0.1)
        >>> pca = VAE(priors.StandardNormal(2), likelihood, posteriors.LinearGaussian(likelihood, 2))
        >>> log_w = weights.log_weights(pca.model, pca.guide, torch.randn(3, 5), num_particles=2)
        >>> torch.allclose(log_w[0], log_w[1], rtol=1e-4)  # both are log p(x)
        True
    """

    points: Tensor

    def __init__(self, likelihood: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = check_count("latent_dim", latent_dim)
        if not isinstance(likelihood, nn.Module):
            raise TypeError(f"likelihood is of type {type(likelihood).__name__}; expected an nn.Module")
        tensors = chain(likelihood.parameters(), likelihood.buffers())
        like = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(()))
        self.likelihood = likelihood
        # An affine map is determined by its values at the origin and at the unit vectors.
        points = torch.cat([torch.zeros(1, latent_dim), torch.eye(latent_dim)])
        self.register_buffer("points", points.to(like), persistent=False)
        self._check_linear()

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Returns p(z | x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``."""
        p_x = self.likelihood(self.points)
        scale = p_x.stddev[0]
        values = (p_x.mean / scale).flatten(1)
        bias, weight = values[0], values[1:] - values[0]  # of x / scale; the weight is transposed, [latent, event]
        precision = self.points[1:] + weight @ weight.T
        regression = torch.cholesky_solve(weight, torch.linalg.cholesky(precision))
        centred = (x / scale).flatten(x.ndim - scale.ndim) - bias
        loc = centred @ regression.T
        return dist.MultivariateNormal(loc, precision_matrix=precision, validate_args=validation())

    @torch.no_grad()
    def _check_linear(self) -> None:
        points = torch.cat([self.points, torch.full_like(self.points[:1], -0.5)])
        p_x = call_part(f"likelihood(z), for z of shape {list(points.shape)},", self.likelihood, points)
        base, _ = split_independent(p_x)
        if not isinstance(base, Normal) or p_x.batch_shape != points.shape[:1]:
            raise ValueError(f"likelihood(z) is {p_x}; expected independent normals, all in one event")
        origin, steps = p_x.mean[0], p_x.mean[1:] - p_x.mean[0]
        difference = steps[-1] + 0.5 * steps[:-1].sum(0)  # zero up to rounding if the map is affine
        if (difference.abs() > torch.finfo(steps.dtype).eps ** 0.5 * (origin.abs() + steps.abs().sum(0))).any():
            raise ValueError("the locations of likelihood(z) are not affine in z; the exact posterior is not known")
        if not torch.equal(p_x.stddev, p_x.stddev[:1].expand_as(p_x.stddev)):
            raise ValueError("the scales of likelihood(z) depend on z; the exact posterior is not known")

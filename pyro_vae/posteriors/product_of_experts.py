"""A normal posterior to which each observed value adds what it tells: for data with missing values."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.checks import check_count


class ProductOfExperts(nn.Module):
    """q(z | x) as a product of N(0, I) and a normal expert for each observed feature (Wu & Goodman 2018, section 2.2).

    The expert of feature f is exp(h_f z - (v_f z)^2 / 2), with h_f = a_f + b_f x_f. Precisions and natural means add
    up: the precision of q is I + sum_f v_f v_f^T, and its mean the inverse of that times sum_f h_f, over observed f.
    If p(x | z) is linear in z with normal noise, the exact posterior for any set of observed values has this form, with
    v_f = w_f / s_f. A network would have to learn what each set of missing values does to the posterior.

    Args:
        features: Maps data ``[*batch, *event]`` to features ``[*batch, features]`` of order 1, NaN where they are
            missing; for tables ``Table.features()``, for arrays such as ``torch.nn.Flatten()``.
        num_features: The number of features.
        latent_dim: The number of latent dimensions.

    Raises:
        ValueError: If a number is not a positive integer.

    Example:
        >>> posterior = posteriors.ProductOfExperts(torch.nn.Identity(), num_features=3, latent_dim=2)
        >>> nothing = posterior(torch.full((1, 3), torch.nan))  # the prior
        >>> nothing.mean.tolist(), nothing.stddev.tolist()
        ([[0.0, 0.0]], [[1.0, 1.0]])
    """

    def __init__(self, features: nn.Module, num_features: int, latent_dim: int) -> None:
        super().__init__()
        self.features = features
        self.num_features = check_count("num_features", num_features)
        self.latent_dim = check_count("latent_dim", latent_dim)
        # At first, the exact posterior of a random linear model with noise 1.
        self.directions = nn.Parameter(torch.randn(num_features, latent_dim) / num_features**0.5)
        self.slopes = nn.Parameter(self.directions.detach().clone())
        self.offsets = nn.Parameter(torch.zeros(num_features, latent_dim))

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Returns q(z | x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``."""
        features = self.features(x)
        missing = features.isnan()
        observed = (~missing).to(self.directions.dtype)
        known = torch.where(missing, 0.0, features).to(self.directions.dtype)
        natural_mean = known @ self.slopes + observed @ self.offsets
        directions = observed.unsqueeze(-1) * self.directions
        precision = torch.eye(self.latent_dim).to(directions) + directions.mT @ directions
        scale_tril = dist.MultivariateNormal(torch.zeros_like(natural_mean), precision_matrix=precision).scale_tril
        loc = scale_tril @ (scale_tril.mT @ natural_mean.unsqueeze(-1))
        return dist.MultivariateNormal(loc.squeeze(-1), scale_tril=scale_tril)

"""The distance of the aggregate posterior q(z) from the prior, instead of the KL of each q(z | x)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.checks import check_positive
from pyro_vae.infer.losses.latent_sites import draw

Kernel = Callable[[Tensor, Tensor], Tensor]


def gaussian_kernel(a: Tensor, b: Tensor) -> Tensor:
    """exp(-|a - b|^2 / (2 latent)), ``[n, m]``, for a ``[n, latent]`` and b ``[m, latent]``.

    It is 1 / e at the root mean square distance of two draws from a standard normal.
    """
    return torch.exp(-(a.unsqueeze(1) - b).square().mean(-1) / 2)


class InfoVAE:
    """-log p(x | z) + kl_weight * KL(q(z | x) || p(z)) + mmd_weight * MMD^2(q(z), p(z)).

    This is InfoVAE (Zhao et al. 2017, section 3) with the maximum mean discrepancy (MMD) as the divergence of q(z) from
    the prior; in the paper's notation kl_weight = 1 - alpha and mmd_weight = alpha + lambda - 1. Without the KL term
    the codes may hold any amount of information about x, as long as their distribution over all data is the prior. It
    is not a bound on log p(x).

    The MMD compares the latents of the batch with as many draws from the prior; for a batch of one datapoint the term
    is left out. A learned prior is trained by it if the prior's draws have a gradient.

    Args:
        mmd_weight: The weight of MMD^2, for each datapoint.
        kl_weight: The weight of the KL term, 0 to leave it out.
        kernel: A positive definite kernel: maps latents ``[n, latent]`` and ``[m, latent]`` to ``[n, m]``.

    Raises:
        ValueError: If ``mmd_weight`` is not a positive number, or ``kl_weight`` is negative.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.InfoVAE(mmd_weight=10.0))
        >>> loss = svi.step(x)
    """

    def __init__(self, mmd_weight: float, kl_weight: float = 0.0, kernel: Kernel = gaussian_kernel) -> None:
        self.mmd_weight = check_positive("mmd_weight", mmd_weight)
        self.kl_weight = kl_weight if kl_weight == 0 else check_positive("kl_weight", kl_weight)
        self.kernel = kernel

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The loss, ``[]``, in nats, summed over the datapoints; it is differentiable."""
        log_likelihood, sites = draw(model, guide, *args, **kwargs)
        prior = poutine.trace(model).get_trace(*args, **kwargs)  # at draws from the prior
        codes = _side_by_side([site.z for site in sites.values()])
        draws = _side_by_side([prior.nodes[name]["value"] for name in sites])
        loss = -log_likelihood
        if len(codes) > 1:
            weight = self.mmd_weight * next(iter(sites.values())).datapoints(len(codes))
            loss = loss + weight * maximum_mean_discrepancy(codes, draws, self.kernel)
        if self.kl_weight:
            loss = loss + self.kl_weight * sum(site.scale * site.divergence.sum() for site in sites.values())
        return loss


def maximum_mean_discrepancy(a: Tensor, b: Tensor, kernel: Kernel = gaussian_kernel) -> Tensor:
    """An unbiased estimate of MMD^2 from two samples, ``[]`` (Gretton et al. 2012, equation 3).

    Args:
        a: ``[n, latent]``, with n at least 2.
        b: ``[m, latent]``, with m at least 2.
        kernel: As in :class:`InfoVAE`.

    Raises:
        ValueError: If a sample has fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"the samples have {len(a)} and {len(b)} rows; expected at least 2 in each")
    return _mean_of_pairs(kernel(a, a)) + _mean_of_pairs(kernel(b, b)) - 2 * kernel(a, b).mean()


def _side_by_side(latents: list[Any]) -> Tensor:
    return torch.cat([z.reshape(len(z), -1) for z in latents], -1)


def _mean_of_pairs(values: Tensor) -> Tensor:
    n = len(values)
    return (values.sum() - values.diagonal().sum()) / (n * (n - 1))

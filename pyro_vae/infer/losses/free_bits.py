"""The ELBO with a minimum for the KL term of each latent dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyro_vae.checks import check_positive
from pyro_vae.infer.losses.latent_sites import draw


class FreeBits:
    """The negative ELBO with max(nats, KL) instead of the KL of each latent dimension (Kingma et al. 2016, C.8).

    The KL is averaged over the batch first (equation 15). Below the minimum a dimension gains nothing by a smaller KL,
    so it is not switched off before the decoder has learned to use it. If the dimensions of a site are not independent,
    as under a flow, the site counts as one dimension; its KL is taken at the draw if there is no closed form. The loss
    of a datapoint depends on the other datapoints of its batch, and with several processes on those of the same
    process.

    Args:
        nats: The minimum for each latent dimension, in nats.

    Raises:
        ValueError: If ``nats`` is not a positive number.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.FreeBits(0.5))
        >>> loss = svi.step(x)
    """

    def __init__(self, nats: float) -> None:
        self.nats = check_positive("nats", nats)

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The loss, ``[]``, in nats, summed over the datapoints; it is differentiable."""
        log_likelihood, sites = draw(model, guide, *args, **kwargs)
        loss = -log_likelihood
        for site in sites.values():
            divergence = site.divergence
            groups = divergence.flatten(0, -2).mean(0).clamp_min(self.nats)
            loss = loss + site.scale * divergence[..., 0].numel() * groups.sum()
        return loss

"""A rate that costs nothing below some level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyro_vae.checks import check_positive
from pyro_vae.infer.losses.latent_sites import draw

__all__ = ["FreeBits"]


class FreeBits:
    """The negative ELBO, with max(nats, KL) in the place of the KL of each latent dimension (Kingma et al. 2016, C.8).

    The KL is averaged over the batch first (equation 15), so that it does not pay to switch a dimension off before the
    decoder has learned to use it. Dimensions that are not independent, as under a flow, make one group: that of the
    site, of which the KL is taken at the draw if there is no closed form. A datapoint's share of the loss depends on
    the others of its batch: with several processes it is the batch of each.

    Args:
        nats: What each group may have for nothing.

    Raises:
        ValueError: If that is not a positive number.
    """

    def __init__(self, nats: float) -> None:
        self.nats = check_positive("nats", nats)

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The loss, summed over the datapoints, with its gradient."""
        log_likelihood, sites = draw(model, guide, *args, **kwargs)
        loss = -log_likelihood
        for site in sites.values():
            divergence = site.divergence
            groups = divergence.flatten(0, -2).mean(0).clamp_min(self.nats)
            loss = loss + site.scale * divergence[..., 0].numel() * groups.sum()
        return loss

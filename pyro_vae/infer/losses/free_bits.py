"""A rate that costs nothing below some level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from pyro_vae.checks import check_positive

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
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        model_trace.compute_log_prob()
        loss: Any = -sum(model_trace.nodes[name]["log_prob_sum"] for name in model_trace.observation_nodes)
        for name in guide_trace.stochastic_nodes:
            site: Any = guide_trace.nodes[name]
            if site_is_subsample(site):  # a plate
                continue
            divergence = _divergence(site["fn"], model_trace.nodes[name]["fn"], site["value"])
            groups = divergence.flatten(0, -2).mean(0).clamp_min(self.nats)
            loss = loss + site["scale"] * divergence[..., 0].numel() * groups.sum()
        return loss


def _divergence(q: Any, p: Any, z: Tensor) -> Tensor:
    """KL(q || p), ``[*batch, groups]``."""
    if _is_factorized(q) and _is_factorized(p):
        divergence = _closed_form(q.base_dist, p.base_dist)
        if divergence is not None:
            return divergence
        return q.base_dist.log_prob(z) - p.base_dist.log_prob(z)
    divergence = _closed_form(q, p)
    return (q.log_prob(z) - p.log_prob(z) if divergence is None else divergence).unsqueeze(-1)


def _is_factorized(distribution: Any) -> bool:
    return isinstance(distribution, Independent) and distribution.reinterpreted_batch_ndims == 1


def _closed_form(q: Any, p: Any) -> Tensor | None:
    try:
        return torch.as_tensor(kl_divergence(q, p))
    except NotImplementedError:
        return None

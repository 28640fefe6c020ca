"""The ELBO with a weight on the dependence between latent dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_positive
from pyro_vae.infer.losses.latent_sites import draw, is_factorized


class BetaTC:
    """The negative ELBO with the total correlation of q(z) multiplied by beta (Chen et al. 2018, equation 4).

    The KL term is a sum of three: the mutual information of z and the index of the datapoint, the total correlation
    KL(q(z) || product of q(z_d)), and the KL of each dimension. All are estimated from one draw.

    The aggregate posterior q(z), the mean of q(z | x) over all data, is estimated from the batch: the datapoint that z
    was drawn for has weight 1 / ``num_data``, the others share the rest (minibatch stratified sampling, appendix C.2).
    If the batch is the whole data set, q(z) is exact. Otherwise the total correlation is biased:

    - Too low where z lies among other datapoints of the batch: the log of a mean over few of them is too low. Example:
      by 1.4 nats for independent units in 5 dimensions with a mutual information of 6 nats and batches of 128 of 60000.
    - Too high in many dimensions, where z lies only near its own datapoint. Then log q(z) is estimated as log q(z | x)
      minus log ``num_data``, whatever the batch, which exceeds the value for an infinite data set by the mutual
      information minus log ``num_data``. Example: by 7 nats for independent units in 50 dimensions with a mutual
      information of 18 nats.

    Use it as a term of a loss, not as a number to report: ``evidence.decompose_elbo`` bounds it over all data.

    Args:
        beta: The weight of the total correlation.
        num_data: The number of datapoints in the training data.

    Raises:
        ValueError: If ``beta`` is not a positive number or ``num_data`` not a positive integer; when called, if there
            are several latent sites, or the dimensions of z are not independent under q(z | x).

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.BetaTC(6.0, num_data=len(x)))
        >>> loss = svi.step(x)
    """

    def __init__(self, beta: float, num_data: int) -> None:
        self.beta = check_positive("beta", beta)
        self.num_data = check_count("num_data", num_data)

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The loss, ``[]``, in nats, summed over the datapoints; it is differentiable."""
        log_likelihood, sites = draw(model, guide, *args, **kwargs)
        if len(sites) != 1:
            raise ValueError(f"the latent sites are {list(sites)}; BetaTC expects exactly one")
        (name, site), *_ = sites.items()
        if not is_factorized(site.q) or site.z.ndim != 2:
            raise ValueError(
                f"q of {name!r} is not a vector with independent dimensions; BetaTC expects one for each datapoint"
            )
        log_conditional = site.q.log_prob(site.z)
        correlation = total_correlation(site.q.base_dist, site.z, self.num_data)
        kl = log_conditional - site.p.log_prob(site.z)
        return site.scale * (kl + (self.beta - 1) * correlation).sum() - log_likelihood


def total_correlation(q: Any, z: Tensor, num_data: int) -> Tensor:
    """log q(z) - sum of log q(z_d) in nats, ``[n]``, estimated from a batch; see :class:`BetaTC` for its bias.

    Args:
        q: q(z_d | x) of each datapoint of the batch, a distribution with batch shape ``[n, latent]``.
        z: A draw for each datapoint, ``[n, latent]``.
        num_data: The number of datapoints in the whole data set.
    """
    n = len(z)
    log_densities = q.log_prob(z.unsqueeze(1))  # of draw i under q given datapoint j
    others = math.log((num_data - 1) / (num_data * (n - 1))) if min(n, num_data) > 1 else -math.inf
    log_shares = torch.full((n, n), others, dtype=z.dtype, device=z.device).fill_diagonal_(-math.log(num_data))
    log_joint = (log_shares + log_densities.sum(-1)).logsumexp(1)
    return log_joint - (log_shares.unsqueeze(-1) + log_densities).logsumexp(1).sum(-1)

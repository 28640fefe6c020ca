"""A weight on the dependence between latent dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_positive
from pyro_vae.infer.losses.latent_sites import draw, is_factorized

__all__ = ["BetaTC"]


class BetaTC:
    """The negative ELBO, with the total correlation of q(z) times beta instead of once (Chen et al. 2018, equation 4).

    The KL is sampled: it is the mutual information of z and the index of the datapoint, plus the total correlation
    KL(q(z) || product of q(z_d)), plus the KL of each dimension.

    The density of q(z), the mean of q(z | x) over all data, is estimated from the batch, in which the datapoint that z
    is of counts once in ``num_data`` (minibatch stratified sampling, appendix C.2). A batch of all data has the density
    of these data exactly. With less, the total correlation is off, in one direction or the other:

    - Too low where z lies among other datapoints of the batch: the log of a mean over few of them is too low. With
      independent units, 5 dimensions, and a mutual information of 6 nats: by 1.4, in batches of 128 of 60000.
    - Too high in many dimensions, where z lies near its own datapoint alone. The log of q(z) is then log q(z | x)
      minus the log of ``num_data``, whatever the batch: above that of more data of the kind, by their mutual
      information less the log of ``num_data``. With independent units, 50 dimensions, and a mutual information of 18
      nats: by 7.

    So it is a weight in a loss, and no number to report: ``evidence.decompose_elbo`` has bounds on it, over all data.

    Args:
        beta: The weight.
        num_data: The number of datapoints of the training data.

    Raises:
        ValueError: If the weight is not a positive number, or the number of datapoints not a positive integer; when
            called, if there are several latent sites, or q(z | x) has dimensions that are not independent.
    """

    def __init__(self, beta: float, num_data: int) -> None:
        self.beta = check_positive("beta", beta)
        self.num_data = check_count("num_data", num_data)

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The loss, summed over the datapoints, with its gradient."""
        log_likelihood, sites = draw(model, guide, *args, **kwargs)
        if len(sites) != 1:
            raise ValueError(f"the latent sites are {list(sites)}; expected one, for BetaTC")
        (name, site), *_ = sites.items()
        if not is_factorized(site.q) or site.z.ndim != 2:
            raise ValueError(f"q of {name!r} is no vector of independent values for each datapoint; BetaTC needs one")
        log_conditional = site.q.log_prob(site.z)
        correlation = total_correlation(site.q.base_dist, site.z, self.num_data)
        kl = log_conditional - site.p.log_prob(site.z)
        return site.scale * (kl + (self.beta - 1) * correlation).sum() - log_likelihood


def total_correlation(q: Any, z: Tensor, num_data: int) -> Tensor:
    """log q(z) - sum of log q(z_d), estimated from a batch, ``[n]``: see :class:`BetaTC` for how far it is off.

    Args:
        q: The densities of each dimension given each datapoint of the batch, a distribution of batch shape
            ``[n, latent]``.
        z: A draw from each, ``[n, latent]``.
        num_data: The number of datapoints that the batch is from.
    """
    n = len(z)
    log_densities = q.log_prob(z.unsqueeze(1))  # of draw i under q given datapoint j
    others = math.log((num_data - 1) / (num_data * (n - 1))) if min(n, num_data) > 1 else -math.inf
    log_shares = torch.full((n, n), others, dtype=z.dtype, device=z.device).fill_diagonal_(-math.log(num_data))
    log_joint = (log_shares + log_densities.sum(-1)).logsumexp(1)
    return log_joint - (log_shares.unsqueeze(-1) + log_densities).logsumexp(1).sum(-1)

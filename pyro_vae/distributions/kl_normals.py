"""KL divergences from correlated normals to independent normals, which neither torch nor Pyro has."""

from __future__ import annotations

import math

from torch import Tensor
from torch.distributions import Independent, LowRankMultivariateNormal, MultivariateNormal, Normal, register_kl


@register_kl(MultivariateNormal, Independent)
@register_kl(LowRankMultivariateNormal, Independent)
def _kl_correlated_independent(q: MultivariateNormal | LowRankMultivariateNormal, p: Independent) -> Tensor:
    """KL(q || p) in nats, ``[*batch]``: E_q[-log p] - H(q), where E_q[-log p] needs only the marginals of q."""
    if not isinstance(p.base_dist, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    loc, scale = p.base_dist.loc, p.base_dist.scale
    # Squares of quotients, since quotients of squares would overflow or underflow sooner.
    if isinstance(q, MultivariateNormal):
        variance = (q.scale_tril / scale.unsqueeze(-1)).square().sum(-1)
    else:
        variance = (q.cov_factor / scale.unsqueeze(-1)).square().sum(-1) + q.cov_diag / scale / scale
    squares = variance + ((q.mean - loc) / scale).square()
    cross_entropy = (0.5 * (squares + math.log(2 * math.pi)) + scale.log()).sum(-1)
    return cross_entropy - q.entropy()

"""KL divergences from normals with correlations to independent normals, which neither torch nor Pyro knows."""

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
    squares = (q.variance + (q.mean - loc).square()) / scale.square()
    cross_entropy = (0.5 * (squares + math.log(2 * math.pi)) + scale.log()).sum(-1)
    return cross_entropy - q.entropy()

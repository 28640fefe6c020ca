"""KL(q || p) of two programs, in closed form where there is one."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pyro_vae.distributions.independent import split_independent
from pyro_vae.weights import Layout, sample_sites, site_log_prob, sum_out


class KL(NamedTuple):
    """KL(q || p) of all latents."""

    total: Tensor  #: In nats, ``[particles, n]``.
    is_analytic: bool  #: Whether it is in closed form for every site, rather than sampled for some.


def mean_field_kl(model_trace: Trace, guide_trace: Trace, layout: Layout) -> KL:
    """The sum of KL(q || p) over sites, sampled where there is no closed form: as ``TraceMeanField_ELBO`` has it."""
    total, is_analytic = torch.zeros(()), True
    for name, site in sample_sites(guide_trace):
        other = model_trace.nodes.get(name)
        kl = None if other is None else _closed_form(site["fn"], other["fn"])
        if kl is not None:
            parts = [scale_and_mask(kl, mask=site["mask"])]
        else:
            is_analytic = False
            # Pyro leaves out log q where a site is not reparameterized.
            scored = site["fn"].score_parts(site["value"], *site["args"], **site["kwargs"])
            parts = [scored.scale_and_mask(mask=site["mask"]).entropy_term]
            parts += [] if other is None else [-site_log_prob(other)]
        for part in parts:
            total = total + (sum_out(part, layout, name) if isinstance(part, Tensor) else part)
    return KL(total, is_analytic)


def _closed_form(guide_fn: Any, model_fn: Any) -> Tensor | None:
    """KL(q || p), ``[*batch]``, or None."""
    (q, event_dims), (p, _) = split_independent(guide_fn), split_independent(model_fn)
    if not (isinstance(q, Normal) and isinstance(p, Normal)):
        try:
            return torch.as_tensor(kl_divergence(guide_fn, model_fn)).expand(guide_fn.batch_shape)
        except NotImplementedError:
            return None
    # Kingma & Welling 2013, appendix B, for a normal prior of any location and scale.
    ratio, shift = (q.scale / p.scale).square(), ((q.loc - p.loc) / p.scale).square()
    kl = 0.5 * (ratio + shift - 1 - ratio.log())
    return kl.sum(tuple(range(-event_dims, 0))) if event_dims else kl

"""One draw of all latents, and the KL divergence at each latent site."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from pyro_vae.infer.reparameterized import check_reparameterized
from pyro_vae.weights import Program, sample_sites, trace_pair


class LatentSite(NamedTuple):
    """A latent site of both programs."""

    z: Tensor  #: The draw, ``[*batch, *event]``.
    q: Any  #: The distribution of the guide.
    p: Any  #: The distribution of the model.
    scale: Any  #: The factor of the log-densities of the site.
    mask: Any  #: Where the log-densities count.
    is_given: bool  #: Whether the guide draws this site after the site's parents in the model.
    plates: Any  #: The plates that contain the site.

    def datapoints(self, rows: int) -> float:
        """How many datapoints a batch of ``rows`` rows represents: more if the data plate is subsampled."""
        return next((frame.full_size for frame in self.plates if frame.size == rows), rows)

    @property
    def divergence(self) -> Tensor:
        """KL(q || p) in nats without scale, ``[*batch, groups]``: in closed form if there is one, else at the draw.

        Independent latent dimensions are one group each; dependent ones form one group together.
        """
        apart = is_factorized(self.q) and is_factorized(self.p)
        q, p = (self.q.base_dist, self.p.base_dist) if apart else (self.q, self.p)
        divergence = self._closed_form(q, p)
        if divergence is None:
            divergence = q.log_prob(self.z) - p.log_prob(self.z)
        if not apart:
            divergence = divergence.unsqueeze(-1)
        mask = self.mask.unsqueeze(-1) if isinstance(self.mask, Tensor) else self.mask
        return scale_and_mask(divergence, mask=mask)

    def _closed_form(self, q: Any, p: Any) -> Tensor | None:
        if not self.is_given:  # a closed form given the parents would have another expectation
            return None
        try:
            return torch.as_tensor(kl_divergence(q, p))
        except NotImplementedError:
            return None


def is_factorized(distribution: Any) -> bool:
    """Whether this is a distribution of vectors with independent entries."""
    return isinstance(distribution, Independent) and distribution.reinterpreted_batch_ndims == 1


def draw(model: Program, guide: Program, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, LatentSite]]:
    """Runs the guide, then the model on the guide's draws.

    Returns:
        log p(x | z) in nats, scaled and summed over datapoints, ``[]``; and the latent sites by name.
    """
    model_trace, guide_trace = trace_pair(model, guide, *args, **kwargs)
    model_trace.compute_log_prob()
    log_likelihood = sum(model_trace.nodes[name]["log_prob_sum"] for name in model_trace.observation_nodes)
    latents = [name for name, site in sample_sites(guide_trace) if not site["infer"].get("is_auxiliary")]
    if torch.is_grad_enabled():
        for name in latents:
            check_reparameterized(name, guide_trace.nodes[name])
    is_given = latents == [name for name in model_trace.stochastic_nodes if name in latents]
    return log_likelihood, {name: _latent_site(model_trace, guide_trace, name, is_given) for name in latents}


def _latent_site(model_trace: Trace, guide_trace: Trace, name: str, is_given: bool) -> LatentSite:
    guided: Any = guide_trace.nodes[name]
    modelled: Any = model_trace.nodes[name]
    plates = guided["cond_indep_stack"]
    return LatentSite(guided["value"], guided["fn"], modelled["fn"], guided["scale"], guided["mask"], is_given, plates)

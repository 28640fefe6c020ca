"""Proposals other than the guide itself: for guides that are too narrow.

A proposal is called as ``proposal(model, guide, x, num_particles, layout)`` and returns :class:`Terms` whose
``log_posterior`` is the density of the proposal. ``pyro_vae.weights.terms``, which draws from the guide, is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.contrib.zuko import ZukoToPyro
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions.transforms import AffineTransform

from pyro_vae.checks import check_positive
from pyro_vae.distributions.bijections import is_unbounded
from pyro_vae.weights import Layout, Program, Terms, sample_sites, terms, terms_at, trace_of

Proposal = Callable[[Program, Program, Tensor, int, Layout], Terms]


def widened(factor: float) -> Proposal:
    """Draws from the guide, stretched around its mean at every site, so that its tails cover more.

    Args:
        factor: z = mean + factor (z' - mean), for z' from the guide; above 1 to widen.

    Raises:
        ValueError: If the factor is not positive; when drawing, if a site of the guide has a bounded or discrete
            support, or no mean in closed form.

    Example:
        >>> proposal = evidence.widened(1.5)
        >>> result = evidence.importance(vae.model, vae.guide, x, num_samples=100, proposal=proposal, progress=False)
        >>> result.log_prob.shape
        torch.Size([8])
    """
    check_positive("factor", factor)

    def proposal(model: Program, guide: Program, x: Tensor, num_particles: int, layout: Layout) -> Terms:
        return terms(model, _Widened(factor)(guide), x, num_particles, layout)

    return proposal


class _Widened(Messenger):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or poutine.util.site_is_subsample(msg):
            return
        fn = msg["fn"].dist if isinstance(msg["fn"], ZukoToPyro) else msg["fn"]
        try:
            support, loc = fn.support, (1 - self.factor) * fn.mean
        except NotImplementedError as error:
            raise ValueError(
                f"site {msg['name']!r} of the guide, a {type(fn).__name__}, has no mean to widen it around"
            ) from error
        if not is_unbounded(fn):
            raise ValueError(f"site {msg['name']!r} of the guide has support {support}; only a real one can be widened")
        stretch = AffineTransform(loc, self.factor, event_dim=len(fn.event_shape))
        msg["fn"] = dist.TransformedDistribution(fn, [stretch])


def defensive(prior_weight: float = 0.1) -> Proposal:
    """Draws from a mixture of the guide and the prior (Hesterberg 1995; Owen & Zhou 2000).

    The density of the mixture is at least ``prior_weight`` times the prior, so no weight exceeds the maximum of the
    likelihood divided by ``prior_weight``. For any guide, the weights are bounded if the likelihood is. It costs about
    twice as much as the guide alone.

    Args:
        prior_weight: The weight of the prior, between 0 and 1.

    Raises:
        ValueError: If it is not between 0 and 1.

    Example:
        >>> proposal = evidence.defensive(prior_weight=0.2)
        >>> result = evidence.importance(vae.model, vae.guide, x, num_samples=100, proposal=proposal, progress=False)
        >>> result.log_prob.shape
        torch.Size([8])
    """
    if not 0 < prior_weight < 1:
        raise ValueError(f"prior_weight is {prior_weight!r}; expected a number between 0 and 1")

    def proposal(model: Program, guide: Program, x: Tensor, num_particles: int, layout: Layout) -> Terms:
        traces = (trace_of(program, x, num_particles, layout) for program in (guide, model))
        from_guide, from_prior = (dict(sample_sites(trace)) for trace in traces)
        is_prior = torch.rand(num_particles, len(x), device=x.device) < prior_weight
        latents = {}
        for name, site in from_guide.items():
            if name in from_prior:  # auxiliary sites are not
                drawn, other = (layout.by_datapoint(value) for value in (site["value"], from_prior[name]["value"]))
                choice = is_prior.reshape(*is_prior.shape, *[1] * (drawn.ndim - 2))
                latents[name] = layout.by_site(torch.where(choice, other, drawn))
        at = terms_at(model, guide, x, latents, num_particles, layout)
        density = torch.logaddexp(math.log1p(-prior_weight) + at.log_posterior, math.log(prior_weight) + at.log_prior)
        return at._replace(log_posterior=density)

    return proposal

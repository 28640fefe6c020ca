"""Laplace's approximation as a proposal: a normal for each mode of p(x, z), for every datapoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.unconstrained.approximate_likelihood import informed
from pyro_vae.evidence.unconstrained.log_joint import LogJoint
from pyro_vae.evidence.unconstrained.modes import fit_normals
from pyro_vae.evidence.unconstrained.normal_mixture import NormalMixture
from pyro_vae.evidence.unconstrained.posterior_means import at_means
from pyro_vae.evidence.unconstrained.starts import prior_scale, starts
from pyro_vae.system.private_apis import version_of
from pyro_vae.weights import Layout, Program, Terms, no_sites, terms_at

LEAST_STARTS, MOST_STARTS = 5, 32
START_DIMS = 250  # starts times dimensions: in few dimensions, many starts are cheap
DOUBLINGS = 2  # of the number of starts
NEGLIGIBLE = 0.01  # the share of a mode that does not matter
PRIOR_SHARE = 0.1  # of the draws


def laplace() -> Proposal:
    """Draws from normals fitted to p(x, z) at its modes, slightly widened and with heavier tails.

    Each normal has the curvature at a mode, but is centered where it fits best: a skewed posterior has its mass beside
    its mode. The search for modes has several starts, among them draws from the guide and from the prior. The normals
    are in unconstrained coordinates, so latents may have bounds; all must be continuous. The normals are fitted once
    for each block of datapoints, so more samples of the same block need no new fit. A fifth of the draws from the
    normals are from Student t distributions of the same shape, for heavier tails. A tenth of all draws are from the
    prior, for modes that no start has found (Hesterberg 1995).

    Returns:
        A proposal for :func:`~pyro_vae.evidence.importance` and other functions.

    Example:
        >>> result = evidence.importance(vae.model, vae.guide, x, num_samples=100, proposal=evidence.laplace())
        >>> result.log_prob.shape
        torch.Size([8])
    """
    return _Laplace()


class _Laplace:
    """Keeps the normals of the last blocks."""

    KEPT = 4

    def __init__(self) -> None:
        self._fitted: list[tuple[Any, LogJoint, NormalMixture]] = []

    def __call__(self, model: Program, guide: Program, x: Tensor, num_particles: int, layout: Layout) -> Terms:
        log_joint, normals = self._fit(model, guide, x, num_particles, layout)
        every = torch.arange(len(x), device=x.device)
        position = draw_mixture(log_joint, normals, every, num_particles)
        latents, log_det = log_joint.to_latents(position)
        at = terms_at(model, no_sites, x, latents, num_particles, layout)
        # Far out, densities may overflow: a draw there has weight zero.
        prior, likelihood = (part.nan_to_num(nan=-torch.inf, neginf=-torch.inf) for part in at[:2][::-1])
        density = log_mixture(normals, position, prior + log_det) - log_det
        return Terms(likelihood, prior, density, latents)

    def _fit(
        self, model: Program, guide: Program, x: Tensor, num_particles: int, layout: Layout
    ) -> tuple[LogJoint, NormalMixture]:
        key = (model, guide, x.data_ptr(), version_of(x), x.shape)
        for known, log_joint, normals in self._fitted:
            if known == key and torch.equal(log_joint.x, x):
                return log_joint, normals
        log_joint = informed(LogJoint(model, x, layout, max(1024, num_particles * len(x))), guide)
        normals = fit_block(log_joint, guide).normals
        self._fitted = [*self._fitted[-self.KEPT + 1 :], (key, log_joint, normals)]
        return log_joint, normals


@torch.no_grad()
def draw_mixture(log_joint: LogJoint, normals: NormalMixture, rows: Tensor, num_samples: int) -> Tensor:
    """Draws ``[samples, m, dims]`` from normals of some rows ``[m]``; the first tenth is from the prior."""
    from_prior = _from_prior(num_samples)
    drawn = normals.draw(num_samples - from_prior, tails=True)
    return torch.cat([log_joint.draw(log_joint.model, from_prior)[:, rows], drawn]) if from_prior else drawn


def log_mixture(normals: NormalMixture, position: Tensor, log_prior: Tensor) -> Tensor:
    """The log-density of :func:`draw_mixture`, ``[samples, m]``, with all samples drawn at once."""
    density, share = normals.log_prob(position, tails=True), _from_prior(len(position)) / len(position)
    return torch.logaddexp(math.log1p(-share) + density, math.log(share) + log_prior) if share else density


def _from_prior(num_samples: int) -> int:
    return round(PRIOR_SHARE * num_samples)


class Fit(NamedTuple):
    """Normals for a block of datapoints, one for each mode."""

    normals: NormalMixture
    complete: Tensor  #: Whether the last doubling of the starts found no more modes, ``[n]``.
    scale: Tensor  #: The approximate width of the prior, ``[n, dims]``.


def fit_block(log_joint: LogJoint, guide: Program, is_late: Callable[[], bool] = lambda: False) -> Fit:
    """As :func:`find_modes`, with the normals moved to where they fit best."""
    fit = find_modes(log_joint, guide, is_late)
    rows = torch.arange(len(log_joint.x), device=log_joint.x.device)
    return fit._replace(normals=at_means(log_joint, fit.normals, rows))


@torch.no_grad()
def find_modes(log_joint: LogJoint, guide: Program, is_late: Callable[[], bool] = lambda: False) -> Fit:
    """Normals at the modes of a block of datapoints, found from several starts.

    For datapoints with more than one mode, the search is repeated with twice as many starts, until it finds no more
    modes than before. A search that finds fewer modes is discarded.

    Args:
        log_joint: log p(x, z) of the block.
        guide: The guide, whose mean and draws are starts.
        is_late: Whether there is no time left to repeat the search.
    """
    rows = torch.arange(len(log_joint.x), device=log_joint.x.device)
    num_starts = min(MOST_STARTS, max(LEAST_STARTS, START_DIMS // log_joint.dims))
    scale = prior_scale(log_joint)
    normals = fit_normals(log_joint, starts(log_joint, guide, num_starts, rows), scale, rows)
    growing = rows[normals.num_modes(NEGLIGIBLE) > 1]
    for _ in range(DOUBLINGS):
        if len(growing) == 0 or is_late():
            break
        num_starts *= 2
        more = fit_normals(log_joint, starts(log_joint, guide, num_starts, growing), scale[growing], growing)
        before, after = normals.rows(growing).num_modes(NEGLIGIBLE), more.num_modes(NEGLIGIBLE)
        better = (after >= before).nonzero()[:, 0]
        normals = normals.updated(growing[better], more.rows(better))
        growing = growing[after != before]
    complete = torch.ones_like(rows, dtype=torch.bool)
    complete[growing] = False
    return Fit(normals.flattened(), complete, scale)


@torch.no_grad()
def refit(log_joint: LogJoint, fit: Fit, rows: Tensor, starts: Tensor) -> Fit:
    """Repeats the search for some rows ``[m]``, from more starts ``[starts, m, dims]`` and the known modes."""
    known = fit.normals.center[:, rows]
    known = torch.where(fit.normals.log_weight[:, rows, None].isfinite(), known, starts[:1])
    normals = fit_normals(log_joint, torch.cat([known, starts]), fit.scale[rows], rows)
    normals = at_means(log_joint, normals.flattened(), rows)
    return fit._replace(normals=fit.normals.updated(rows, normals))

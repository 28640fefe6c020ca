"""Laplace's approximation as a proposal: normals at the modes of p(x, z), for every datapoint."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.evidence.log_joint import LogJoint
from pyro_vae.evidence.modes import fit_normals
from pyro_vae.evidence.normal_mixture import NormalMixture
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.weights import Layout, Program, Terms, no_sites, terms_at

__all__ = ["Fit", "fit_block", "laplace"]

DRAWS = 32  # of prior and guide, among which starts are chosen
LEAST_STARTS, MOST_STARTS = 4, 16
START_DIMS = 200  # starts times dimensions: few dimensions are searched well at little cost
DOUBLINGS = 3
NEGLIGIBLE = 0.01  # the share of a mode that does not matter


def laplace() -> Proposal:
    """Draws from normals at the modes of p(x, z), with the curvature there, a little widened and with heavier tails.

    The modes are looked for from several starts, draws of the guide and of the prior among them. The normals
    live in unconstrained coordinates, so that latents with bounds are taken too; all must be continuous. They are
    fitted once for each block of datapoints, so that more samples of the same block do not pay for them again. A fifth
    of the draws come from Student t distributions of the same shape, which bounds the weights where the posterior's
    tails are heavier than those of a normal.

    Returns:
        A proposal for :func:`~pyro_vae.evidence.importance` and the like.

    Example:
        >>> evidence.importance(model, guide, x, proposal=evidence.laplace())  # doctest: +SKIP
    """
    return _Laplace()


class _Laplace:
    """Remembers the normals of the last blocks it has seen."""

    KEPT = 4

    def __init__(self) -> None:
        self._fitted: list[tuple[Any, LogJoint, NormalMixture]] = []

    def __call__(self, model: Program, guide: Program, x: Tensor, num_particles: int, layout: Layout) -> Terms:
        log_joint, normals = self._fit(model, guide, x, num_particles, layout)
        position = normals.draw(num_particles, tails=True)
        latents, log_det = log_joint.vectors.to_latents(position)
        at = terms_at(model, no_sites, x, latents, num_particles, layout)
        return at._replace(log_posterior=normals.log_prob(position, tails=True) - log_det, latents=latents)

    def _fit(
        self, model: Program, guide: Program, x: Tensor, num_particles: int, layout: Layout
    ) -> tuple[LogJoint, NormalMixture]:
        key = (model, guide, x.data_ptr(), x._version, x.shape)
        for known, log_joint, normals in self._fitted:
            if known == key and torch.equal(log_joint.x, x):
                return log_joint, normals
        log_joint = LogJoint(model, x, layout, max(1024, num_particles * len(x)))
        normals = fit_block(log_joint, guide).normals
        self._fitted = [*self._fitted[-self.KEPT + 1 :], (key, log_joint, normals)]
        return log_joint, normals


class Fit(NamedTuple):
    """Normals at the modes of a block of datapoints."""

    normals: NormalMixture
    complete: Tensor  #: Whether more starts would hardly find more modes, ``[n]``.


@torch.no_grad()
def fit_block(log_joint: LogJoint, guide: Program) -> Fit:
    """Normals at the modes of a block of datapoints, which are looked for from several starts.

    Where more than one mode was found, it is looked for more of them, with twice as many starts each time, until there
    are no more than before: modes that one start only has come upon are a sign of others that none has.

    Args:
        log_joint: That of the block.
        guide: The guide, of which mean and draws are starts.
    """
    rows = torch.arange(len(log_joint.x), device=log_joint.x.device)
    num_starts = min(MOST_STARTS, max(LEAST_STARTS, START_DIMS // log_joint.dims))
    prior = log_joint.draw_prior(DRAWS)
    scale = ((prior - prior.median(0).values).abs().median(0).values * 1.4826).clamp_min(1e-6)
    normals = fit_normals(log_joint, _starts(log_joint, guide, num_starts, rows), scale, rows)
    growing = rows[normals.num_modes(NEGLIGIBLE) > 1]
    for _ in range(DOUBLINGS):
        if len(growing) == 0:
            break
        num_starts *= 2
        more = fit_normals(log_joint, _starts(log_joint, guide, num_starts, growing), scale[growing], growing)
        before, after = normals.rows(growing).num_modes(NEGLIGIBLE), more.num_modes(NEGLIGIBLE)
        better = (after >= before).nonzero()[:, 0]
        normals = normals.updated(growing[better], more.rows(better))
        growing = growing[after != before]
    complete = torch.ones_like(rows, dtype=torch.bool)
    complete[growing] = False
    return Fit(normals.flattened(), complete)


def _starts(log_joint: LogJoint, guide: Program, num_starts: int, rows: Tensor) -> Tensor:
    """The mean of the guide, draws of it, the likeliest of some draws from the prior, and others as they come."""
    guided = log_joint.draw_guide(guide, DRAWS)[:, rows]
    prior = log_joint.draw_prior(max(DRAWS, num_starts))[:, rows]
    likeliest = log_joint.value(prior, rows).nan_to_num(nan=-torch.inf).argmax(0)
    best = prior.gather(0, likeliest[None, :, None].expand(1, *prior.shape[1:]))
    from_guide = min(DRAWS, (num_starts - 2) // 2)
    parts = [guided.mean(0, keepdim=True), best, guided[:from_guide], prior[: num_starts - 2 - from_guide]]
    return torch.cat(parts)

"""The modes of p(x, z) for each datapoint, with normals of the same curvature: Laplace's approximation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vae.evidence.unconstrained.log_joint import LogJoint
from pyro_vae.evidence.unconstrained.normal_mixture import NormalMixture

MOST_DIMS = 400  # above, a matrix for each datapoint is too expensive
ASCENT_STEPS = 12  # of L-BFGS, from each start
MORE_ASCENT_STEPS = 40  # if the ends still seem to be at several modes
MEMORY = 6
NEWTON_STEPS = 3
# The step of finite differences, in standard deviations of the prior or of the posterior.
STEP = {torch.float32: 0.03, torch.float64: 1e-3}
LEAST_CURVATURE = 0.3  # times the curvature of a normal as wide as the prior
NEGLIGIBLE = 12.0  # nats below the best mode


@torch.no_grad()
def fit_normals(log_joint: LogJoint, starts: Tensor, scale: Tensor, rows: Tensor) -> NormalMixture:
    """Finds modes from several starts, and fits a normal at each of them.

    From each start, L-BFGS (Nocedal & Wright 2006, algorithm 7.4) takes some steps uphill. Ends without a valley
    between them belong to one mode. The others take more steps, since an apparent valley may be a bend. Newton's
    method finishes each mode. Its Hessian is from finite differences of gradients, so the model is differentiated only
    once.

    Args:
        log_joint: log p(x, z) of a block of datapoints.
        starts: The starts, ``[starts, m, dims]``.
        scale: The approximate width of the prior in each dimension, ``[m, dims]``.
        rows: The rows of the block, ``[m]``.

    Returns:
        A mixture of at most as many normals as there are starts. For a datapoint without a finite mode, ``log_weight``
        is -inf for all normals.
    """
    position, value, distinct = _ends(log_joint, starts, scale, rows, ASCENT_STEPS)
    several = (distinct.sum(0) > 1).nonzero()[:, 0]
    if len(several):
        least = value[0, several] - _most_wider(log_joint, position[0, several], rows[several], scale[several])
        distinct[:, several] &= value[:, several] > least - NEGLIGIBLE
        several = several[distinct[:, several].sum(0) > 1]
    if len(several):
        first = (~distinct[:, several]).byte().argsort(stable=True, dim=0)[: int(distinct.sum(0).max())]
        kept = position[:, several].take_along_dim(first[..., None], 0)
        ends, _, still_distinct = _ends(log_joint, kept, scale[several], rows[several], MORE_ASCENT_STEPS)
        position[: len(ends), several] = ends
        distinct[:, several] = False
        distinct[: len(ends), several] = still_distinct
    parts = []
    for mode in range(len(position)):
        chosen = distinct[mode].nonzero()[:, 0]
        if len(chosen):
            parts.append((chosen, *_finish(log_joint, position[mode, chosen], rows[chosen], scale[chosen])))
    return _mixture(parts, scale)


@torch.no_grad()
def highest(log_joint: LogJoint, starts: Tensor, scale: Tensor, rows: Tensor) -> Tensor:
    """The highest point that a short search from several starts reaches, ``[m, dims]``; as for :func:`fit_normals`."""
    position, value = _ascend(log_joint, starts, scale, rows, ASCENT_STEPS)
    best = value.nan_to_num(nan=-torch.inf).argmax(0)
    return position.take_along_dim(best[None, :, None], 0)[0]


def _ends(
    log_joint: LogJoint, starts: Tensor, scale: Tensor, rows: Tensor, num_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The ends of the ascent, the highest first, their values, and which are the highest of their mode."""
    position, value = _ascend(log_joint, starts, scale, rows, num_steps)
    order = value.nan_to_num(nan=-torch.inf).argsort(0, descending=True)
    value = value.gather(0, order)
    position = position.take_along_dim(order[..., None], 0)
    return position, value, _distinct(log_joint, position, value, rows)


def _most_wider(log_joint: LogJoint, top: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    """The log of how much wider than the highest mode another one can be, ``[m]``.

    A mode can be lower by so much and have the same mass. None is much wider than the prior.
    """
    if log_joint.dims > MOST_DIMS:
        return torch.zeros_like(scale[:, 0])
    *_, log_det = _at_width_of_prior(log_joint, top, rows, scale)
    return (scale.log().sum(-1) - log_det).clamp_min(0.0)


def _ascend(
    log_joint: LogJoint, position: Tensor, scale: Tensor, rows: Tensor, num_steps: int
) -> tuple[Tensor, Tensor]:
    """L-BFGS ascent in coordinates divided by the scale; a step that does not increase the value is shortened."""
    value, gradient = log_joint.gradient(position, rows)
    gradient = gradient * scale
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    step_size = torch.ones_like(value)
    for _ in range(num_steps):
        direction = _two_loops(gradient, history)
        downhill = ((direction * gradient).sum(-1) <= 0) | ~direction.isfinite().all(-1)
        direction = torch.where(downhill[..., None], gradient, direction)
        if not history:  # the first step is along the gradient, at most one width of the prior
            direction = direction / direction.norm(dim=-1, keepdim=True).clamp_min(1.0)
        length = direction.norm(dim=-1).clamp_min(1e-30)
        step = (step_size * (3 * math.sqrt(log_joint.dims) / length).clamp_max(1.0))[..., None] * direction
        new_value, new_gradient = log_joint.gradient(position + scale * step, rows)
        new_gradient = new_gradient * scale
        rise = (step * gradient).sum(-1)
        accepted = (new_value >= value + 1e-4 * rise) & new_gradient.isfinite().all(-1)
        change = torch.where(accepted[..., None], gradient - new_gradient, 0.0)
        curved = accepted & ((step * change).sum(-1) > 1e-10)
        history = [*history[-MEMORY + 1 :], (torch.where(curved[..., None], step, 0.0), change, curved)]
        step_size = torch.where(accepted, 1.0, step_size / 4)
        position = torch.where(accepted[..., None], position + scale * step, position)
        gradient = torch.where(accepted[..., None], new_gradient, gradient)
        value = torch.where(accepted, new_value, value)
    return position, value


def _two_loops(gradient: Tensor, history: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The inverse Hessian of L-BFGS so far, times the gradient."""
    direction, kept = gradient, []
    for step, change, curved in reversed(history):
        inverse = torch.where(curved, 1 / (step * change).sum(-1), 0.0)
        along = inverse * (step * direction).sum(-1)
        direction = direction - along[..., None] * change
        kept.append((step, change, inverse, along))
    if history:
        step, change, curved = history[-1]
        ratio = torch.where(curved, (step * change).sum(-1) / change.square().sum(-1), 1.0)
        direction = direction * ratio[..., None]
    for step, change, inverse, along in reversed(kept):
        direction = direction + step * (along - inverse * (change * direction).sum(-1))[..., None]
    return direction


def _distinct(log_joint: LogJoint, position: Tensor, value: Tensor, rows: Tensor) -> Tensor:
    """Which ends are the highest of their mode, ``[ends, n]``, for ends in descending order of value."""
    distinct = value.isfinite()
    for low in range(1, len(position)):
        both = (distinct[low] & distinct[:low].any(0)).nonzero()[:, 0]
        if len(both) == 0:
            continue
        is_mode = distinct[:low, both]
        high = (~is_mode).byte().argsort(stable=True, dim=0)[: int(is_mode.sum(0).max())]  # the modes come first
        tops = position[high, both]
        along = [torch.lerp(position[low, both].expand_as(tops), tops, t) for t in (0.25, 0.5, 0.75)]
        values = log_joint.densities(torch.cat(along), rows[both])[1].unflatten(0, (3, -1))
        # If the value rises all the way from the lower end to a higher one, there is no valley.
        path = torch.cat([value[low, both].expand(1, *high.shape), values, value[high, both][None]])
        valley = (path.diff(dim=0) < -1e-2 - 1e-6 * path[1:].abs()).any(0)
        distinct[low, both] = (valley | ~is_mode.gather(0, high)).all(0)
    return distinct


def _finish(log_joint: LogJoint, center: Tensor, rows: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """Newton's method near a mode: center, factor, inverse of the factor, log-determinant, value."""
    if log_joint.dims > MOST_DIMS:
        _, value = log_joint.densities(center[None], rows)
        return center, scale, 1 / scale, scale.log().sum(-1), value[0]
    value, gradient, factor, inverse, log_det = _at_width_of_prior(log_joint, center, rows, scale)
    moved = torch.zeros_like(value)
    for _ in range(NEWTON_STEPS):
        step = (factor @ (factor.mT @ gradient[..., None]))[..., 0]
        for shorter in (1.0, 0.25):
            new_value, new_gradient = (part[0] for part in log_joint.gradient((center + shorter * step)[None], rows))
            up = (new_value > value) & new_gradient.isfinite().all(-1)
            moved = moved + up * shorter * (inverse @ step[..., None])[..., 0].norm(dim=-1)
            center = torch.where(up[:, None], center + shorter * step, center)
            value = torch.where(up, new_value, value)
            gradient = torch.where(up[:, None], new_gradient, gradient)
            if up.all():
                break
            step = torch.where(up[:, None], 0.0, step)
    again = (moved > 1).nonzero()[:, 0]
    if len(again):  # the mode was not close, so the curvature has changed
        parts = _curvature(
            log_joint, center[again], gradient[again], rows[again], factor[again], inverse[again], log_det[again], 0.0
        )
        for whole, part in zip((factor, inverse, log_det), parts, strict=True):
            whole[again] = part
    return center, factor, inverse, log_det, value


def _at_width_of_prior(log_joint: LogJoint, center: Tensor, rows: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """Value, gradient, and :func:`_curvature` from differences as wide as the prior."""
    value, gradient = (part[0] for part in log_joint.gradient(center[None], rows))
    start = torch.diag_embed(scale), torch.diag_embed(1 / scale), scale.log().sum(-1)
    return value, gradient, *_curvature(log_joint, center, gradient, rows, *start, LEAST_CURVATURE)


def _curvature(
    log_joint: LogJoint,
    center: Tensor,
    gradient: Tensor,
    rows: Tensor,
    factor: Tensor,
    inverse: Tensor,
    log_det: Tensor,
    least: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The factor of the covariance from the Hessian at the center, its inverse and its log-determinant.

    The columns of the old factor are the directions of the finite differences.
    """
    size = STEP.get(center.dtype, 0.1)
    beside = center + size * factor.permute(2, 0, 1)  # [dims, m, dims]: one direction for each particle
    slopes = ((gradient - log_joint.gradient(beside, rows)[1]) / size).permute(1, 0, 2)  # row d is -H @ column d
    curvature = (slopes @ factor).double()
    curvature = (curvature + curvature.mT) / 2
    bad = ~curvature.flatten(1).isfinite().all(1)
    identity = torch.eye(curvature.shape[-1], dtype=curvature.dtype, device=curvature.device)
    curvature[bad] = identity
    root, info = torch.linalg.cholesky_ex(curvature - least * identity)
    low = (info != 0).nonzero()[:, 0]
    if len(low):
        values, vectors = torch.linalg.eigh(curvature[low])
        values = values.clamp_min(max(least, 1e-2))
        curvature[low] = (vectors * values[:, None]) @ vectors.mT
    root = torch.linalg.cholesky(curvature)  # curvature = root @ root.T, in coordinates y = inverse @ z
    spread = torch.linalg.solve_triangular(root.mT, identity.expand_as(root), upper=True)
    new_log_det = log_det - root.diagonal(dim1=-2, dim2=-1).log().sum(-1).to(log_det.dtype)
    return factor @ spread.to(factor.dtype), root.mT.to(factor.dtype) @ inverse, new_log_det


def _mixture(parts: list[tuple[Tensor, ...]], scale: Tensor) -> NormalMixture:
    like, (n, dims) = scale, scale.shape
    diagonal = dims > MOST_DIMS
    shape = (dims,) if diagonal else (dims, dims)
    identity = like.new_ones(dims) if diagonal else torch.eye(dims, dtype=like.dtype, device=like.device)
    modes = max(1, len(parts))
    mixture = NormalMixture(
        center=like.new_zeros(modes, n, dims),
        factor=identity.expand(modes, n, *shape).clone(),
        inverse=identity.expand(modes, n, *shape).clone(),
        log_det=like.new_zeros(modes, n),
        log_weight=like.new_full((modes, n), -torch.inf),
    )
    for mode, (rows, center, factor, inverse, log_det, value) in enumerate(parts):
        log_weight = value + log_det  # Laplace's evidence, up to a constant
        good = log_weight.isfinite() & factor.flatten(1).isfinite().all(-1)
        for whole, part in zip(mixture, (center, factor, inverse, log_det, log_weight), strict=True):
            whole[mode, rows[good]] = part[good]
    total = mixture.log_weight.logsumexp(0)
    return mixture._replace(log_weight=torch.where(mixture.found, mixture.log_weight - total, -torch.inf))

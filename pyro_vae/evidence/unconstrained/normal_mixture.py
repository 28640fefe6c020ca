"""Mixtures of normals at the modes of p(x, z), one mixture for each datapoint."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.system.private_apis import standard_gamma

FEW_DIMS = 16  # in more dimensions, draws from heavy tails lie far from everything

# The normals are slightly wider than the curvature, since weights are large where a proposal is too narrow.
WIDENED = 1.05
# Some draws are from Student t distributions with the same centers, for posteriors with heavier tails than a normal
# (Hesterberg 1995, with the shape of the posterior instead of the prior): degrees of freedom, and share of the draws.
TAILS = ((5.0, 0.15), (1.0, 0.05))


class NormalMixture(NamedTuple):
    """A mixture of normals for each of n datapoints, in real vectors of dims dimensions.

    Component m is the distribution of ``center[m] + factor[m] @ y`` for a standard normal y.
    """

    center: Tensor  #: ``[modes, n, dims]``.
    factor: Tensor  #: ``[modes, n, dims, dims]``, or ``[modes, n, dims]`` if diagonal.
    inverse: Tensor  #: The inverse of ``factor``, of the same shape.
    log_det: Tensor  #: The log-determinant of ``factor``, ``[modes, n]``.
    log_weight: Tensor  #: Log-probabilities of the components, ``[modes, n]``; -inf for missing components.

    @property
    def found(self) -> Tensor:
        """Whether there is a component, ``[n]``."""
        return self.log_weight.isfinite().any(0)

    def num_modes(self, least: float) -> Tensor:
        """The number of components with at least this share, ``[n]``."""
        return (self.log_weight > math.log(least)).sum(0)

    def flattened(self) -> NormalMixture:
        """The mixture with more equal weights, since the true share of a component may be larger than Laplace's."""
        halved = self.log_weight / 2
        return self._replace(log_weight=torch.where(self.found, halved - halved.logsumexp(0), -torch.inf))

    def rows(self, index: Tensor) -> NormalMixture:
        """The mixtures of some of the datapoints, without components that none of them has."""
        used = self.log_weight[:, index].isfinite().any(1)
        used[0] = True
        return NormalMixture(*(part[used][:, index] for part in self))

    def updated(self, index: Tensor, other: NormalMixture) -> NormalMixture:
        """A copy in which the mixtures of some of the datapoints are replaced."""
        missing = max(len(part) for part in (self.center, other.center))
        whole, part = _padded(self, missing), _padded(other, missing)
        return NormalMixture(*(old.index_copy(1, index, new) for old, new in zip(whole, part, strict=True)))

    def to_vector(self, y: Tensor) -> Tensor:
        """``center + factor @ y`` of the first component, for y ``[particles, n, dims]``."""
        return self.center[0] + _times(self.factor[0], y)

    def from_vector(self, position: Tensor) -> Tensor:
        """The inverse of :meth:`to_vector`."""
        return _times(self.inverse[0], position - self.center[0])

    def pull_back(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to y, from the gradient with respect to ``center + factor @ y``."""
        return _times_transposed(self.factor[0], gradient)

    def draw(self, num_samples: int, *, tails: bool) -> Tensor:
        """Draws ``[samples, n, dims]`` from the normals, or from widened normals with Student t tails."""
        modes, n, dims = self.center.shape
        y = torch.randn(num_samples, n, dims, dtype=self.center.dtype, device=self.center.device)
        if tails:
            chosen, stretch, below = torch.rand_like(y[..., 0]), torch.full_like(y[..., 0], WIDENED), 0.0
            for degrees, share in TAILS:
                drawn = (degrees / (2 * standard_gamma(torch.full_like(stretch, degrees / 2)))).sqrt()
                stretch = torch.where((below <= chosen) & (chosen < below + share), drawn, stretch)
                below += share
            y = y * stretch[..., None]
        if modes == 1:
            return self.to_vector(y)
        chosen = self.log_weight.exp().T.multinomial(num_samples, replacement=True).T
        position = torch.zeros_like(y)
        for mode in range(modes):
            drawn = self.center[mode] + _times(self.factor[mode], y)
            position = torch.where((chosen == mode)[..., None], drawn, position)
        return position

    def log_prob(self, position: Tensor, *, tails: bool) -> Tensor:
        """The log-density of :meth:`draw`, ``[samples, n]``, at positions ``[samples, n, dims]``."""
        return self._mixed(position, tails, with_gradient=False)[0]

    def gradient(self, position: Tensor, *, tails: bool) -> tuple[Tensor, Tensor]:
        """The log-density, ``[samples, n]``, and its gradient, ``[samples, n, dims]``."""
        return self._mixed(position, tails, with_gradient=True)

    def _mixed(self, position: Tensor, tails: bool, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        every = torch.arange(position.shape[1], device=position.device)
        log_density, slope = self._component(0, every, position, tails, with_gradient)
        for mode in range(1, len(self.center)):  # most datapoints have only one mode
            rows = self.log_weight[mode].isfinite().nonzero()[:, 0]
            other, other_slope = self._component(mode, rows, position[:, rows], tails, with_gradient)
            before = log_density[:, rows]
            log_density[:, rows] = torch.logaddexp(before, other)
            if with_gradient:
                share = (other - log_density[:, rows]).exp().nan_to_num(0.0)[..., None]
                slope[:, rows] = torch.lerp(slope[:, rows], other_slope, share)
        return log_density, slope

    def _component(
        self, mode: int, rows: Tensor, position: Tensor, tails: bool, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """The log-density of a component times its weight, and the gradient of the log-density."""
        whole = len(rows) == self.center.shape[1]
        inverse, center = (part[mode] if whole else part[mode, rows] for part in (self.inverse, self.center))
        y = _times(inverse, position - center)
        log_density, pull = _standard(y, tails)
        log_density = log_density + (self.log_weight[mode, rows] - self.log_det[mode, rows])
        return log_density, -_times_transposed(inverse, pull[..., None] * y) if with_gradient else y


def _standard(y: Tensor, tails: bool) -> tuple[Tensor, Tensor]:
    """The log-density of a centered component, ``[samples, n]``, and minus its gradient as a multiple of y."""
    dims, square = y.shape[-1], y.square().sum(-1)
    if not tails:
        return -square / 2 - dims / 2 * math.log(2 * math.pi), torch.ones_like(square)
    share = 1 - sum(share for _, share in TAILS)
    parts = [-square / (2 * WIDENED**2) - dims / 2 * math.log(2 * math.pi * WIDENED**2) + math.log(share)]
    pulls = [torch.full_like(square, WIDENED**-2)]
    for degrees, share in TAILS:
        half = (degrees + dims) / 2
        constant = math.lgamma(half) - math.lgamma(degrees / 2) - dims / 2 * math.log(degrees * math.pi)
        parts.append(constant + math.log(share) - half * torch.log1p(square / degrees))
        pulls.append(2 * half / (degrees + square))
    log_density = torch.stack(parts)
    return log_density.logsumexp(0), (log_density.softmax(0) * torch.stack(pulls)).sum(0)


def _padded(mixture: NormalMixture, modes: int) -> NormalMixture:
    """The mixture with so many components; the added ones have weight zero."""
    more = modes - len(mixture.center)
    padded = NormalMixture(*(torch.cat([part, part[:1].expand(more, *part.shape[1:])]) for part in mixture))
    nothing = torch.full_like(mixture.log_weight[:1], -torch.inf).expand(more, -1)
    return padded._replace(log_weight=torch.cat([mixture.log_weight, nothing]))


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Matrices ``[n, dims, dims]`` or diagonals ``[n, dims]`` times vectors ``[particles, n, dims]``."""
    if matrix.ndim == 2:
        return matrix * vectors
    return (vectors.transpose(0, 1) @ matrix.mT).transpose(0, 1)


def _times_transposed(matrix: Tensor, vectors: Tensor) -> Tensor:
    if matrix.ndim == 2:
        return matrix * vectors
    return (vectors.transpose(0, 1) @ matrix).transpose(0, 1)

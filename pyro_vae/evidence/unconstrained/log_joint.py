"""log p(x, z) and its gradient as functions of real vectors, for any rows of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae.evidence.unconstrained.latent_draws import latent_draws
from pyro_vae.evidence.unconstrained.latent_vectors import LatentVectors
from pyro_vae.infer.recording.compiled import recorded
from pyro_vae.weights import Layout, Program, no_sites, sample_sites, terms_at, trace_of, vectorized

AT_ONCE = 8
WORTH_RECORDING = 50  # calls: they take as long as to record one

# Of positions [1, pairs, dims], x [pairs, *event], and perhaps an approximate likelihood [pairs, 2, dims].
Densities = Callable[..., tuple[Tensor, ...]]


def particles_at_once(chunk_size: int, rows: int) -> int:
    """How many particles programs draw at once: so few that the chunk size is seldom the limit.

    The noise of a program depends on this number.
    """
    return max(1, min(AT_ONCE, chunk_size // rows))


class FastDensities:
    """Densities of pairs, recorded once for batches of one or a few sizes; smaller batches are padded.

    Args:
        make: Makes a function fast, with two examples of its arguments: ``recorded`` or ``compiled`` of
            ``infer.recording.compiled``.
        sizes: The sizes of the batches, in increasing order. Small models take little more time for large batches.
        after: How often a function runs as it is before, in every block. The blocks count for themselves, so that their
            numbers do not depend on other blocks.
    """

    def __init__(
        self,
        make: Callable[..., Callable[..., Any]] = recorded,
        sizes: Sequence[int] = (256, 1024),
        after: int = WORTH_RECORDING,
    ) -> None:
        self.make, self.sizes, self.after = make, sizes, after
        self._functions: dict[tuple[str, int, int], Densities] = {}

    def of_pairs(
        self, function: Densities, position: Tensor, data: tuple[Tensor, ...], chunk_size: int, calls: Counter[Any]
    ) -> tuple[Densities, int]:
        """The fast version of a function, and the size of its batches.

        Args:
            function: Called with positions ``[1, pairs, dims]`` and data ``[pairs, ...]``.
            position: The positions, ``[1, pairs, dims]``.
            data: Example data, ``[n, ...]``.
            chunk_size: The number of pairs that the function would compute at once.
            calls: What the block has called so far.
        """
        size = next((each for each in self.sizes[::-1] if 2 * position.shape[1] > each), self.sizes[0])
        key = function.__name__, len(data), size  # the same for all blocks
        calls[key] += 1
        if calls[key] <= self.after:
            return function, chunk_size
        if key not in self._functions:
            rows = torch.arange(size, device=position.device)
            example, other = (
                (position[:, (rows + shift) % position.shape[1]], *(each[(rows + shift) % len(each)] for each in data))
                for shift in (0, 7)
            )
            self._functions[key] = self.make(lambda *arguments: function(*arguments), example, other)
        fast = self._functions[key]

        def filled_up(position: Tensor, *data: Tensor) -> tuple[Tensor, ...]:
            count = position.shape[1]
            if count == size:
                return fast(position, *data)
            if count < size // 8:
                return function(position, *data)
            rows = torch.arange(size, device=position.device) % count
            return tuple(part[:, :count] for part in fast(position[:, rows], *(each[rows] for each in data)))

        return filled_up, size

    def of_block(self, function: Densities) -> Densities:
        """A function of the whole block stays as it is."""
        return function


class OftenRecorded:
    """Functions that are recorded for those shapes of their arguments with which they are called often.

    For one block: an annealed chain evaluates its densities thousands of times, always with the same shapes.
    """

    def __init__(self) -> None:
        self._calls: Counter[Any] = Counter()
        self._functions: dict[Any, Densities] = {}

    def of_pairs(
        self,
        function: Densities,
        position: Tensor,  # noqa: ARG002
        data: tuple[Tensor, ...],  # noqa: ARG002
        chunk_size: int,
        calls: Counter[Any],  # noqa: ARG002
    ) -> tuple[Densities, int]:
        """As for :class:`FastDensities`."""
        return self.of_block(function), chunk_size

    def of_block(self, function: Densities) -> Densities:
        """The function, which counts its calls, and becomes fast when there were many."""
        return partial(self._call, function)

    def _call(self, function: Densities, position: Tensor, *data: Tensor) -> tuple[Tensor, ...]:
        key = function.__qualname__, position.shape, len(data)
        if key not in self._functions:
            self._calls[key] += 1
            if self._calls[key] <= WORTH_RECORDING:
                return function(position, *data)
            every = (position, *data)
            self._functions[key] = recorded(lambda *every: function(*every), every, (0.9 * position, *data))
        return self._functions[key](position, *data)


class LogJoint:
    """log p(x, z) of a block of datapoints, with all latents mapped to real vectors (the determinant is included).

    The vectors are those of :class:`LatentVectors`.

    If the model treats datapoints independently, pairs of a particle and a datapoint are evaluated as one long batch:
    it may contain any rows, and all calls have the same shapes. Otherwise the model runs on all rows.

    Args:
        model: The model.
        x: Data, ``[n, *event]``.
        layout: The layout of the programs.
        chunk_size: The number of (particle, datapoint) pairs to compute at once.
        fast: Makes the densities fast: :class:`FastDensities` once for all blocks that share it. By default they run as
            they are.

    Attributes:
        dims: The number of latent dimensions of a datapoint.
        vectors: The map between latents and vectors.
        data: x, and the approximate likelihood of dependent latents, if there is one, ``[n, 2, dims]``.
        by_pairs: Whether datapoints are independent.

    Raises:
        ValueError: If a latent site is discrete or on a sphere.
    """

    def __init__(
        self,
        model: Program,
        x: Tensor,
        layout: Layout,
        chunk_size: int,
        fast: FastDensities | OftenRecorded | None = None,
    ) -> None:
        self.model, self.x, self.layout, self.chunk_size, self.fast = model, x, layout, chunk_size, fast
        sites = self._sites(1)
        if not sites:
            raise ValueError("the model has no latent sites")
        self.data: tuple[Tensor, ...] = (x,)
        self._calls: Counter[Any] = Counter()
        dependent = _dependent(sites, self._sites(particles_at_once(chunk_size, len(x))))
        self.vectors = LatentVectors(model, sites, layout, dependent)
        self.dims = self.vectors.dims
        self.by_pairs = self._is_separable()
        if self.fast is not None and not self.by_pairs:  # always the same rows, so there are few shapes
            self.fast = OftenRecorded()

    @torch.no_grad()
    def draw(self, program: Program, num_particles: int) -> Tensor:
        """Draws from p(z) with the model as the program, or from q(z | x) with the guide, ``[particles, n, dims]``."""
        parts, at_once = [], particles_at_once(self.chunk_size, len(self.x))
        for done in range(0, num_particles, at_once):
            count = min(at_once, num_particles - done)
            drawn = latent_draws(vectorized(program, count, self.layout), self.x, self.vectors.transforms)
            parts.append(self.to_vectors(drawn))
        return torch.cat(parts)

    def to_vectors(self, latents: dict[str, Tensor]) -> Tensor:
        """Vectors of the whole block, ``[particles, n, dims]``, for latents by site as they are in the programs."""
        return self.vectors.to_vectors(latents, *self.data)

    def to_latents(self, position: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The inverse of :meth:`to_vectors`, and the log-determinant of this map, ``[particles, n]``."""
        return self.vectors.to_latents(position, *self.data)

    def with_likelihood(self, likelihood: Tensor) -> LogJoint:
        """The same in coordinates with an approximate likelihood, as for :class:`LatentVectors`."""
        other = copy(self)
        other.data = self.x, likelihood
        return other

    @torch.no_grad()
    def densities(self, position: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """log p(z) and log p(x, z), ``[particles, m]``, at ``[particles, m, dims]``, for some rows ``[m]``."""
        return self._evaluate(self._densities, position, rows)

    def gradient(self, position: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """log p(x, z) and its gradient, ``[particles, m, dims]``, for the arguments of :meth:`densities`."""
        return self._evaluate(self._value_and_gradient, position, rows)

    def parts(self, position: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        """log p(z), log p(x | z), and the gradient of each, for the arguments of :meth:`densities`."""
        return self._evaluate(self._parts, position, rows)

    def _sites(self, num_particles: int) -> dict[str, Any]:
        with torch.no_grad():
            try:
                trace = trace_of(self.model, self.x, num_particles, self.layout)
            except NotImplementedError as error:
                raise ValueError(f"the model has a latent site that cannot be drawn: {error}") from error
        return {name: site for name, site in sample_sites(trace) if not site["is_observed"]}

    def _evaluate(self, function: Densities, position: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        particles, m = position.shape[:2]
        with pyro.validation_enabled(False):
            if self.by_pairs:
                pairs = position.reshape(1, particles * m, -1)
                index = rows.repeat(particles)
                at_once = self.chunk_size
                if self.fast is not None:
                    function, at_once = self.fast.of_pairs(function, pairs, self.data, at_once, self._calls)
                chunks = zip(index.split(at_once), pairs.split(at_once, dim=1), strict=True)
                parts = [function(z, *(each[at] for each in self.data)) for at, z in chunks]
                return tuple(
                    torch.cat(values, dim=1).reshape(particles, m, *values[0].shape[2:])
                    for values in zip(*parts, strict=True)
                )
            if m < len(self.x):  # the other rows may be anywhere
                whole = position.new_zeros(particles, len(self.x), position.shape[-1])
                whole[:, rows] = position
                position = whole
            at_once = max(1, self.chunk_size // len(self.x))
            function = function if self.fast is None else self.fast.of_block(function)
            parts = [function(z, *self.data) for z in position.split(at_once)]
            return tuple(torch.cat(values)[:, rows] for values in zip(*parts, strict=True))

    def _densities(self, position: Tensor, *data: Tensor) -> tuple[Tensor, Tensor]:
        latents, log_det = self.vectors.to_latents(position, *data)
        at = terms_at(self.model, no_sites, data[0], latents, len(position), self.layout)
        return at.log_prior + log_det, at.log_likelihood + at.log_prior + log_det

    def _log_joint(self, position: Tensor, *data: Tensor) -> Tensor:
        return self._densities(position, *data)[1]

    def _value_and_gradient(self, position: Tensor, *data: Tensor) -> tuple[Tensor, ...]:
        return value_and_gradient(lambda at: self._log_joint(at, *data), position)

    @torch.enable_grad()
    def _parts(self, position: Tensor, *data: Tensor) -> tuple[Tensor, ...]:
        position = position.detach().requires_grad_()
        prior, joint = self._densities(position, *data)
        likelihood = joint - prior
        gradients = [
            torch.autograd.grad(part.sum(), position, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
            if part.requires_grad
            else torch.zeros_like(position)
            for part in (prior, likelihood)
        ]
        return prior.detach(), likelihood.detach(), *gradients

    def _is_separable(self) -> bool:
        """Whether some rows in another order have the same densities."""
        n = len(self.x)
        position = self.draw(self.model, 1)
        with torch.no_grad(), pyro.validation_enabled(False):
            try:
                together = self._log_joint(position, self.x)
                few = torch.arange(n - 1, -1, -1, device=self.x.device)[: n // 2 + 1].repeat(2)
                alone = self._log_joint(position[:, few], self.x[few])
            except (RuntimeError, ValueError, IndexError):
                return False
        return alone.shape[1] == len(few) and torch.allclose(together[:, few], alone, rtol=1e-5, atol=1e-3)


@torch.enable_grad()
def value_and_gradient(function: Callable[[Tensor], Tensor], position: Tensor) -> tuple[Tensor, Tensor]:
    """The values of a function at positions ``[..., dims]``, and its gradients there."""
    position = position.detach().requires_grad_()
    value = function(position)
    (gradient,) = torch.autograd.grad(value.sum(), position)
    return value.detach(), gradient


def _dependent(sites: dict[str, Any], again: dict[str, Any]) -> list[str]:
    """The sites whose distributions depend on other latents: in another trace they give a value another density."""
    return [name for name, site in sites.items() if _differ(site["value"], site["fn"], again[name]["fn"])]


def _differ(value: Tensor, fn: Any, other: Any) -> bool:
    try:
        with torch.no_grad():
            here, there = torch.broadcast_tensors(fn.log_prob(value), other.log_prob(value))
    except ValueError:  # outside of the other support
        return True
    except (NotImplementedError, RuntimeError):  # no density
        return False
    return not torch.allclose(here, there, rtol=1e-4, atol=1e-4, equal_nan=True)

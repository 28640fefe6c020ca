"""Annealed importance sampling for a block of datapoints: starts, temperatures, steps and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from pyro_vae.evidence.unconstrained.hmc import State, hmc_move
from pyro_vae.evidence.unconstrained.log_joint import LogJoint, value_and_gradient
from pyro_vae.evidence.unconstrained.normal_mixture import FEW_DIMS, NormalMixture
from pyro_vae.evidence.unconstrained.starts import center_and_scale
from pyro_vae.weights import Program, no_sites, terms_at

TARGET_ACCEPTANCE = 0.8  # a little above the best one for a single chain, for the sake of chains in difficult places

# Separate chains find temperatures and step sizes, so that the chains of the estimate move by fixed rules: only then is
# the estimate of p(x) unbiased.
PILOT_CHAINS = 8
WARM_UP = 4  # transitions before a pilot begins
LONGEST_STEP = 1.3  # an angle: with its jitter it stays below a quarter of a circle
SCALE_DRAWS = 64
WORTH_LEAVING_OUT = 0.85  # the share of datapoints still moving below which the others are left out


class FromNormals:
    """A start from normals at the modes of p(x, z), with heavy tails where there are few dimensions.

    The tails are heavy because chains move inwards more easily than outwards.

    Args:
        log_joint: log p(x, z) of the block.
        normals: A mixture for each of its rows.
        rows: The rows to anneal, ``[m]``.
    """

    def __init__(self, log_joint: LogJoint, normals: NormalMixture, rows: Tensor) -> None:
        self.log_joint, self.normals, self.rows = log_joint, normals.rows(rows), rows
        self.tails = log_joint.dims <= FEW_DIMS

    def draw(self, num_chains: int) -> Tensor:
        """Coordinates of draws, ``[chains, m, dims]``."""
        return self.from_position(self.normals.draw(num_chains, tails=self.tails))

    def evaluate(self, coordinates: Tensor) -> State:
        """Both log-densities, without the determinant of the coordinates, a constant that cancels."""
        position = self.to_position(coordinates)
        start, start_gradient = self.normals.gradient(position, tails=self.tails)
        end, end_gradient = self.log_joint.gradient(position, self.rows)
        pull = self.normals.pull_back
        return State(coordinates, start, end, pull(start_gradient), pull(end_gradient))

    def to_position(self, coordinates: Tensor) -> Tensor:
        """Latent vectors, ``[chains, m, dims]``."""
        return self.normals.to_vector(coordinates)

    def from_position(self, position: Tensor) -> Tensor:
        """The inverse of :meth:`to_position`."""
        return self.normals.from_vector(position)

    def some(self, index: Tensor) -> FromNormals:
        """The same for some of the rows."""
        part = copy(self)
        part.rows, part.normals = self.rows[index], self.normals.rows(index)
        return part


class _Scaled:
    """Coordinates that are latent vectors, centered and scaled by draws from the start."""

    def __init__(self, log_joint: LogJoint, rows: Tensor) -> None:
        self.log_joint, self.rows = log_joint, rows
        self.center, self.scale = center_and_scale(self._draw_position(SCALE_DRAWS))

    def draw(self, num_chains: int) -> Tensor:
        """Coordinates of draws, ``[chains, m, dims]``."""
        return self.from_position(self._draw_position(num_chains))

    def to_position(self, coordinates: Tensor) -> Tensor:
        """Latent vectors, ``[chains, n, dims]``."""
        return self.center + self.scale * coordinates

    def from_position(self, position: Tensor) -> Tensor:
        """The inverse of :meth:`to_position`."""
        return (position - self.center) / self.scale

    def some(self, index: Tensor) -> Self:
        """The same for some of the rows."""
        part = copy(self)
        part.rows, part.center, part.scale = self.rows[index], self.center[index], self.scale[index]
        return part

    def _draw_position(self, num_chains: int) -> Tensor:
        raise NotImplementedError


class FromPrior(_Scaled):
    """A start from p(z).

    Args:
        log_joint: log p(x, z) of the block.
        rows: The rows to anneal, ``[m]``.
    """

    def evaluate(self, coordinates: Tensor) -> State:
        """log p(z) and log p(x, z)."""
        prior, likelihood, prior_gradient, likelihood_gradient = self.log_joint.parts(
            self.to_position(coordinates), self.rows
        )
        start_gradient = self.scale * prior_gradient
        end_gradient = start_gradient + self.scale * likelihood_gradient
        return State(coordinates, prior, prior + likelihood, start_gradient, end_gradient)

    def _draw_position(self, num_chains: int) -> Tensor:
        return self.log_joint.draw(self.log_joint.model, num_chains)[:, self.rows]


class FromGuide(_Scaled):
    """A start from q(z | x).

    Args:
        log_joint: log p(x, z) of the block.
        guide: The guide.
    """

    def __init__(self, log_joint: LogJoint, guide: Program) -> None:
        self.guide = guide
        super().__init__(log_joint, torch.arange(len(log_joint.x), device=log_joint.x.device))

    def evaluate(self, coordinates: Tensor) -> State:
        """log q(z | x) and log p(x, z)."""
        position = self.to_position(coordinates)
        parts = position.split(max(1, self.log_joint.chunk_size // position.shape[1]))
        function = self._value_and_gradient
        if self.log_joint.fast is not None:
            function = self.log_joint.fast.of_block(function)
        start, slope = map(torch.cat, zip(*(function(z, *self.log_joint.data) for z in parts), strict=True))
        end, end_slope = self.log_joint.gradient(position, self.rows)
        return State(coordinates, start, end, self.scale * slope, self.scale * end_slope)

    def _draw_position(self, num_chains: int) -> Tensor:
        return self.log_joint.draw(self.guide, num_chains)

    def _value_and_gradient(self, position: Tensor, *data: Tensor) -> tuple[Tensor, ...]:
        """log q(z | x) and its gradient."""

        def log_posterior(position: Tensor) -> Tensor:
            latents, log_det = self.log_joint.vectors.to_latents(position, *data)
            at = terms_at(no_sites, self.guide, data[0], latents, len(position), self.log_joint.layout)
            return at.log_posterior + log_det

        return value_and_gradient(log_posterior, position)


Start = FromNormals | FromPrior | FromGuide  #: Where a path begins: a density, and coordinates of about unit scale.


class Schedule(NamedTuple):
    """Temperatures and step sizes of a path, found by a pilot and fixed for the chains of the estimate."""

    inverse_temperatures: Tensor  #: From 0 to 1, ``[temperatures + 1, n]``.
    log_sizes: Tensor  #: Log step sizes at these temperatures, ``[temperatures + 1, n]``.
    variance: Tensor  #: The expected variance of the log-weights, roughly, ``[n]``.

    @property
    def num_temperatures(self) -> int:
        """The number of steps from 0 to 1."""
        return len(self.inverse_temperatures) - 1

    def rows(self, index: Tensor) -> Schedule:
        """The same for some of the datapoints."""
        return Schedule(*(part[..., index] for part in self))

    def resized(self, num_temperatures: int | Tensor) -> Schedule:
        """The same path with another number of temperatures, or with one number for each datapoint, ``[n]``.

        Datapoints with fewer temperatures stay at the last one.
        """
        count = torch.as_tensor(num_temperatures, device=self.log_sizes.device).expand(self.log_sizes.shape[1])
        time = torch.arange(int(count.max()) + 1, device=count.device)[:, None]
        place = (time.double() * self.num_temperatures / count).clamp_max(self.num_temperatures)
        below = place.long().clamp_max(self.num_temperatures - 1)
        share = (place - below).to(self.log_sizes)
        betas, log_sizes = (
            torch.lerp(part.gather(0, below), part.gather(0, below + 1), share)
            for part in (self.inverse_temperatures, self.log_sizes)
        )
        return Schedule(betas, log_sizes, self.variance * self.num_temperatures / count)


class Annealed(NamedTuple):
    """Chains that have moved from one end of a path to the other."""

    log_weights: Tensor  #: ``[chains, n]``, float64.
    position: Tensor  #: Their ends, as latent vectors ``[chains, n, dims]``.
    acceptance: Tensor  #: The acceptance rate of their moves, ``[n]``.

    def rows(self, index: Tensor | slice) -> Annealed:
        """The chains of some of the datapoints."""
        return Annealed(self.log_weights[:, index], self.position[:, index], self.acceptance[index])


class AnnealedPath:
    """The densities between a start and the posterior: start(z)^(1 - b) p(x, z)^b, up to a constant (Neal 2001).

    Args:
        start: Where the path begins.
        num_leapfrog: The number of leapfrog steps of each transition.
    """

    def __init__(self, start: Start, num_leapfrog: int) -> None:
        self.start, self.num_leapfrog = start, num_leapfrog

    def some(self, index: Tensor) -> AnnealedPath:
        """The same for some of the rows."""
        return AnnealedPath(self.start.some(index), self.num_leapfrog)

    @torch.no_grad()
    def pilot(self, num_temperatures: int, inverse_temperatures: Sequence[float]) -> Schedule:
        """Finds temperatures and step sizes with separate chains.

        Temperatures are placed so that all steps between them have equal length, in standard deviations of the
        increments of the log-weights (Gelman & Meng 1998, section 4.3: the shortest path).

        Args:
            num_temperatures: The number of temperatures of the schedule.
            inverse_temperatures: The inverse temperatures of the pilot, from 0 to 1.
        """
        state = self.start.evaluate(self.start.draw(PILOT_CHAINS))
        log_size = torch.full_like(state.start[0], math.log(0.5))
        schedule = torch.tensor(inverse_temperatures, dtype=log_size.dtype, device=log_size.device)
        log_sizes, spread, momentum = [], [], None
        log_weights = torch.zeros_like(state.start, dtype=torch.float64)
        for i in range(-WARM_UP, len(schedule) - 1):
            low, high = schedule[max(0, i)], schedule[max(0, i + 1)]
            if i >= 0:
                rise = (state.end - state.start).double()
                spread.append(_spread(rise))
                log_weights += (high - low).double() * rise
            state, acceptance, momentum = hmc_move(
                state, self.start.evaluate, high.expand_as(log_size), log_size.exp(), self.num_leapfrog, momentum
            )
            log_size = (log_size + 1.5 * (acceptance.mean(0) - TARGET_ACCEPTANCE)).clamp_max(math.log(LONGEST_STEP))
            if i >= 0:
                log_sizes.append(log_size)
        return self._place(num_temperatures, schedule, torch.stack(log_sizes), torch.stack(spread), log_weights)

    def _place(
        self, num_temperatures: int, schedule: Tensor, log_sizes: Tensor, spread: Tensor, log_weights: Tensor
    ) -> Schedule:
        steps = schedule.diff().double()[:, None]
        # Each spread is from few chains, so it is smoothed, and bounded below so that no large step remains.
        smooth = torch.nn.functional.avg_pool1d(spread.T[:, None], 3, 1, 1, count_include_pad=False)[:, 0].T
        speed = smooth.nan_to_num(nan=0.0, posinf=0.0) + 0.1 * smooth.nan_to_num(0.0, 0.0, 0.0).mean(0) + 1e-12
        length = torch.cat([torch.zeros_like(speed[:1]), (steps * speed).cumsum(0)])
        wanted = torch.linspace(0, 1, num_temperatures + 1, dtype=length.dtype, device=length.device)[:, None]
        wanted = (wanted * length[-1]).T.contiguous()
        place = torch.searchsorted(length.T.contiguous(), wanted, right=True).clamp(1, len(schedule) - 1)
        left, right = (length.T.gather(1, at) for at in (place - 1, place))
        share = ((wanted - left) / (right - left)).clamp(0, 1)
        betas = torch.lerp(schedule.double()[place - 1], schedule.double()[place], share).T
        betas[0], betas[-1] = 0.0, 1.0
        sizes = torch.cat([log_sizes[:1], log_sizes]).T.double()  # the first one is never used
        sizes = torch.lerp(sizes.gather(1, place - 1), sizes.gather(1, place), share).T
        variance = log_weights.var(0) * len(steps) / num_temperatures
        return Schedule(betas.to(log_sizes.dtype), sizes.to(log_sizes.dtype), variance)

    @torch.no_grad()
    def forward(self, num_chains: int, schedule: Schedule) -> Annealed:
        """Moves chains from the start to the posterior: the exponentials of the log-weights have the mean p(x).

        All datapoints move at once. Those that have arrived are left out from time to time; until then they keep moving
        in the posterior.
        """
        lengths = (schedule.inverse_temperatures[:-1] < 1).sum(0)
        order = lengths.argsort(descending=True, stable=True)  # those that arrive first are last
        path, schedule, lengths = self.some(order), schedule.rows(order), lengths[order]
        state = path.start.evaluate(path.start.draw(num_chains))
        momentum: Any = None  # drawn by the first move
        log_weights, acceptance = torch.zeros_like(state.start, dtype=torch.float64), torch.zeros_like(state.start[0])
        arrived: list[Annealed] = []
        for t in range(1, len(schedule.inverse_temperatures)):
            left = int((lengths >= t).sum())
            if left < WORTH_LEAVING_OUT * len(lengths):
                position = path.start.to_position(state.position)
                arrived.append(Annealed(log_weights, position, acceptance / (t - 1)).rows(slice(left, None)))
                here = torch.arange(left, device=order.device)
                path, schedule, lengths = path.some(here), schedule.rows(here), lengths[:left]
                state = State(*(part[:, :left] for part in state))
                momentum = None if momentum is None else momentum[:, :left]
                log_weights, acceptance = log_weights[:, :left], acceptance[:left]
            low, high = schedule.inverse_temperatures[t - 1 : t + 1]
            log_weights += (high - low).double() * (state.end - state.start).double()
            # The last move changes no weight, but moves the ends of the chains towards the posterior.
            size = schedule.log_sizes[t].exp()
            state, accepted, momentum = hmc_move(state, path.start.evaluate, high, size, self.num_leapfrog, momentum)
            acceptance += accepted.mean(0)
        position = path.start.to_position(state.position)
        parts = [Annealed(log_weights, position, acceptance / t), *reversed(arrived)]
        whole = Annealed(*(torch.cat(part, dim=min(1, part[0].ndim - 1)) for part in zip(*parts, strict=True)))
        return whole.rows(order.argsort())

    @torch.no_grad()
    def reverse(self, position: Tensor, schedule: Schedule) -> Annealed:
        """Moves exact draws from the posterior, ``[chains, n, dims]``, to the start (Grosse et al. 2015).

        The exponentials of minus the log-weights have the mean 1 / p(x).
        """
        betas = schedule.inverse_temperatures
        state, momentum = self.start.evaluate(self.start.from_position(position)), None
        log_weights, acceptance = torch.zeros_like(state.start, dtype=torch.float64), torch.zeros_like(state.start[0])
        sizes = schedule.log_sizes.exp()
        for t in range(len(betas) - 1, 0, -1):
            move = hmc_move(state, self.start.evaluate, betas[t], sizes[t], self.num_leapfrog, momentum)
            state, accepted, momentum = move
            log_weights += (betas[t] - betas[t - 1]).double() * (state.end - state.start).double()
            acceptance += accepted.mean(0) / (len(betas) - 1)
        return Annealed(log_weights, self.start.to_position(state.position), acceptance)


def _spread(rise: Tensor) -> Tensor:
    """The standard deviation over the finite values of the chains, ``[n]``."""
    finite = rise.isfinite()
    count = finite.sum(0).clamp_min(2)
    clean = torch.where(finite, rise, 0.0)
    mean = clean.sum(0) / count
    return (torch.where(finite, clean - mean, 0.0).square().sum(0) / (count - 1)).sqrt()


def sigmoid_schedule(num_temperatures: int, steepness: float = 4.0) -> list[float]:
    """Inverse temperatures from 0 to 1, closer together near both ends (Grosse et al. 2015, section 4.1).

    Returns:
        ``num_temperatures + 1`` numbers.
    """
    logistic = [math.tanh(steepness * (t / num_temperatures - 0.5)) for t in range(num_temperatures + 1)]
    return [(value - logistic[0]) / (logistic[-1] - logistic[0]) for value in logistic]

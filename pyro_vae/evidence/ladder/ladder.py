"""The methods that `estimate` tries on a block of datapoints, one after the other, each only where it is needed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.evidence.proposals import Proposal, defensive
from pyro_vae.evidence.results.error_bars import error_bars, expected_relative_variance
from pyro_vae.evidence.results.rungs import ANNEALED, FROM_PRIOR, GUIDE, LAPLACE, RUNGS, WITH_PRIOR
from pyro_vae.evidence.results.running_weights import RunningWeights
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained.annealed_path import (
    AnnealedPath,
    FromNormals,
    FromPrior,
    Schedule,
    sigmoid_schedule,
)
from pyro_vae.evidence.unconstrained.laplace_proposal import (
    PRIOR_SHARE,
    Fit,
    draw_mixture,
    fit_block,
    log_mixture,
    refit,
)
from pyro_vae.evidence.unconstrained.log_joint import FastDensities, LogJoint, particles_at_once
from pyro_vae.evidence.unconstrained.normal_mixture import FEW_DIMS
from pyro_vae.weights import log_mean_exp, terms, terms_at

__all__ = ["Ladder", "Settings"]

PILOT = {GUIDE: 64, WITH_PRIOR: 256, LAPLACE: 64}
PILOT_OF_FEW_DIMS = 1024
SHARE_WITH_PRIOR = 0.3
# The share of the weight of a pilot that draws from the prior have, where the normals have all modes: a tenth at most.
MOST_FROM_PRIOR, LITTLE_FROM_PRIOR = 0.3, 0.02
STUCK, MOST_OF_VARIANCE = 0.3, 1e3
ROUNDING = 8.0  # units in the last place of log p(x), by which its terms may be off
MOST_OF_ONE = 0.5  # of the weight, for a single draw
MORE_STARTS = 4
AT_ONCE = 128  # samples that are drawn at once, whatever the size of a chunk
LEAST_SAMPLES = 256
# Weights of normals that vary more have missed the flanks of the posterior, and annealing costs no more.
# In few dimensions many samples reach everywhere, which chains need not.
MOST_VARIANCE, MOST_VARIANCE_WITH_PRIOR, MOST_VARIANCE_OF_FEW_DIMS = 1.0, 20.0, 100.0
MOST_SAMPLES_OF_FEW = 2**14  # where the noise of each datapoint counts, and where nothing can be annealed
NUM_CHAINS, LAST_CHAINS, MOST_CHAINS = 16, 64, 256
# Where the first number of chains would need many temperatures, more chains with fewer temperatures cost as much, and
# less time: the last datapoints of a block are then few for fewer steps.
MANY_TEMPERATURES, MORE_CHAINS = 64, 4
NUM_LEAPFROG = {ANNEALED: 1, FROM_PRIOR: 3}
FEWEST_TEMPERATURES = {ANNEALED: 24, FROM_PRIOR: 128}
PILOT_TEMPERATURES = {ANNEALED: 16, FROM_PRIOR: 48}
MARGIN = 0.85  # of the variance that is aimed at, since a pilot does not know it well
SHARE_OF_TOLERANCE = 0.125  # of the bias: what is aimed at
UPPER_TEMPERATURES = 4  # times as many as the estimates took
# By how much an estimate must exceed another one to contradict it: so many errors of both, or standard errors of its
# own if its error is not known, and at least so many nats. One datapoint in many thousands may do so by chance: an
# estimate is 10 nats too high with a probability of at most exp(-10) (Markov), and mostly far less.
KNOWN_ERRORS, UNKNOWN_ERRORS, LEAST_DIFFERENCE = 2.0, 10.0, 0.05


class Settings(NamedTuple):
    """What :func:`~pyro_vae.evidence.estimate` was asked for."""

    tolerance: float
    max_temperatures: int
    num_datapoints: int  #: Over which the mean is taken.

    @property
    def variance_for_bias(self) -> float:
        """The variance of an estimate whose bias, about half of that, is small enough."""
        return 2 * SHARE_OF_TOLERANCE * self.tolerance

    @property
    def variance(self) -> float:
        """The variance of the estimate of a datapoint that is aimed at: also for the noise of the mean."""
        return min(self.variance_for_bias, self.num_datapoints * (self.tolerance / 2) ** 2)


class Ladder:
    """The estimates of a block of datapoints.

    What is to be done is decided by pilots; what is reported comes from fresh draws.

    Args:
        programs: Model and guide.
        x: The block, ``[n, *event]``.
        settings: What was asked for.
        deadline: When to stop climbing, by ``time.monotonic``.
        fast: Makes the densities fast, once for all blocks that share it.

    Attributes:
        columns: What is known so far, each ``[n]`` on the CPU, by the names of the fields of ``Evidence``; NaN where
            nothing is.
        late: Whether the deadline has stopped something.
    """

    def __init__(
        self,
        programs: Programs,
        x: Tensor,
        settings: Settings,
        deadline: float = math.inf,
        fast: FastDensities | None = None,
    ) -> None:
        self.programs, self.x, self.settings, self.deadline = programs, x, settings, deadline
        self.rows = torch.arange(len(x), device=x.device)
        self.columns = {"error": torch.full((len(x),), torch.inf, dtype=torch.float64)}
        self.columns["seconds"] = torch.zeros(len(x), len(RUNGS), dtype=torch.float64)
        self.floor = torch.full((len(x),), -torch.inf, dtype=torch.float64)  # log p(x) is above, as far as is known
        self.anneal = torch.zeros_like(self.rows, dtype=torch.bool)  # whether the normals are a start for chains
        self.contradicted = torch.zeros(len(x), dtype=torch.bool)  # by another estimate, the last one of each
        self.variance = torch.zeros(len(x), dtype=torch.float64)  # of the weights of the normals, relative
        self.paths: dict[int, tuple[Tensor, AnnealedPath, Schedule]] = {}
        self.late = False
        self.fit: Fit | None = None
        try:
            self.log_joint: LogJoint | None = LogJoint(programs.model, x, programs.layout, programs.chunk_size, fast)
        except ValueError:  # discrete, or on a sphere: no gradients
            self.log_joint = None

    def climb(self) -> dict[str, Tensor]:
        """Estimates log p(x) of every datapoint; returns the columns.

        Raises:
            ValueError: If no method has a weight that is neither zero nor NaN for a datapoint.
        """
        if self.log_joint is None:
            self._without_gradients()
        else:
            self._with_gradients(self.log_joint)
        return self.columns

    def _without_gradients(self) -> None:
        """The guide, checked against its mixture with the prior, which cannot be too narrow."""
        samples = {GUIDE: terms, WITH_PRIOR: defensive(SHARE_WITH_PRIOR)}
        pilots = {}
        for rung, proposal in samples.items():
            with self._timed(rung):
                pilots[rung] = self._weigh(proposal, PILOT[rung])
            self._raise_floor(self.rows, pilots[rung])
        for rung, proposal in samples.items():
            wanted = self._wanted(pilots[rung], torch.inf)[self.unsettled].clamp_max(MOST_SAMPLES_OF_FEW)
            if not (wanted > 0).any() or self._is_late():
                continue
            count = int(wanted.max())
            with self._timed(rung):
                self._report(rung, self.rows, self._weigh(proposal, count), pilots[rung], samples=count)
        for rung in samples:
            self._report(rung, self.rows, pilots[rung], samples=PILOT[rung])

    def _with_gradients(self, log_joint: LogJoint) -> None:
        with self._timed(GUIDE):
            self._raise_floor(self.rows, self._weigh(terms, PILOT[GUIDE]))
        with self._timed(LAPLACE):
            self.fit = fit_block(log_joint, self.programs.guide)
            found = self.rows[self.fit.normals.found]
            if len(found):
                self._laplace(found)
        for rung in (ANNEALED, FROM_PRIOR):
            rows = self.unsettled
            if rung == ANNEALED:
                rows = rows[self.anneal[rows]]
            if len(rows) and not self._is_late():
                with self._timed(rung):
                    self._anneal(rung, log_joint, rows)

    def _laplace(self, found: Tensor) -> None:
        few_dims = self._few_dims
        samples = PILOT_OF_FEW_DIMS if few_dims else PILOT[LAPLACE]
        pilot, from_prior = self._laplace_pilot(found, samples)
        self.variance[found.cpu()] = expected_relative_variance(pilot.moments()).clamp_max(MOST_OF_VARIANCE)
        # Chains that start from the normals may miss what draws from the prior have seen, or other samples of many.
        prior_matters = from_prior > LITTLE_FROM_PRIOR
        most = torch.where(prior_matters, MOST_VARIANCE_WITH_PRIOR, MOST_VARIANCE)
        wanted = self._wanted(pilot, torch.full_like(most, MOST_VARIANCE_OF_FEW_DIMS) if few_dims else most)
        few = self.settings.variance_for_bias / self.settings.variance
        wanted = 2 ** (wanted * few).clamp(1, MOST_SAMPLES_OF_FEW).log2().ceil() * (wanted > 0)
        self.anneal[found] = ~((prior_matters & (wanted == 0)) | few_dims).to(found.device)
        wanted = torch.where(self.fit.complete[found].cpu(), wanted, 0)
        self._raise_floor(found, pilot)
        for count in wanted.unique().tolist():
            index = (wanted == count).nonzero()[:, 0]
            rows = found[index.to(found.device)]
            if count == 0:
                self._report(LAPLACE, rows, pilot.rows(index), samples=samples)
                self.columns["error"][rows.cpu()] = torch.inf  # it was this sample that said no
            else:
                fresh = self._laplace_weights(rows, int(count))[0]
                self._report(LAPLACE, rows, fresh, pilot.rows(index), samples=int(count))
        left = found[self._is_unsettled(found).to(found.device) & self.fit.complete[found]]
        if few_dims and len(left):
            many = self._laplace_weights(left, MOST_SAMPLES_OF_FEW)[0]
            self._report(LAPLACE, left, many, samples=MOST_SAMPLES_OF_FEW)

    def _laplace_pilot(self, found: Tensor, samples: int) -> tuple[RunningWeights, Tensor]:
        """A pilot, and the share of its weight that draws from the prior have, ``[m]`` on the CPU.

        Where that is large, or one draw has most of the weight, the normals may lack a mode: the draws that weigh most
        become starts to look for it.
        """
        pilot, position, share = self._laplace_weights(found, samples)
        from_prior = round(PRIOR_SHARE * len(position))
        unseen = (share[:from_prior].sum(0) > MOST_FROM_PRIOR) | (share.amax(0) > MOST_OF_ONE)
        if self._few_dims:  # where it costs little
            unseen |= (expected_relative_variance(pilot.moments()) > MOST_VARIANCE).to(unseen.device)
        unseen = unseen.nonzero()[:, 0]
        if len(unseen):
            best = share[:, unseen].topk(MORE_STARTS, dim=0).indices
            starts = position[:, unseen].gather(0, best[..., None].expand(*best.shape, position.shape[-1]))
            self.fit = refit(self.log_joint, self.fit, found[unseen], starts)
            again, _, new_share = self._laplace_weights(found[unseen], samples)
            pilot, share[:, unseen] = pilot.updated(unseen, again), new_share
        return pilot, share[:from_prior].sum(0).cpu()

    @torch.no_grad()
    def _laplace_weights(self, rows: Tensor, count: int) -> tuple[RunningWeights, Tensor, Tensor]:
        """Weights of draws from normals and prior; the last positions, and the share of the weight of each."""
        normals, running = self.fit.normals.rows(rows), RunningWeights(len(rows), count, self.x.device)
        for done in range(0, count, AT_ONCE):
            position = draw_mixture(self.log_joint, normals, rows, min(AT_ONCE, count - done))
            log_prior, joint = self.log_joint.densities(position, rows)
            log_weights = (joint - log_mixture(normals, position, log_prior)).double()
            log_weights = log_weights.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            running.update(log_weights)
        return running, position, log_weights.softmax(0).nan_to_num(0.0)

    def _anneal(self, rung: int, log_joint: LogJoint, rows: Tensor) -> None:
        """Chains with as many temperatures as a pilot asks for; twice as many of both where they were too few."""
        path, schedule = self._pilot(rung, log_joint, rows)
        self.paths[rung] = rows, path, schedule
        most, settings = self.settings.max_temperatures, self.settings
        fewest = min(FEWEST_TEMPERATURES[rung], most)
        variance = schedule.variance.cpu() * schedule.num_temperatures  # about the same for any number of temperatures
        wanted = variance / math.log1p(MARGIN * NUM_CHAINS * settings.variance_for_bias)
        wanted = wanted.nan_to_num(1e9, 1e9).ceil()
        chains = math.ceil(NUM_CHAINS * settings.variance_for_bias / settings.variance)
        easy = wanted <= MANY_TEMPERATURES
        for part, more in ((easy, 1), (~easy, MORE_CHAINS)):
            left = part.nonzero()[:, 0]
            temperatures = (wanted / more).ceil().clamp(fewest, most).long()
            while len(left) and not self._is_late():
                last = not bool((temperatures[left] < most).any())
                number = min(more * chains, MOST_CHAINS)
                self._run_chains(rung, left, temperatures[left], max(number, LAST_CHAINS) if last else number)
                left = left[self._is_unsettled(rows[left]) & ~self.contradicted[rows[left].cpu()]]
                if last:
                    break
                temperatures, more = (2 * temperatures).clamp_max(most), 2 * more

    def _pilot(self, rung: int, log_joint: LogJoint, rows: Tensor) -> tuple[AnnealedPath, Schedule]:
        start = FromPrior(log_joint, rows) if rung == FROM_PRIOR else FromNormals(log_joint, self.fit.normals, rows)
        path, steps = AnnealedPath(start, NUM_LEAPFROG[rung]), PILOT_TEMPERATURES[rung]
        even = [t / steps for t in range(steps + 1)]
        return path, path.pilot(steps, sigmoid_schedule(steps) if rung == FROM_PRIOR else even)

    def _run_chains(self, rung: int, index: Tensor, num_temperatures: Tensor, num_chains: int) -> None:
        """Goes along the path of a rung, for some of its rows ``[m]``, and reports."""
        rows, path, schedule = self.paths[rung]
        index = index.to(rows.device)
        resized = schedule.rows(index).resized(num_temperatures.to(rows.device))
        annealed = path.some(index).forward(num_chains, resized)
        weights = RunningWeights(len(index), num_chains, rows.device)
        weights.update(annealed.log_weights.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf))
        # Weights of the normals that vary, and chains from them that find nothing but normals, do not go together.
        moved = annealed.log_weights.var(0).cpu() * num_temperatures
        variance = self.variance[rows[index].cpu()]
        expected = torch.log1p(variance)
        stuck = (moved < STUCK * expected) & (variance > MOST_VARIANCE) & (rung == ANNEALED)
        extra = {"num_temperatures": num_temperatures, "acceptance": annealed.acceptance.double().cpu()}
        self._report(rung, rows[index], weights, samples=num_chains, doubtful=stuck, **extra)
        self.contradicted[rows[index].cpu()] |= stuck & (moved < 0.01 * expected)

    def _weigh(self, proposal: Proposal, count: int) -> RunningWeights:
        """Weights of draws for all rows."""
        programs, running = self.programs, RunningWeights(len(self.x), count, self.x.device)
        at_once = particles_at_once(programs.chunk_size, len(self.x))
        for done in range(0, count, at_once):
            number = min(at_once, count - done)
            at = proposal(programs.model, programs.guide, self.x, number, programs.layout)
            running.update(at.log_weights)
        return running

    def _wanted(self, pilot: RunningWeights, most_variance: float | Tensor) -> Tensor:
        """How many samples a pilot asks for, powers of two; 0 where their weights vary too much."""
        expected = expected_relative_variance(pilot.moments())
        wanted = (expected / (MARGIN * self.settings.variance_for_bias)).clamp_min(LEAST_SAMPLES)
        return torch.where(expected.isfinite() & (expected <= most_variance), 2 ** wanted.log2().ceil(), 0.0)

    def _raise_floor(self, rows: Tensor, weights: RunningWeights) -> None:
        """Takes note of a lower bound on log p(x): with weights that have the mean p(x), it is seldom exceeded."""
        error = error_bars(weights.moments()).error
        unknown = (UNKNOWN_ERRORS * weights.std_error.cpu()).clamp_min(1.0)
        margin = torch.where(error.isfinite(), (KNOWN_ERRORS * error).clamp_min(LEAST_DIFFERENCE), unknown)
        bound = (weights.log_mean.cpu() - margin).nan_to_num(-torch.inf, -torch.inf)
        self.floor[rows.cpu()] = torch.maximum(self.floor[rows.cpu()], bound)

    def _report(
        self,
        rung: int,
        rows: Tensor,
        weights: RunningWeights,
        pilot: RunningWeights | None = None,
        *,
        samples: int,
        num_temperatures: Tensor | None = None,
        acceptance: Tensor | None = None,
        doubtful: Tensor | None = None,
    ) -> None:
        """Takes over an estimate where it is better than what is known: with a smaller error, or by a later method."""
        usable = weights.log_sum.isfinite()
        if not usable.any():
            return
        weights, rows = weights.rows(usable), rows[usable].cpu()
        usable = usable.cpu()
        columns = weights.columns(pilot=None if pilot is None else pilot.moments().rows(usable))
        # A sample that has missed a mode does not know it, but another one may have seen it.
        missed = self.floor[rows] > columns["log_prob"] + KNOWN_ERRORS * columns["error"]
        self.contradicted[rows] = missed
        if doubtful is not None:
            missed = missed | doubtful[usable]
        columns["error"] += ROUNDING * torch.finfo(self.programs.dtype).eps * (1 + columns["log_prob"].abs())
        columns["error"] = columns["error"].masked_fill(missed, torch.inf)
        columns["bias"] = columns["bias"].masked_fill(missed, torch.inf)
        nothing = torch.full_like(columns["error"], torch.nan)
        columns |= {
            "rung": torch.full_like(rows, rung),
            "num_samples": torch.full_like(rows, samples),
            "num_temperatures": torch.zeros_like(rows) if num_temperatures is None else num_temperatures[usable],
            "acceptance": nothing if acceptance is None else acceptance[usable],
        }
        known = self.columns["error"][rows]
        better = (columns["error"] < known) | known.isinf()
        for name, column in columns.items():
            empty = torch.nan if column.is_floating_point() else -1
            whole = self.columns.setdefault(name, column.new_full(self.rows.shape, empty))
            whole[rows[better]] = column[better]
        self._raise_floor(rows, weights)

    @torch.no_grad()
    def upper_bound(self, latents: dict[str, Tensor]) -> Tensor:
        """An upper bound on log p(x) on average, ``[n]``, from exact draws of the posterior, by site ``[n, ...]``.

        By annealing in reverse, with at least four times as many temperatures as the estimates took; where there are no
        gradients, by the log-weight of the exact draw (its mean exceeds log p(x) by KL(p(z | x) || q(z | x))).
        """
        layout = self.programs.layout
        spread = {name: layout.by_site(value[None]) for name, value in latents.items()}
        upper = torch.full((len(self.x),), torch.nan, dtype=torch.float64)
        if self.log_joint is None:
            at = terms_at(self.programs.model, self.programs.guide, self.x, spread, 1, layout)
            return at.log_weights[0].double().cpu()
        position = self.log_joint.vectors.to_vectors(spread)
        from_prior = self.columns["rung"].to(self.rows.device) == FROM_PRIOR
        from_prior |= ~self.fit.normals.found
        if self._few_dims:
            from_prior |= ~self.fit.complete
        for rung, rows in ((ANNEALED, self.rows[~from_prior]), (FROM_PRIOR, self.rows[from_prior])):
            if len(rows):
                path, schedule = self._pilot(rung, self.log_joint, rows)
                taken = self.columns["num_temperatures"][rows.cpu()].clamp_min(FEWEST_TEMPERATURES[rung])
                exact = position[:, rows].expand(NUM_CHAINS, -1, -1)
                back = path.reverse(exact, schedule.resized(UPPER_TEMPERATURES * taken))
                upper[rows.cpu()] = -log_mean_exp(-back.log_weights).cpu()
        return upper

    @property
    def _few_dims(self) -> bool:
        """Whether many samples reach everywhere."""
        return self.log_joint.dims <= FEW_DIMS

    @property
    def unsettled(self) -> Tensor:
        """The rows that still want something better, ``[m]``."""
        return self.rows[self._is_unsettled(self.rows).to(self.rows.device)]

    def _is_unsettled(self, rows: Tensor) -> Tensor:
        """Whether rows ``[m]`` have an error that is infinite, or a bias above the tolerance; on the CPU.

        ``bias`` is a bound, about twice the bias. It is far above what is aimed at, so that few fresh samples are
        refused: to believe a sample or not by what it says itself is biased.
        """
        error = self.columns["error"][rows.cpu()]
        bias = self.columns["bias"][rows.cpu()] if "bias" in self.columns else error
        return error.isinf() | ~(bias <= 2 * self.settings.tolerance)

    def _is_late(self) -> bool:
        self.late = self.late or time.monotonic() > self.deadline
        return self.late

    @contextmanager
    def _timed(self, rung: int) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self.columns["seconds"][:, rung] += (time.perf_counter() - before) / len(self.x)

"""log p(x) by annealed importance sampling, from below and, where the posterior can be drawn from, from above."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.checks import check_choice, check_count
from pyro_vae.evidence.hmc import Move, hmc_move
from pyro_vae.evidence.latent_vectors import LatentVectors
from pyro_vae.evidence.result import Evidence
from pyro_vae.evidence.runner import Programs, Progress, bar
from pyro_vae.evidence.running_weights import RunningWeights
from pyro_vae.processes import Processes
from pyro_vae.weights import Layout, Program, no_sites, sample_sites, terms_at, vectorized

__all__ = ["AnnealedPath", "StepSizes", "annealed", "check_path", "sigmoid_schedule"]

STARTS = ("prior", "guide")
TARGET_ACCEPTANCE = 0.65  # Neal 2011, section 5.4.4: about what is best in many dimensions

# Step sizes are found on chains of their own, so that those that count move by fixed rules: only then is the estimate
# of p(x) unbiased.
PILOT_CHAINS = 16
PILOT_FRACTION = 5  # so many times fewer temperatures
LEAST_PILOT_TEMPERATURES = 50
WARM_UP = 30  # transitions at the start of the path
SCALE_DRAWS = 64


def annealed(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_chains: int = 32,
    num_temperatures: int = 500,
    num_leapfrog: int = 10,
    start: str = "prior",
    chunk_size: int | None = None,
    progress: Progress = bar,
    resume: str | Path | None = None,
    processes: Processes | None = None,
) -> Evidence:
    """Estimates log p(x) by annealed importance sampling (Neal 2001), where importance sampling fails.

    Chains go from the prior (or the guide) to the posterior by way of the densities between them, with a transition of
    Hamiltonian Monte Carlo at each (Wu et al. 2017). The mean weight is an unbiased estimate of p(x) for any number of
    temperatures, so the estimate of log p(x) is a lower bound on average; it rises towards log p(x) with more. All
    latents must be continuous.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``.
        num_chains: Chains for each datapoint, at least 2. With 25 or more there is a k-hat.
        num_temperatures: Steps from the start to the posterior, at least 1.
        num_leapfrog: Leapfrog steps of each transition; their size is adapted to an acceptance rate of 0.65.
        start: ``"prior"``, or ``"guide"`` where it is close to the posterior and covers it.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Wraps the sequence of blocks of datapoints, as ``rich.progress.track`` does; ``iter`` for silence.
        resume: A file to keep what is done in. The same call goes on from it, to the same numbers as if it had not
            been stopped; at most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Returns:
        The estimate, of which ``elbo`` is the mean log-weight of the chains, and ``acceptance`` their acceptance rate.

    Raises:
        TypeError: If x is not a tensor, or has a dtype that the programs do not take.
        ValueError: As :func:`~pyro_vae.evidence.importance`; or if a latent site is discrete.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    num_chains = check_count("num_chains", num_chains, least=2)
    settings = check_path(num_temperatures, num_leapfrog, start)
    programs = Programs(model, guide, x, chunk_size)

    def anneal(block: Tensor, first: int) -> dict[str, Tensor]:
        path = AnnealedPath(model, guide, block, programs.layout, **settings)
        log_weights, acceptance = path.forward(num_chains, path.adapt())
        running = RunningWeights(len(block), num_chains, x.device)
        running.update(log_weights)
        return {**running.columns(first), "acceptance": acceptance}

    def finish(columns: dict[str, Tensor]) -> Evidence:
        return Evidence(**columns, num_samples=num_chains, samples="annealed chains")  # type: ignore[arg-type]

    return programs.run(
        anneal,
        finish,
        rows=max(1, programs.chunk_size // num_chains),
        settings={"function": "annealed", "num_chains": num_chains, **settings},
        progress=progress,
        resume=resume,
        processes=processes,
    )


def check_path(num_temperatures: int, num_leapfrog: int, start: str) -> dict[str, Any]:
    """Checks the settings of an :class:`AnnealedPath`, and returns them by name."""
    return {
        "num_temperatures": check_count("num_temperatures", num_temperatures),
        "num_leapfrog": check_count("num_leapfrog", num_leapfrog),
        "start": check_choice("start", start, STARTS),
    }


def sigmoid_schedule(num_temperatures: int, steepness: float = 4.0) -> list[float]:
    """Inverse temperatures from 0 to 1, closer together near both ends (Grosse et al. 2015, section 4.1).

    Returns:
        ``num_temperatures + 1`` numbers.
    """
    logistic = [math.tanh(steepness * (t / num_temperatures - 0.5)) for t in range(num_temperatures + 1)]
    return [(value - logistic[0]) / (logistic[-1] - logistic[0]) for value in logistic]


class StepSizes(NamedTuple):
    """Step sizes of the leapfrog integrator along a path, and the scales of the dimensions they are multiplied by."""

    log_sizes: Tensor  #: At equal steps of time from 0 to 1, ``[steps, n]``.
    scale: Tensor  #: ``[n, dims]``.

    def at(self, time: float) -> Tensor:
        """The step size for each datapoint, ``[n]``, at a time from 0 to 1."""
        place = time * (len(self.log_sizes) - 1)
        below = min(int(place), len(self.log_sizes) - 2)
        return torch.lerp(self.log_sizes[below], self.log_sizes[below + 1], place - below).exp()


class AnnealedPath:
    """The densities between the prior or the guide and the posterior: start(z)^(1 - b) p(x, z)^b, up to a constant.

    Args:
        model: The model.
        guide: The guide.
        x: Data, ``[n, *event]``, all of which are computed at once.
        layout: That of the programs.
        start: Where the path begins, ``"prior"`` or ``"guide"``.
        num_temperatures: The number of steps of the inverse temperature b from 0 to 1.
        num_leapfrog: The number of leapfrog steps of each transition.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        x: Tensor,
        layout: Layout,
        *,
        start: str,
        num_temperatures: int,
        num_leapfrog: int,
    ) -> None:
        self.model, self.x, self.layout = model, x, layout
        self.guide = guide if start == "guide" else no_sites  # what the guide thinks does not matter then
        self.start, self.num_temperatures, self.num_leapfrog = start, num_temperatures, num_leapfrog
        trace = poutine.util.prune_subsample_sites(poutine.trace(vectorized(model, 1, layout)).get_trace(x))
        sites = {name: site for name, site in sample_sites(trace) if not site["is_observed"]}
        if not sites:
            raise ValueError("the model has no latent sites to be annealed")
        self.vectors = LatentVectors(sites, layout)

    @torch.no_grad()
    def draw_start(self, num_chains: int) -> Tensor:
        """Draws from the density that the path begins with, ``[chains, n, dims]``."""
        program = self.model if self.start == "prior" else self.guide
        trace: Any = poutine.trace(vectorized(program, num_chains, self.layout)).get_trace(self.x)
        return self.vectors.to_vectors({name: trace.nodes[name]["value"] for name in self.vectors.transforms})

    def log_densities(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """The log-densities at both ends of the path, ``[chains, n]``, of positions ``[chains, n, dims]``."""
        latents, log_det = self.vectors.to_latents(position)
        at = terms_at(self.model, self.guide, self.x, latents, len(position), self.layout)
        log_start = at.log_prior if self.start == "prior" else at.log_posterior
        return log_start + log_det, at.log_likelihood + at.log_prior + log_det

    def adapt(self) -> StepSizes:
        """Finds step sizes along the path that are accepted with probability 0.65, by chains of its own."""
        position = self.draw_start(PILOT_CHAINS)
        scale = self.draw_start(SCALE_DRAWS).std(0).clamp_min(1e-6)
        log_size = torch.full_like(scale[:, 0], math.log(0.5))
        found = []
        schedule = sigmoid_schedule(max(LEAST_PILOT_TEMPERATURES, self.num_temperatures // PILOT_FRACTION))
        for i, inverse_temperature in enumerate([0.0] * WARM_UP + schedule):
            move = self._move(position, inverse_temperature, log_size.exp(), scale)
            position = move.position
            log_size = log_size + (move.acceptance.mean(0) - TARGET_ACCEPTANCE)
            if i >= WARM_UP:
                found.append(log_size)
        return StepSizes(torch.stack(found), scale)

    def forward(self, num_chains: int, step_sizes: StepSizes) -> tuple[Tensor, Tensor]:
        """Goes from the start to the posterior.

        Returns:
            Log-weights, ``[chains, n]``, whose exponentials have the mean p(x); and the acceptance rate, ``[n]``.
        """
        return self._anneal(self.draw_start(num_chains), step_sizes, reverse=False)

    def reverse(self, position: Tensor, step_sizes: StepSizes) -> tuple[Tensor, Tensor]:
        """Goes from exact draws from the posterior, ``[chains, n, dims]``, to the start (Grosse et al. 2015).

        Returns:
            Log-weights, ``[chains, n]``, of which the exponentials of their negatives have the mean 1 / p(x); and the
            acceptance rate, ``[n]``.
        """
        return self._anneal(position, step_sizes, reverse=True)

    def _anneal(self, position: Tensor, step_sizes: StepSizes, *, reverse: bool) -> tuple[Tensor, Tensor]:
        log_weights = position.new_zeros(position.shape[:2])
        acceptance = position.new_zeros(position.shape[1])
        steps = list(enumerate(pairwise(sigmoid_schedule(self.num_temperatures)), start=1))
        for t, (low, high) in reversed(steps) if reverse else steps:
            size = step_sizes.at(t / self.num_temperatures)
            if reverse:
                position, accepted = self._move(position, high, size, step_sizes.scale)
                acceptance += accepted.mean(0) / len(steps)
            with torch.no_grad():
                start, end = self.log_densities(position)
                log_weights += (high - low) * (end - start)
            if not reverse:  # the last one changes no weight, but is where the chains end: in the posterior
                position, accepted = self._move(position, high, size, step_sizes.scale)
                acceptance += accepted.mean(0) / len(steps)
        return log_weights, acceptance

    def _move(self, position: Tensor, inverse_temperature: float, step_size: Tensor, scale: Tensor) -> Move:
        def log_density(position: Tensor) -> Tensor:
            start, end = self.log_densities(position)
            return start + inverse_temperature * (end - start)

        return hmc_move(position, log_density, step_size, scale, self.num_leapfrog)

"""log p(x) by annealed importance sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_choice, check_count
from pyro_vae.evidence.results.evidence import Evidence
from pyro_vae.evidence.results.running_weights import RunningWeights
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.unconstrained.annealed_path import (
    AnnealedPath,
    FromGuide,
    FromNormals,
    FromPrior,
    Schedule,
    sigmoid_schedule,
)
from pyro_vae.evidence.unconstrained.laplace_proposal import fit_block
from pyro_vae.evidence.unconstrained.log_joint import LogJoint
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import by_row
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program

__all__ = ["annealed", "check_path", "path_from", "pilot"]

STARTS = ("prior", "guide", "laplace")
PILOT_FRACTION = 5  # so many times fewer temperatures
LEAST_PILOT_TEMPERATURES = 24


@evidence_function
def annealed(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_chains: int = 32,
    num_temperatures: int = 500,
    num_leapfrog: int = 10,
    start: str = "prior",
    chunk_size: int | None = None,
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> Evidence:
    """Estimates log p(x) by annealed importance sampling (Neal 2001), where importance sampling fails.

    Chains go from the prior (or the guide, or normals at the modes) to the posterior by way of the densities between
    them, with a transition of Hamiltonian Monte Carlo at each (Wu et al. 2017). The mean weight is an unbiased estimate
    of p(x) for any number of temperatures, so the estimate of log p(x) is a lower bound on average; it rises towards
    log p(x) with more. Temperatures and step sizes are found by chains of their own. All latents must be continuous.

    :func:`~pyro_vae.evidence.estimate` does this where it is needed, with as many temperatures as it takes.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``; or, for programs of more than x, a tuple of tensors, each ``[n, ...]``; or a
            ``Dataset`` or ``DataLoader`` of what they take, which is loaded into memory, in the order of the data set.
        num_chains: Chains for each datapoint, at least 2. With 25 or more there is a k-hat.
        num_temperatures: Steps from the start to the posterior, at least 1.
        num_leapfrog: Leapfrog steps of each transition; their size is adapted to an acceptance rate of 0.8.
        start: ``"prior"``; ``"guide"`` where it is close to the posterior and covers it; or ``"laplace"``, normals at
            the modes of p(x, z): the least work where the posterior has the shape of a few normals.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Whether to show a progress bar; or a function that wraps the blocks, as ``tqdm.tqdm`` does.
        keep: A file for what is done. If it is there, the call goes on from it, to the same numbers as if it had not
            been stopped. At most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Returns:
        The estimate, of which ``elbo`` is the mean log-weight of the chains, and ``acceptance`` their acceptance rate.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: As :func:`~pyro_vae.evidence.importance`; or if a latent site is discrete.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    num_chains = check_count("num_chains", num_chains, least=2)
    settings = check_path(num_temperatures, num_leapfrog, start)
    model, guide, x = by_row(model, guide, x)
    programs = Programs(model, guide, x, chunk_size)

    def anneal(block: Tensor, first: int) -> dict[str, Tensor]:
        path = path_from(start, programs, block, num_leapfrog)
        chains = path.forward(num_chains, pilot(path, num_temperatures, start))
        running = RunningWeights(len(block), num_chains, x.device)
        running.update(chains.log_weights)
        return {**running.columns(first), "acceptance": chains.acceptance}

    def finish(columns: dict[str, Tensor]) -> Evidence:
        return Evidence(**columns, num_samples=num_chains, samples="annealed chains")  # type: ignore[arg-type]

    return programs.run(
        anneal,
        finish,
        rows=max(1, programs.chunk_size // num_chains),
        settings={"function": "annealed", "num_chains": num_chains, **settings},
        progress=progress,
        keep=keep,
        processes=processes,
    )


def check_path(num_temperatures: int, num_leapfrog: int, start: str) -> dict[str, Any]:
    """Checks the settings of an annealed path, and returns them by name."""
    return {
        "num_temperatures": check_count("num_temperatures", num_temperatures),
        "num_leapfrog": check_count("num_leapfrog", num_leapfrog),
        "start": check_choice("start", start, STARTS),
    }


def path_from(start: str, programs: Programs, x: Tensor, num_leapfrog: int) -> AnnealedPath:
    """The path from ``"prior"``, ``"guide"`` or ``"laplace"`` to the posterior of a block of datapoints.

    Raises:
        ValueError: If a latent site is discrete, or on a sphere.
    """
    log_joint = LogJoint(programs.model, x, programs.layout, programs.chunk_size)
    every = torch.arange(len(x), device=x.device)
    if start == "prior":
        return AnnealedPath(FromPrior(log_joint, every), num_leapfrog)
    if start == "guide":
        return AnnealedPath(FromGuide(log_joint, programs.guide), num_leapfrog)
    return AnnealedPath(FromNormals(log_joint, fit_block(log_joint, programs.guide).normals, every), num_leapfrog)


def pilot(path: AnnealedPath, num_temperatures: int, start: str) -> Schedule:
    """Finds temperatures and step sizes with fewer temperatures than are wanted, evenly spaced from normals."""
    count = max(LEAST_PILOT_TEMPERATURES, num_temperatures // PILOT_FRACTION)
    even = [t / count for t in range(count + 1)]
    return path.pilot(num_temperatures, even if start == "laplace" else sigmoid_schedule(count))

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
from pyro_vae.evidence.unconstrained.approximate_likelihood import informed
from pyro_vae.evidence.unconstrained.laplace_proposal import fit_block
from pyro_vae.evidence.unconstrained.log_joint import LogJoint, OftenRecorded
from pyro_vae.processes import Processes
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program

STARTS = ("prior", "guide", "laplace")
PILOT_FRACTION = 5  # the pilot has this many times fewer temperatures
ROUNDING = 1e-3  # of log-weights in float32, which differ by rounding alone
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

    Chains go from the prior (or the guide, or normals at the modes) to the posterior, through the densities between
    them, with a transition of Hamiltonian Monte Carlo at each (Wu et al. 2017). The mean weight is an unbiased estimate
    of p(x) for any number of temperatures, so the estimate of log p(x) is a lower bound on average. It rises towards
    log p(x) with more temperatures. Separate chains find temperatures and step sizes. All latents must be continuous.

    :func:`~pyro_vae.evidence.estimate` does this where needed, with as many temperatures as needed.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, as for :func:`~pyro_vae.evidence.estimate`.
        num_chains: Chains for each datapoint, at least 2. With 25 or more there is a k-hat.
        num_temperatures: Steps from the start to the posterior, at least 1.
        num_leapfrog: The leapfrog steps of each transition; their size is adapted to an acceptance rate of 0.8.
        start: ``"prior"``; ``"guide"`` if it is close to the posterior and covers it; or ``"laplace"``, normals at the
            modes of p(x, z), which is the least work if the posterior looks like a few normals.
        chunk_size, progress, keep, processes: As for :func:`~pyro_vae.evidence.estimate`.

    Returns:
        The estimate; ``elbo`` is the mean log-weight of the chains, and ``acceptance`` their acceptance rate.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: As for :func:`~pyro_vae.evidence.importance`; or if a latent site is discrete.
        Interrupted: At Ctrl-C, with the result for the finished datapoints.

    Example:
        >>> options = {"num_chains": 8, "num_temperatures": 10, "num_leapfrog": 2}
        >>> result = evidence.annealed(vae.model, vae.guide, x, **options, progress=False)
        >>> result.log_prob.shape, result.acceptance.shape
        (torch.Size([8]), torch.Size([8]))
    """
    num_chains = check_count("num_chains", num_chains, least=2)
    settings = check_path(num_temperatures, num_leapfrog, start)
    programs = Programs(model, guide, x, chunk_size, progress, keep, processes)

    def anneal(block: Tensor, first: int) -> dict[str, Tensor]:
        path = path_from(start, programs, block, num_leapfrog)
        chains = path.forward(num_chains, pilot(path, num_temperatures, start))
        running = RunningWeights(len(block), num_chains, block.device)
        running.update(chains.log_weights)
        columns = running.columns(first)
        columns["error"] = columns["error"] + _unseen_chains(columns["std_error"], num_chains)
        return {**columns, "acceptance": chains.acceptance}

    def finish(columns: dict[str, Any]) -> Evidence:
        return Evidence(**columns, num_samples=num_chains, samples="annealed chains")

    return programs.run(
        anneal,
        finish,
        rows=max(1, programs.chunk_size // num_chains),
        settings={"function": "annealed", "num_chains": num_chains, **settings},
    )


def _unseen_chains(std_error: Tensor, num_chains: int) -> Tensor:
    """What chains of weight zero, of which the sample has none, could change, in nats, ``[n]``.

    A chain that starts in the wrong place ends with a weight near zero. If a share s of the chains does so, a sample of
    n has none with a probability of exp(-s n): all weights then look alike, and the estimate is too high by s. For
    s = 2 / n that happens once in seven times. Where all weights are equal, as for an exact start, nothing is added.
    """
    differ = std_error * num_chains**0.5 > ROUNDING
    return 2 * differ.to(std_error.dtype) / num_chains


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
    log_joint = LogJoint(programs.model, x, programs.layout, programs.chunk_size, OftenRecorded())
    log_joint = informed(log_joint, programs.guide)
    every = torch.arange(len(x), device=x.device)
    if start == "prior":
        return AnnealedPath(FromPrior(log_joint, every), num_leapfrog)
    if start == "guide":
        return AnnealedPath(FromGuide(log_joint, programs.guide), num_leapfrog)
    return AnnealedPath(FromNormals(log_joint, fit_block(log_joint, programs.guide).normals, every), num_leapfrog)


def pilot(path: AnnealedPath, num_temperatures: int, start: str) -> Schedule:
    """Finds temperatures and step sizes by a pilot with fewer temperatures, evenly spaced if the start is normals."""
    count = max(LEAST_PILOT_TEMPERATURES, num_temperatures // PILOT_FRACTION)
    even = [t / count for t in range(count + 1)]
    return path.pilot(num_temperatures, even if start == "laplace" else sigmoid_schedule(count))

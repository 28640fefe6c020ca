"""log p(x) by the cheapest method that works for each datapoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vae.checks import check_choice, check_count, check_positive, check_rows
from pyro_vae.evidence.estimators.climbing import Climb, Clock, block_rows, fast_densities
from pyro_vae.evidence.estimators.given import ClimbForEachDraw, conditioned, each_draw
from pyro_vae.evidence.ladder.settings import Settings
from pyro_vae.evidence.results.evidence import Evidence
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import by_row, x_alone
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program


@evidence_function
def estimate(
    model: Program,
    guide: Program,
    x: Any,
    *,
    tolerance: float = 0.05,
    max_temperatures: int = 512,
    given: Mapping[str, Tensor] | None = None,
    certify: int = 0,
    budget: float | None = None,
    chunk_size: int | None = None,
    compile: bool | str = "auto",  # noqa: A002
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> Evidence:
    """Estimates log p(x) of every datapoint, with an error that includes the bias, with as much work as needed.

    Methods are tried one after the other, for each datapoint only as far as needed:

    1. *Laplace*: importance sampling from normals that are fitted to p(x, z) at its modes. The search for modes begins
       at several starts. Each normal has the curvature at a mode, its center at the mean, and heavier tails.
       See :func:`~pyro_vae.evidence.laplace`.
    2. *Annealed from Laplace*: chains from these normals to the posterior (Neal 2001), by Hamiltonian Monte Carlo in
       coordinates in which the normals are standard. Temperatures and chains are doubled as long as there are too few.
       With up to 16 latent dimensions, the first method takes more samples instead.
    3. *Annealed from prior*: the same from p(z), where the normals are no good start.

    Discrete latents and latents on a sphere have no gradients. There the samples are from the guide, and then from its
    mixture with the prior (:func:`~pyro_vae.evidence.defensive`).

    A small sample, the pilot, decides which method is tried and with how many samples. The estimate comes from new
    draws. If these are far worse than the pilot, a longer run replaces them. This selection is a small bias.

    Every method gives a lower bound on average. So an estimate is rejected where another method, or a sample from the
    guide, is higher. A mode of the posterior that no start and no chain comes near remains unseen.

    Datapoints are computed in blocks of up to 1024; ``keep`` saves whole blocks.

    The same ``torch.manual_seed`` gives the same numbers, for any number of processes, and for a run that was stopped
    and resumed. With another ``chunk_size`` they agree up to rounding if a chunk holds at least 2048 pairs, and
    otherwise within their errors.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data: a tensor ``[n, *event]``; for programs of several arguments, a tuple of tensors ``[n, ...]``, or a
            dictionary of them with the names of the arguments; or a list of batches, a ``Dataset`` or a
            ``DataLoader`` of these. Batches are loaded into memory, in the order of the data set. NumPy arrays count
            as tensors. Surplus tensors of a tuple, such as labels, are ignored.
        tolerance: The upper limit for the bias of each estimate and for the noise of their mean, in nats.
        max_temperatures: The largest number of temperatures of a chain. A datapoint that needs more has an infinite
            error, and its estimate is a lower bound on average.
        given: Independent draws of the global latents w, which all datapoints share, by site ``[draws, ...]``, for
            example from their posterior. The result is the log of the mean of p(x | w) over the draws, for each
            datapoint separately; its error includes that of the finite number of draws. ``result.given`` has
            log p(x | w) for each draw. It is not the evidence of all datapoints together.
        certify: A number of datapoints to draw from the model; they come with exact draws from their posteriors. The
            same procedure runs on them, and ``result.certificate`` has a lower and an upper bound on its error there
            (Grosse et al. 2015). They have the same missing values as the rows of x, in turn.
        budget: Seconds after which no further method is tried; by default there is no limit.
        chunk_size: The number of (particle, datapoint) pairs to compute at once. By default it suits the programs and
            the device.
        compile: True compiles the densities of the model, which takes ten seconds (and a C++ compiler). ``"auto"``
            does so for 2000 datapoints and more on a CPU, and otherwise records and replays them. False runs the model
            as it is. Results agree to rounding. A model that cannot be compiled runs as it is, with a warning.
        progress: Whether to show a progress bar; or a function that wraps the blocks, such as ``tqdm.tqdm``.
        keep: A file for finished blocks. If it exists, the call resumes from it, with the same numbers as without the
            stop. At most the last 10 seconds are lost.
        processes: Processes that share the blocks (``pyro_vae.processes.join()``, under ``torchrun``). All of them make
            the same call, and all get the whole result, the same as from one process.

    Returns:
        The estimate. ``error`` is the half-width of a 95% interval for each datapoint, bias included; it is infinite
        where only a lower bound is known. ``method`` is the method of each estimate; ``methods`` has the number of
        datapoints that each method settled, and its seconds.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, no weight of a datapoint is finite, or the file is of another run.
        Interrupted: At Ctrl-C, with the result for the finished datapoints.

    Example:
        >>> result = evidence.estimate(vae.model, vae.guide, x)
        >>> result.mean < 0 < result.mean_error
        True
    """
    check_positive("tolerance", tolerance)
    max_temperatures = check_count("max_temperatures", max_temperatures)
    certify = check_count("certify", certify, least=0)
    if budget is not None:
        check_positive("budget", budget)
    check_choice("compile", compile, (True, False, "auto"))
    model, guide, x = by_row(model, guide, x_alone(model, x) if certify else x)
    draws = [] if given is None else each_draw(model, x, given)
    settings = Settings(float(tolerance), max_temperatures, len(check_rows(x)))

    def plain(model: Program, guide: Program) -> Climb:
        programs = Programs(model, guide, x, chunk_size, progress, keep, processes)
        return Climb(programs, settings, fast_densities(compile, x, len(draws)))

    climb: Climb | ClimbForEachDraw
    if given is None:
        climb = plain(model, guide)
    else:
        climb = ClimbForEachDraw([plain(conditioned(model, draw), conditioned(guide, draw)) for draw in draws])
    result = climb.programs.run(
        partial(climb.columns, clock=Clock(budget, len(x))),
        climb.result,
        rows=block_rows(climb.programs),
        settings={
            "function": "estimate",
            "tolerance": settings.tolerance,
            "max_temperatures": max_temperatures,
            "draws given": None if given is None else len(draws),
            **{f"given {name!r}": values for name, values in (given or {}).items()},
        },
    )
    return replace(result, certificate=climb.certificate(certify)) if certify else result

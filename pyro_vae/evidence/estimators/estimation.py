"""log p(x) by the cheapest method that is right for each datapoint."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_positive
from pyro_vae.evidence.draws.arviz_draws import to_arviz
from pyro_vae.evidence.estimators.certificate import Certificate, certified
from pyro_vae.evidence.estimators.given import averaged, conditioned, each_draw
from pyro_vae.evidence.ladder.ladder import Ladder, Settings
from pyro_vae.evidence.results.evidence import Evidence
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.unconstrained.log_joint import FastDensities
from pyro_vae.infer.recording.compiled import compiled, recorded
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import by_row, x_alone
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program

__all__ = ["estimate"]

ROWS = {"cpu": 1024, "cuda": 4096}  # datapoints that climb together
WORTH_COMPILING = 2000  # datapoints
MOST_NUMBERS = 2**25  # of the matrices of a block


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
    """Estimates log p(x) of every datapoint, with an error that includes the bias, by as much work as it takes.

    Methods are tried one after the other, for each datapoint only as far as it needs:

    1. *Laplace*: importance sampling from normals that are fitted to p(x, z) at each of its modes, which are looked for
       from several starts: with the curvature at the mode, the center at the mean, and heavier tails.
       See :func:`~pyro_vae.evidence.laplace`.
    2. *Annealed from Laplace*: chains from these normals to the posterior (Neal 2001), by Hamiltonian Monte Carlo in
       coordinates in which they are standard, with twice as many temperatures and chains each time that they were
       too few. With up to 16 latent dimensions, the first method takes more samples instead.
    3. *Annealed from prior*: the same from p(z), where the normals are no good start.

    Latents that are discrete or lie on a sphere have no gradients: there the guide is taken, and then its mixture with
    the prior (:func:`~pyro_vae.evidence.defensive`).

    What is tried is decided by pilots, and reported from fresh draws. Fresh draws that are far worse than the pilot
    promised are replaced by a longer run; this is a small selection by their own sample.

    Every method gives a lower bound on average. So an estimate is taken back where another method, the guide's own
    samples among them, has seen more. A mode of the posterior that no start and no chain ever comes near is seen by
    none of them.

    Datapoints are done in blocks of up to 1024; ``keep`` keeps whole blocks.

    The same ``torch.manual_seed`` gives the same numbers, whatever the number of processes and however often the run
    was stopped; with another ``chunk_size`` they are the same up to rounding as long as a chunk holds 2048 pairs, and
    else within their errors.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``; or, for programs of more than x, a tuple of tensors, each ``[n, ...]``; or a
            ``Dataset`` or ``DataLoader`` of what they take, which is loaded into memory, in the order of the data set.
        tolerance: What the bias of each estimate and the noise of their mean are to stay below, in nats.
        max_temperatures: The most temperatures of a chain. A datapoint that is not settled with these is given up:
            its error is infinite, and its estimate a lower bound on average.
        given: Independent draws of the global latents w, which all datapoints share, by site ``[draws, ...]``: from
            their posterior, for one. The result then is the log of the mean of p(x | w) over the draws, for each
            datapoint by itself, and its error knows that the draws are finite in number. ``result.given`` has
            log p(x | w) given each of them. It is not the evidence of all datapoints together.
        certify: With a positive number, so many datapoints are drawn from the model, which come with exact draws from
            their posteriors, and the procedure is tried on them: ``result.certificate`` has a lower and an upper bound
            on its error there (Grosse et al. 2015). The same values are missing from them as from x, its rows in turn.
        budget: Seconds after which no more methods are tried; by default as long as it takes.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        compile: True compiles the densities of the model, which takes half a minute (and a C++ compiler). ``"auto"``
            does so for 2000 datapoints and more on a CPU, and else records and replays them. False runs the model as it
            is. Results agree to rounding. A model that cannot be compiled runs as it is, with a warning.
        progress: Whether to show a progress bar; or a function that wraps the blocks, as ``tqdm.tqdm`` does.
        keep: A file for what is done. If it is there, the call goes on from it, to the same numbers as if it had not
            been stopped. At most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Returns:
        The estimate. ``error`` is the half-width of a 95% interval for each datapoint, bias included, infinite where
        only a lower bound is known; ``rung`` says which method gave it, and ``rungs`` how many datapoints each method
        settled, and in how many seconds.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, no weight of a datapoint is finite, or the file is of another run.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.

    Example:
        >>> result = evidence.estimate(vae.model, vae.guide, x)  # doctest: +SKIP
        >>> result.mean, result.mean_error  # doctest: +SKIP
    """
    check_positive("tolerance", tolerance)
    max_temperatures = check_count("max_temperatures", max_temperatures)
    certify = check_count("certify", certify, least=0)
    if budget is not None:
        check_positive("budget", budget)
    if compile not in (True, False, "auto"):
        raise ValueError(f"compile is {compile!r}; expected True, False or 'auto'")
    model, guide, x = by_row(model, guide, x_alone(model, x) if certify else x)
    if given is None:
        every = [Programs(model, guide, x, chunk_size)]
    else:
        draws = each_draw(model, x, given)
        every = [Programs(conditioned(model, draw), conditioned(guide, draw), x, chunk_size) for draw in draws]
    rows = block_rows(every[0])
    pays = x.device.type == "cpu" and len(x) >= WORTH_COMPILING and len(every) == 1
    machine_code = pays if compile == "auto" else compile
    fast = [FastDensities(compiled if machine_code else recorded) if compile else None for _ in every]
    settings = Settings(float(tolerance), max_temperatures, len(x))
    clock = _Clock(budget, len(x) * len(every))

    def climb(draw: int, block: Tensor, first: int) -> dict[str, Tensor]:
        deadline = clock.deadline(first * len(every) + draw * len(block), len(block))
        ladder = Ladder(every[draw], block, settings, deadline, fast[draw])
        columns = ladder.climb()
        missing = ~columns["log_prob"].isfinite() if "log_prob" in columns else torch.ones(len(block), dtype=torch.bool)
        if missing.any():
            index = first + int(missing.nonzero()[0])
            raise ValueError(
                f"datapoint {index} has no weight that is finite and positive, by any method; "
                "check the log-densities of model and guide there"
            )
        return {**columns, "late": torch.full((len(block),), ladder.late)}

    def climb_each(block: Tensor, first: int) -> dict[str, Tensor]:
        columns = [climb(draw, block, first) for draw in range(len(every))]
        return {name: torch.stack([each[name] for each in columns], dim=1) for name in columns[0]}

    def finish(columns: dict[str, Tensor]) -> Evidence:
        results = [
            _result(programs, {name: column[:, draw] for name, column in columns.items()})
            for draw, programs in enumerate(every)
        ]
        return results[0] if given is None else averaged(results)

    result = every[0].run(
        climb_each,
        finish,
        rows=rows,
        settings={
            "function": "estimate",
            "tolerance": settings.tolerance,
            "max_temperatures": max_temperatures,
            "draws given": len(every) if given is not None else None,
            **{f"given {name!r}": values for name, values in (given or {}).items()},
        },
        progress=progress,
        keep=keep,
        processes=processes,
    )
    if certify:
        counts = [certify // len(every) + (draw < certify % len(every)) for draw in range(len(every))]
        certificates = [
            certified(programs, settings, count, rows=rows, progress=progress)
            for programs, count in zip(every, counts, strict=True)
            if count
        ]
        result = replace(result, certificate=_joined(certificates))
    return result


def block_rows(programs: Programs) -> int:
    """How many datapoints climb together: the same for all chunk sizes but small ones, as the noise depends on it."""
    numbers = 4 * max(1, programs.latent_size) ** 2
    most = min(ROWS.get(programs.x.device.type, 4096), max(8, MOST_NUMBERS // numbers))
    return max(1, min(most, programs.chunk_size))


class _Clock:
    """Shares out a budget of seconds among the blocks, from when the first of them begins."""

    def __init__(self, budget: float | None, n: int) -> None:
        self.budget, self.n = budget, n
        self.start: tuple[float, int] | None = None

    def deadline(self, first: int, rows: int) -> float:
        """When the block with these rows has to be done."""
        if self.budget is None:
            return math.inf
        self.start = self.start or (time.monotonic(), first)
        began, begin = self.start
        return began + self.budget * (first + rows - begin) / (self.n - begin)


def _result(programs: Programs, columns: dict[str, Any]) -> Evidence:
    columns = dict(columns)
    late, seconds = columns.pop("late"), columns.pop("seconds")
    return Evidence(
        **columns,
        samples="samples or chains",
        seconds_by_rung=tuple(seconds.sum(0).tolist()),
        stopped_by_budget=int(late.sum()),
        draw=partial(to_arviz, programs.model, programs.guide, programs.x[: len(late)]),
    )


def _joined(certificates: list[Certificate]) -> Certificate:
    return Certificate(
        *(torch.cat([getattr(each, name) for each in certificates]) for name in ("lower", "upper", "error"))
    )

"""log p(x) by importance sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.draws.arviz_draws import to_arviz
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.results.evidence import Evidence
from pyro_vae.evidence.results.running_weights import RunningWeights
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.chunks import choose_rows, particle_counts
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.infer.recording.compiled import compiled
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import by_row
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program, terms

__all__ = ["importance", "weigh"]

Chunk = Callable[[Tensor, int], Tensor]  # datapoints [n, *event] and a number of particles to log-weights

# To compile takes as long as some hundred chunks, and an eighth of these chunks are enough to earn it back.
WORTH_COMPILING = 2000


@evidence_function
@torch.no_grad()
def importance(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_samples: int = 1000,
    proposal: Proposal = terms,
    chunk_size: int | None = None,
    compile: bool | str = "auto",  # noqa: A002
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> Evidence:
    """Estimates log p(x) by importance sampling, with the guide as the proposal (Rezende et al. 2014, appendix E).

    The data are checked first, all of them, by running the programs once. Memory does not grow with ``num_samples``
    (but for the k-hat's tail of the largest weights, which grows with its square root). Datapoints are taken in blocks,
    unless the programs treat them differently then, as with parameters for each datapoint or batch statistics.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x; ``vae.model``, for one.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``; or, for programs of more than x, a tuple of tensors, each ``[n, ...]``; or a
            ``Dataset`` or ``DataLoader`` of what they take, which is loaded into memory, in the order of the data set.
        num_samples: Samples for each datapoint, at least 1.
        proposal: Where the samples come from: the guide, unless :func:`~pyro_vae.evidence.widened` or
            :func:`~pyro_vae.evidence.defensive` says otherwise.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        compile: Whether to compile the programs, True, False or ``"auto"``: in runs of over 2000 chunks, on a CPU. It
            takes seconds (and a C++ compiler) and saves about a third of the time; with the same seed, results agree
            to rounding. Programs that cannot be compiled run as they are, with a warning.
        progress: Whether to show a progress bar; or a function that wraps the blocks, as ``tqdm.tqdm`` does.
        keep: A file for what is done. If it is there, the call goes on from it, to the same numbers as if it had not
            been stopped. At most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, a datapoint has weights that are NaN, or zero for all samples, or the file is of another run.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    num_samples = check_count("num_samples", num_samples)
    if compile not in (True, False, "auto"):
        raise ValueError(f"compile is {compile!r}; expected True, False or 'auto'")
    model, guide, x = by_row(model, guide, x)
    programs = Programs(model, guide, x, chunk_size)
    chunk_size = programs.chunk_size

    def log_weights(block: Tensor, num_particles: int) -> Tensor:
        return proposal(model, guide, block, num_particles, programs.layout).log_weights

    rows = choose_rows(chunk_size, num_samples)
    pays = x.device.type == "cpu" and len(x) * num_samples > WORTH_COMPILING * chunk_size
    fast = pays if compile == "auto" else compile

    @cache  # only when something is left to do
    def draw_chunk() -> Chunk:
        blocks = programs.blocks(rows)
        most = next(particle_counts(num_samples, len(blocks[0]), chunk_size))
        return _compiled(log_weights, blocks, most) if fast else log_weights

    def estimate(block: Tensor, first: int) -> dict[str, Tensor]:
        return weigh(draw_chunk(), block, num_samples, chunk_size).columns(first)

    def finish(columns: dict[str, Tensor]) -> Evidence:
        known = x[: len(columns["log_prob"])]
        draw = partial(to_arviz, model, guide, known, proposal=None if proposal is terms else proposal)
        return Evidence(**columns, num_samples=num_samples, draw=draw)  # type: ignore[arg-type]

    return programs.run(
        estimate,
        finish,
        rows=rows,
        settings={"function": "importance", "num_samples": num_samples},
        proposal=proposal,
        progress=progress,
        keep=keep,
        processes=processes,
    )


@torch.no_grad()
def weigh(log_weights: Chunk, x: Tensor, num_samples: int, chunk_size: int) -> RunningWeights:
    """Draws samples for all rows of x, as many pairs of sample and datapoint at once as a chunk has, and weighs them.

    Args:
        log_weights: Called with x and a number of particles, returns log-weights ``[particles, n]``.
        x: Data, ``[n, *event]``.
        num_samples: Samples for each datapoint.
        chunk_size: The number of pairs to compute at once.
    """
    running = RunningWeights(len(x), num_samples, x.device)
    for count in particle_counts(num_samples, len(x), chunk_size):
        running.update(log_weights(x, count))
    return running


def _compiled(log_weights: Chunk, blocks: Sequence[Tensor], num_particles: int) -> Chunk:
    """The log-weights, compiled for blocks and numbers of particles of full size; what is left over runs as it is."""
    full = [block for block in blocks if len(block) == len(blocks[0])]
    fast = compiled(lambda block: log_weights(block, num_particles), full[0], full[-1])

    def chunk(block: Tensor, count: int) -> Tensor:
        is_full = len(block) == len(blocks[0]) and count == num_particles
        return fast(block) if is_full else log_weights(block, count)

    return chunk

"""log p(x) by importance sampling."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vae.checks import check_choice, check_count
from pyro_vae.evidence.draws.arviz_draws import to_arviz
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.results.evidence import Evidence
from pyro_vae.evidence.results.running_weights import Chunk, weigh
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.chunks import choose_rows, particle_counts
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.infer.recording.compiled import compiled
from pyro_vae.processes import Processes
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program, terms

WORTH_COMPILING = 2000  # chunks; compiling takes as long as some hundred


@evidence_function
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

    All data are checked first, by running the programs once. Memory grows only with the square root of
    ``num_samples``, for the largest weights, which k-hat needs. Datapoints are computed in blocks, unless the programs
    do not allow it, as with parameters for each datapoint or batch statistics.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x, such as ``vae.model``.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, as for :func:`~pyro_vae.evidence.estimate`.
        num_samples: The number of samples for each datapoint, at least 1.
        proposal: Draws the samples: by default from the guide; see also :func:`~pyro_vae.evidence.widened`,
            :func:`~pyro_vae.evidence.defensive` and :func:`~pyro_vae.evidence.laplace`.
        compile: Whether to compile the programs: True, False, or ``"auto"``, for runs of over 2000 chunks on a CPU. It
            takes seconds (and a C++ compiler) and saves about a third of the time. With the same seed, results agree
            to rounding. Programs that cannot be compiled run as they are, with a warning.
        chunk_size, progress, keep, processes: As for :func:`~pyro_vae.evidence.estimate`.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, a datapoint has weights that are NaN, or zero for all samples, or the file is of another run.
        Interrupted: At Ctrl-C, with the result for the finished datapoints.

    Example:
        >>> result = evidence.importance(vae.model, vae.guide, x, num_samples=100, progress=False)
        >>> result.log_prob.shape, result.ess.shape
        (torch.Size([8]), torch.Size([8]))
    """
    num_samples = check_count("num_samples", num_samples)
    check_choice("compile", compile, (True, False, "auto"))
    programs = Programs(model, guide, x, chunk_size, progress, keep, processes)
    x, chunk_size = programs.x, programs.chunk_size

    log_weights = partial(programs.log_weights, proposal)
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

    def finish(columns: dict[str, Any]) -> Evidence:
        known = x[: len(columns["log_prob"])]
        draw = partial(
            to_arviz, programs.model, programs.guide, known, proposal=None if proposal is terms else proposal
        )
        return Evidence(**columns, num_samples=num_samples, draw=draw)

    return programs.run(
        estimate,
        finish,
        rows=rows,
        settings={"function": "importance", "num_samples": num_samples},
        proposal=proposal,
    )


def _compiled(log_weights: Chunk, blocks: Sequence[Tensor], num_particles: int) -> Chunk:
    """The log-weights, compiled for blocks and numbers of particles of full size; smaller ones run as they are."""
    full = [block for block in blocks if len(block) == len(blocks[0])]
    fast = compiled(lambda block: log_weights(block, num_particles), full[0], full[-1])

    def chunk(block: Tensor, count: int) -> Tensor:
        is_full = len(block) == len(blocks[0]) and count == num_particles
        return fast(block) if is_full else log_weights(block, count)

    return chunk

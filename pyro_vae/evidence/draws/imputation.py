"""Missing values, filled in with what the model expects of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.draws.settled_draws import rows_of_block, settled_draws
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.unconstrained.log_joint import FastDensities
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import x_alone
from pyro_vae.system.progress import Progress
from pyro_vae.system.warning import warn
from pyro_vae.weights import Layout, Program, sample_sites, trace_of

__all__ = ["impute"]


@evidence_function
@torch.no_grad()
def impute(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> Tensor:
    """Replaces every NaN of x by its mean given what was observed of its datapoint.

    The mean of p(x | z), over draws of z from the posterior p(z | what was observed) (Mattei & Frellsen 2019, section
    3). The draws come from the method that :func:`~pyro_vae.evidence.estimate` settles each datapoint with, so that
    the guide need not be good. Where no method is right, a warning says for how many datapoints.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x, observed at one site whose
            distribution accepts NaN, as ``likelihoods.Incomplete`` makes it.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``, NaN where missing; or a ``Dataset`` or ``DataLoader`` of them.
        num_samples: Draws from the posterior of each datapoint, chosen among ten times as many.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Whether to show a progress bar; or a function that wraps the blocks, as ``tqdm.tqdm`` does.
        keep: A file for what is done. If it is there, the call goes on from it, to the same numbers as if it had not
            been stopped. At most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Returns:
        x without NaN, on its device.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: As :func:`~pyro_vae.evidence.importance`; or if the model does not observe x at one site.
        Interrupted: At Ctrl-C, with the datapoints that were done.
    """
    num_samples = check_count("num_samples", num_samples)
    x = x_alone(model, x)
    programs = Programs(model, guide, x, chunk_size)
    layout = programs.layout
    rows = max(1, programs.chunk_size // num_samples)
    independent, fast = len(programs.blocks(1)) == len(x), FastDensities()

    def fill(block: Tensor, first: int) -> dict[str, Tensor]:
        drawn = settled_draws(programs, block, num_samples, first, fast)
        parts, begin = [], 0
        for piece in block.split(rows) if independent else (block,):
            at = {name: value[:, begin : begin + len(piece)] for name, value in drawn.latents.items()}
            parts.append(_mean(model, piece, at, num_samples, programs.chunk_size, layout))
            begin += len(piece)
        filled = torch.where(block.isnan(), torch.cat(parts).to(block.dtype), block)
        return {"x": filled, "doubtful": drawn.doubtful}

    doubtful: list[int] = []

    def finish(columns: dict[str, Tensor]) -> Tensor:
        missing = x[: len(columns["x"])].isnan().flatten(1).any(1).cpu()
        doubtful.append(int((columns["doubtful"] & missing).sum()))
        return columns["x"].to(x.device)

    filled = programs.run(
        fill,
        finish,
        rows=rows_of_block(chunk_size, num_samples),
        settings={"function": "impute", "num_samples": num_samples},
        progress=progress,
        keep=keep,
        processes=processes,
    )
    if doubtful[-1]:
        warn(
            f"for {doubtful[-1]} of {len(x)} datapoints, the draws need not be from the posterior, and the values that "
            "are filled in may be wrong",
        )
    return filled


def _mean(model: Program, x: Tensor, latents: dict[str, Tensor], num_draws: int, chunk: int, layout: Layout) -> Tensor:
    """The mean of p(x | z) over latents ``[draws, n, ...]``, by site; of the shape of x."""
    total = torch.zeros_like(x, dtype=torch.float64)
    for some in torch.arange(num_draws, device=x.device).split(max(1, chunk // len(x))):
        given = {name: layout.by_site(value[some]) for name, value in latents.items()}
        trace = trace_of(model, x, len(some), layout, given)
        means = [site["fn"].mean for _, site in sample_sites(trace) if site["is_observed"]]
        if len(means) != 1 or means[0].numel() != len(some) * x.numel():
            shapes = [list(mean.shape) for mean in means]
            raise ValueError(f"the model observes values of shapes {shapes}; expected x, at one site")
        total += layout.by_datapoint(means[0]).reshape(len(some), *x.shape).double().sum(0)
    return total / num_draws

"""Draws from the posterior p(z | x), in the form that ArviZ takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.draws.resampling import posterior_draws
from pyro_vae.evidence.draws.settled_draws import rows_of_block, settled_draws
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.results.lazy_arviz import arviz_data
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.unconstrained.log_joint import FastDensities
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import by_row
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Layout, Program, sample_sites, sum_out, trace_of

__all__ = ["to_arviz"]

GROUPS = ("posterior", "log_likelihood", "posterior_predictive", "observed_data", "constant_data")
CHAINS = 4  # the draws are independent; ArviZ compares the parts they are divided into


@evidence_function
@torch.no_grad()
def to_arviz(
    model: Program,
    guide: Program,
    x: Any,
    num_draws: int = 500,
    *,
    proposal: Proposal | None = None,
    chunk_size: int | None = None,
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> Any:
    """Draws from the posterior, with all that ArviZ wants to know of them.

    They come from the method that :func:`~pyro_vae.evidence.estimate` settles each datapoint with: normals fitted
    to the modes of p(x, z), or the ends of annealed chains. Some are kept by their weights (sampling-importance-
    resampling, Rubin 1988). So they need not look like those of the guide.

    So that ``az.summary``, ``az.plot_pair``, ``az.loo`` and the like work on any model and guide. All draws are held in
    memory, and as many posterior predictive datapoints for every row of x: choose rows.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``; or, for programs of more than x, a tuple of tensors, each ``[n, ...]``; or a
            ``Dataset`` or ``DataLoader`` of what they take, which is loaded into memory, in the order of the data set.
        num_draws: Draws for each datapoint, at least 4: independent, in 4 chains (a remainder is left out).
        proposal: Where the draws come from instead, before they are resampled by their weights: ten times as many of
            ``pyro_vae.weights.terms`` (the guide), ``evidence.widened(1.5)``, and the like.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Whether to show a progress bar; or a function that wraps the blocks, as ``tqdm.tqdm`` does.
        keep: A file for what is done. If it is there, the call goes on from it, to the same numbers as if it had not
            been stopped. At most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Returns:
        An ``InferenceData`` (ArviZ before 1.0) or a ``DataTree`` with the groups ``posterior`` (the latent sites,
        ``[chain, draw, datapoint, ...]``), ``log_likelihood`` (of each observed site, ``[chain, draw, datapoint]``),
        ``posterior_predictive``, ``observed_data`` and ``constant_data``: ``pareto_k`` of the weights, and ``settled``,
        which is false where the draws need not be from the posterior.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: As :func:`~pyro_vae.evidence.importance`.
        Interrupted: At Ctrl-C, with the draws for the datapoints that were done.
    """
    num_draws = check_count("num_draws", num_draws, least=CHAINS) // CHAINS * CHAINS
    model, guide, x = by_row(model, guide, x)
    programs = Programs(model, guide, x, chunk_size)
    layout = programs.layout

    rows = max(1, programs.chunk_size // num_draws)
    independent, fast = len(programs.blocks(1)) == len(x), FastDensities()
    rows_of_run = rows if proposal is not None else rows_of_block(chunk_size, num_draws)

    def draw(block: Tensor, first: int) -> dict[str, Tensor]:
        if proposal is None:
            drawn = settled_draws(programs, block, num_draws, first, fast)
        else:
            drawn = posterior_draws(model, guide, block, num_draws, layout, proposal)
        values = {f"posterior {name}": value for name, value in drawn.latents.items()}
        values["constant_data pareto_k"] = drawn.pareto_k[None]
        values["constant_data settled"] = ~drawn.doubtful[None]
        groups, begin = [], 0
        for piece in block.split(rows) if independent else (block,):
            latents = {name: value[:, begin : begin + len(piece)] for name, value in drawn.latents.items()}
            groups.append(_of_model(model, piece, latents, num_draws, layout))
            begin += len(piece)
        values |= {name: torch.cat([group[name] for group in groups], dim=1) for name in groups[0]}
        # Rows first, as columns are.
        return {name: value.movedim(1, 0) for name, value in values.items()}

    return programs.run(
        draw,
        _to_arviz,
        rows=rows_of_run,
        settings={"function": "to_arviz", "num_draws": num_draws, "settled": int(proposal is None)},
        proposal=proposal,
        progress=progress,
        description="posterior draws",
        keep=keep,
        processes=processes,
    )


def _of_model(
    model: Program, x: Tensor, latents: dict[str, Tensor], num_draws: int, layout: Layout
) -> dict[str, Tensor]:
    """What the model says at latents ``[draws, n, ...]``, each ``[draws, n, ...]``; names begin with a group."""
    trace = trace_of(model, x, num_draws, layout, {name: layout.by_site(value) for name, value in latents.items()})
    values = {}
    for name, site in sample_sites(trace):
        if not site["is_observed"]:
            continue
        values[f"log_likelihood {name}"] = sum_out(site["fn"].log_prob(site["value"]), layout, name)
        if hasattr(site["fn"], "sample"):
            observed = site["value"].expand(site["fn"].shape())
            values[f"posterior_predictive {name}"] = layout.by_datapoint(site["fn"].sample())
            values[f"observed_data {name}"] = layout.by_datapoint(observed)[:1]
    return values


def _to_arviz(columns: dict[str, Tensor]) -> Any:
    """ArviZ's form of columns ``[n, draws, ...]``, of which the names begin with a group."""
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for column, value in columns.items():
        group, name = column.split(" ", 1)
        groups[group][name] = value.movedim(1, 0).numpy()
    dims = {
        name: ["datapoint", *(f"{name}_dim_{i}" for i in range(value.ndim - 2))]
        for arrays in groups.values()
        for name, value in arrays.items()
    }
    by_chain = {
        group: {
            name: value[0] if group.endswith("data") else value.reshape(CHAINS, -1, *value.shape[1:])
            for name, value in arrays.items()
        }
        for group, arrays in groups.items()
    }
    return arviz_data(by_chain, dims)

"""Draws from the posterior p(z | x), in the format of ArviZ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.draws.resampling import posterior_draws
from pyro_vae.evidence.draws.settled_draws import in_pieces, rows_of_block, settled_draws
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.results.lazy_arviz import arviz_data
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.unconstrained.log_joint import FastDensities
from pyro_vae.processes import Processes
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Layout, Program, sample_sites, sum_out, trace_of

GROUPS = ("posterior", "log_likelihood", "posterior_predictive", "observed_data", "constant_data")
CHAINS = 4  # the draws are independent; ArviZ compares these parts of them


@evidence_function
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
    """Draws from the posterior with all other groups that ArviZ uses.

    The draws are made by the method that :func:`~pyro_vae.evidence.estimate` finds for each datapoint: from normals
    fitted to the modes of p(x, z), or the ends of annealed chains. They are chosen by their weights
    (sampling-importance-resampling, Rubin 1988), so they are not limited by the guide.

    ``az.summary``, ``az.plot_pair``, ``az.loo`` and the like work on the result, for any model and guide. All draws are
    in memory, with as many posterior predictive datapoints for each row of x: select rows.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, as for :func:`~pyro_vae.evidence.estimate`.
        num_draws: The number of draws for each datapoint, at least 4. They are independent, and divided into 4 chains
            (a remainder is left out).
        proposal: Draws from this proposal instead, such as ``pyro_vae.weights.terms`` (the guide) or
            ``evidence.widened(1.5)``; ten times as many are resampled by their weights.
        chunk_size, progress, keep, processes: As for :func:`~pyro_vae.evidence.estimate`.

    Returns:
        An ``InferenceData`` (ArviZ before 1.0) or a ``DataTree`` with the groups ``posterior`` (the latent sites,
        ``[chain, draw, datapoint, ...]``), ``log_likelihood`` (of each observed site, ``[chain, draw, datapoint]``),
        ``posterior_predictive``, ``observed_data`` and ``constant_data``: ``pareto_k`` of the weights, and ``settled``,
        which is false where the draws may not be from the posterior.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: As for :func:`~pyro_vae.evidence.importance`.
        Interrupted: At Ctrl-C, with the draws for the finished datapoints.

    Example:
        >>> draws = evidence.to_arviz(vae.model, vae.guide, x, num_draws=20, progress=False)
        >>> draws["posterior"]["z"].shape
        (4, 5, 8, 2)
    """
    num_draws = check_count("num_draws", num_draws, least=CHAINS) // CHAINS * CHAINS
    programs = Programs(model, guide, x, chunk_size, progress, keep, processes)
    layout, fast = programs.layout, FastDensities()
    rows = max(1, programs.chunk_size // num_draws)
    rows_of_run = rows if proposal is not None else rows_of_block(chunk_size, num_draws)

    def draw(block: Tensor, first: int) -> dict[str, Tensor]:
        if proposal is None:
            drawn = settled_draws(programs, block, num_draws, range(first, first + len(block)), fast)
        else:
            drawn = posterior_draws(programs.model, programs.guide, block, num_draws, layout, proposal)
        values = {f"posterior {name}": value for name, value in drawn.latents.items()}
        values["constant_data pareto_k"] = drawn.pareto_k[None]
        values["constant_data settled"] = ~drawn.doubtful[None]
        pieces = in_pieces(programs, block, drawn.latents, rows)
        groups = [_of_model(programs.model, *piece, num_draws, layout) for piece in pieces]
        values |= {name: torch.cat([group[name] for group in groups], dim=1) for name in groups[0]}
        # Rows first, as columns are.
        return {name: value.movedim(1, 0) for name, value in values.items()}

    return programs.run(
        draw,
        _to_arviz,
        rows=rows_of_run,
        settings={"function": "to_arviz", "num_draws": num_draws, "settled": int(proposal is None)},
        proposal=proposal,
        description="posterior draws",
    )


def _of_model(
    model: Program, x: Tensor, latents: dict[str, Tensor], num_draws: int, layout: Layout
) -> dict[str, Tensor]:
    """The groups of the model at latents ``[draws, n, ...]``, each ``[draws, n, ...]``; names begin with a group."""
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
    """Columns ``[n, draws, ...]``, whose names begin with a group, in the format of ArviZ."""
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

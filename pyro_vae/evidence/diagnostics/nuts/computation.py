"""q(z | x) beside a long run of NUTS: is the guide the posterior of these datapoints?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.diagnostics.nuts.chains import Chain, check_model, guide_draws, run_chains
from pyro_vae.evidence.diagnostics.nuts.result import NutsComparison
from pyro_vae.evidence.results.lazy_arviz import arviz_data, import_arviz
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.programs.inputs import by_row
from pyro_vae.system.interrupts import Interrupted
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Layout, Program


@evidence_function
def compare_with_nuts(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_samples: int = 1000,
    warmup_steps: int = 500,
    num_chains: int = 2,
    chunk_size: int | None = None,
    progress: Progress = True,
) -> NutsComparison:
    """Samples p(z | x) with Pyro's NUTS (Hoffman & Gelman 2014), and q(z | x) equally often.

    For a few datapoints: one chain moves the latents of all of them at once, so that the hardest one sets the step
    size. Latents with bounded support are transformed, as Pyro does it. Parameters are constants, and do not change.
    Put modules into evaluation mode first: with dropout there is no single posterior.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, as for :func:`~pyro_vae.evidence.estimate`.
        num_samples: Draws of each chain, at least 4. All are in memory.
        warmup_steps: Steps of each chain before the draws, in which step size and mass matrix are adapted.
        num_chains: The number of chains, at least 2 so that there is an R-hat. They run one after the other, and each
            starts at a draw from the prior.
        chunk_size: How many (particle, datapoint) pairs of the guide to compute at once, as for
            :func:`~pyro_vae.evidence.estimate`. NUTS moves all datapoints at once.
        progress: Whether to show a progress bar; or a function that wraps the sequence of all steps.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, a latent site is discrete, the log-density of the model is random, or NUTS finds no place to start.
        Interrupted: At Ctrl-C, with the result for the chains that were done, if there are two or more.

    Example:
        >>> options = {"num_samples": 10, "warmup_steps": 10}  # too few to converge
        >>> result = evidence.compare_with_nuts(vae.model, vae.guide, x[:1], **options, progress=False)
        >>> result.converged
        False
    """
    num_samples, num_chains = check_count("num_samples", num_samples, least=4), check_count("num_chains", num_chains, 2)
    warmup_steps = check_count("warmup_steps", warmup_steps)
    model, guide, x = by_row(model, guide, x)
    programs = Programs(model, guide, x, chunk_size)
    layout = programs.layout
    event_dims = check_model(model, guide, x, layout)
    at_once = max(1, programs.chunk_size // len(x))

    def compare(chains: Sequence[Chain]) -> NutsComparison:
        nuts = {name: _stacked(chains, name, event_dim, layout) for name, event_dim in event_dims.items()}
        drawn = guide_draws(guide, x, len(chains) * num_samples, at_once, layout)
        diverging = torch.zeros(len(chains), num_samples, dtype=torch.bool)
        for row, (_, divergences) in zip(diverging, chains, strict=True):
            row[divergences] = True
        return NutsComparison(
            nuts=nuts,
            guide={name: _by_chain(drawn[name], len(chains)) for name in nuts},
            **_diagnostics(nuts),
            diverging=diverging,
        )

    chains: list[Chain] = []
    try:
        for chain in run_chains(model, x, num_samples, warmup_steps, num_chains, progress):
            chains.append(chain)
    except KeyboardInterrupt as interrupt:
        message = f"{len(chains)} of {num_chains} chains were done"
        raise Interrupted(message, compare(chains) if len(chains) > 1 else None) from interrupt
    return compare(chains)


def _stacked(chains: Sequence[Chain], name: str, event_dim: int, layout: Layout) -> Tensor:
    """The draws of a site by all chains, ``[chains, draws, n, ...]``."""
    draws = torch.cat([draws[name] for draws, _ in chains])
    missing = -layout.particle_dim - (draws.ndim - event_dim)  # dimensions of plates that the site is not in
    draws = draws.reshape(len(draws), *[1] * missing, *draws.shape[1:])
    return _by_chain(layout.by_datapoint(draws), len(chains))


def _by_chain(draws: Tensor, num_chains: int) -> Tensor:
    return draws.detach().cpu().unflatten(0, (num_chains, -1))


def _diagnostics(nuts: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """ArviZ's diagnostics of draws ``[chains, draws, n, ...]``, each ``[n, ...]``, by fields of the result."""
    arviz, _ = import_arviz()
    data = arviz_data({"posterior": {name: draws.double().numpy() for name, draws in nuts.items()}})
    with np.errstate(all="ignore"):  # R-hat is infinite or NaN where chains never moved
        found = {
            "ess": arviz.ess(data, method="mean"),
            "ess_sd": arviz.ess(data, method="sd"),
            "r_hat": arviz.rhat(data),
        }
    return {
        field: {name: torch.as_tensor(values[name].values.copy()) for name in nuts} for field, values in found.items()
    }

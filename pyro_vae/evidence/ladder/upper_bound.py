"""Upper bounds on log p(x) from exact posterior draws, which data drawn from the model come with."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.evidence.ladder.annealing import FEWEST_TEMPERATURES, NUM_CHAINS, Annealing
from pyro_vae.evidence.ladder.block import Block
from pyro_vae.evidence.ladder.laplace import Laplace
from pyro_vae.evidence.results.methods import ANNEALED, FROM_PRIOR
from pyro_vae.weights import log_mean_exp, terms_at

UPPER_TEMPERATURES = 4  # times the number of temperatures of the estimates


def upper_bound(block: Block, laplace: Laplace, annealing: Annealing, latents: dict[str, Tensor]) -> Tensor:
    """An upper bound on log p(x) on average, ``[n]``, from exact draws of the posterior, by site ``[n, ...]``.

    By annealing in reverse, with at least four times as many temperatures as the estimates took.
    """
    upper = torch.full((len(block.x),), torch.nan, dtype=torch.float64)
    position = laplace.log_joint.to_vectors(_one_particle(block, latents))
    from_prior = block.columns["method"].to(block.rows.device) == FROM_PRIOR
    from_prior |= ~laplace.fit.normals.found
    if laplace.few_dims:
        from_prior |= ~laplace.fit.complete
    for method, rows in ((ANNEALED, block.rows[~from_prior]), (FROM_PRIOR, block.rows[from_prior])):
        if len(rows):
            path, schedule = annealing.pilot(method, rows)
            taken = block.columns["num_temperatures"][rows.cpu()].clamp_min(FEWEST_TEMPERATURES[method])
            exact = position[:, rows].expand(NUM_CHAINS, -1, -1)
            back = path.reverse(exact, schedule.resized(UPPER_TEMPERATURES * taken))
            upper[rows.cpu()] = -log_mean_exp(-back.log_weights).cpu()
    return upper


def upper_bound_without_gradients(block: Block, latents: dict[str, Tensor]) -> Tensor:
    """The same from the log-weight of the exact draw: its mean exceeds log p(x) by KL(p(z | x) || q(z | x))."""
    programs = block.programs
    at = terms_at(programs.model, programs.guide, block.x, _one_particle(block, latents), 1, programs.layout)
    return at.log_weights[0].double().cpu()


def _one_particle(block: Block, latents: dict[str, Tensor]) -> dict[str, Tensor]:
    layout = block.programs.layout
    return {name: layout.by_site(value[None]) for name, value in latents.items()}

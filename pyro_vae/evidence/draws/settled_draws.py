"""Draws from the posterior by the method that `estimate` settles each datapoint with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pyro_vae.evidence.draws.resampling import CANDIDATES, PosteriorDraws, posterior_draws, resample, take
from pyro_vae.evidence.ladder.annealing import Annealing
from pyro_vae.evidence.ladder.block import Block
from pyro_vae.evidence.ladder.ladder import Ladder
from pyro_vae.evidence.ladder.laplace import Laplace
from pyro_vae.evidence.ladder.settings import Settings
from pyro_vae.evidence.ladder.without_gradients import SHARE_WITH_PRIOR
from pyro_vae.evidence.proposals import defensive
from pyro_vae.evidence.results.methods import ANNEALED, FROM_PRIOR, GUIDE, LAPLACE, WITH_PRIOR
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained.laplace_proposal import draw_mixture, log_mixture
from pyro_vae.evidence.unconstrained.log_joint import FastDensities
from pyro_vae.weights import terms

# For draws only the variance of the weights matters, so the noise of the mean must not: as if over many datapoints.
SETTINGS = Settings(tolerance=0.05, max_temperatures=512, num_datapoints=2**20)
FEWEST_CHAINS = 32  # with fewer, there is no k-hat
ROWS = 64  # datapoints that climb together; all of their draws are in memory
NUMBERS_AT_ONCE = 2**24  # of the candidates that are held in memory


def rows_of_block(chunk_size: int | None, num_draws: int) -> int:
    """How many datapoints to draw for together: as many as the draws of a chunk allow, if its size is given."""
    return ROWS if chunk_size is None else max(1, chunk_size // num_draws)


def in_pieces(
    programs: Programs, x: Tensor, latents: dict[str, Tensor], rows: int
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Splits a block and its draws ``[draws, n, ...]`` into parts of this number of rows, if rows are independent."""
    at_once = rows if programs.independent else len(x)
    for some in torch.arange(len(x), device=x.device).split(at_once):
        yield x[some], {name: value[:, some] for name, value in latents.items()}


@torch.no_grad()
def settled_draws(
    programs: Programs,
    x: Tensor,
    num_draws: int,
    indices: Sequence[int] | None = None,
    fast: FastDensities | None = None,
) -> PosteriorDraws:
    """Draws from p(z | x): from normals at its modes, or the ends of annealed chains, chosen by their weights.

    Args:
        programs: Model and guide.
        x: A block of datapoints, ``[n, *event]``.
        num_draws: Draws for each of them.
        indices: The indices of the datapoints, for the error message; by default from 0 on.
        fast: Makes the densities fast, once for all blocks that share it.

    Raises:
        ValueError: If no method finds a weight that is finite and positive for a datapoint.
    """
    ladder = Ladder(programs, x, SETTINGS, fast=fast)
    columns = ladder.estimates(range(len(x)) if indices is None else indices)
    if ladder.laplace is None or ladder.annealing is None:
        nothing = torch.zeros(len(x), dtype=torch.float64)
        drawn = _from_guide(ladder.block, num_draws, {}, nothing, nothing.clone())
    else:
        latents, *diagnostics = _from_vectors(ladder.block, ladder.laplace, ladder.annealing, num_draws)
        drawn = _from_guide(ladder.block, num_draws, latents, *diagnostics)
    return PosteriorDraws(*drawn, doubtful=columns["error"].isinf())


def _from_guide(
    block: Block, num_draws: int, latents: dict[str, Tensor], pareto_k: Tensor, ess: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The arguments, with those rows filled in whose draws are from the guide, or from its mixture with the prior."""
    programs, used = block.programs, block.columns["method"]
    for method, proposal in ((GUIDE, terms), (WITH_PRIOR, defensive(SHARE_WITH_PRIOR))):
        taken = used == method
        if not taken.any():
            continue
        drawn = posterior_draws(programs.model, programs.guide, block.x, num_draws, programs.layout, proposal)
        for name, value in drawn.latents.items():
            mine = taken.to(value.device).reshape(-1, *[1] * (value.ndim - 2))
            latents[name] = torch.where(mine, value, latents.get(name, value))
        pareto_k[taken], ess[taken] = drawn.pareto_k[taken], drawn.ess[taken]
    return latents, pareto_k, ess


def _from_vectors(
    block: Block, laplace: Laplace, annealing: Annealing, num_draws: int
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Latents, k-hat and ESS from the normals, or from annealed chains."""
    used, temperatures, log_joint = block.columns["method"], block.columns["num_temperatures"], laplace.log_joint
    vectors = torch.zeros(num_draws, len(used), log_joint.dims, dtype=block.programs.dtype, device=block.x.device)
    pareto_k, ess = (torch.zeros(len(used), dtype=torch.float64) for _ in range(2))
    for method in (LAPLACE, ANNEALED, FROM_PRIOR):
        rows = (used == method).nonzero()[:, 0]
        for some in rows.split(max(1, NUMBERS_AT_ONCE // (CANDIDATES * num_draws * log_joint.dims))):
            if not len(some):
                continue
            here = some.to(vectors.device)
            if method == LAPLACE:
                drawn, pareto_k[some], ess[some] = _from_normals(laplace, here, num_draws)
            else:
                drawn, pareto_k[some], ess[some] = _from_chains(annealing, method, here, temperatures[some], num_draws)
            vectors[:, here] = drawn.to(vectors.dtype)
    latents, _ = log_joint.to_latents(vectors)
    return {name: block.programs.layout.by_datapoint(value) for name, value in latents.items()}, pareto_k, ess


def _from_normals(laplace: Laplace, rows: Tensor, num_draws: int) -> tuple[Tensor, Tensor, Tensor]:
    normals = laplace.fit.normals.rows(rows)
    position = draw_mixture(laplace.log_joint, normals, rows, CANDIDATES * num_draws)
    log_prior, joint = laplace.log_joint.densities(position, rows)
    log_weights = joint - log_mixture(normals, position, log_prior)
    log_weights = log_weights.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
    chosen, k, ess = resample(log_weights, num_draws)
    return take(position, chosen), k, ess


def _from_chains(
    annealing: Annealing, method: int, rows: Tensor, temperatures: Tensor, num_draws: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The ends of chains for rows ``[m]``, with the numbers of temperatures ``[m]`` that settled them."""
    known, path, schedule = annealing.paths[method]
    place = torch.searchsorted(known, rows)
    vectors = torch.zeros(num_draws, len(rows), annealing.log_joint.dims, dtype=torch.float64, device=rows.device)
    pareto_k, ess = (torch.zeros(len(rows), dtype=torch.float64) for _ in range(2))
    for count in temperatures.unique().tolist():
        index = (temperatures == count).nonzero()[:, 0]
        where = place[index.to(place.device)]
        chains = path.some(where).forward(max(num_draws, FEWEST_CHAINS), schedule.rows(where).resized(count))
        log_weights = chains.log_weights.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
        chosen, pareto_k[index], ess[index] = resample(log_weights, num_draws)
        vectors[:, index.to(rows.device)] = take(chains.position, chosen).double()
    return vectors, pareto_k, ess

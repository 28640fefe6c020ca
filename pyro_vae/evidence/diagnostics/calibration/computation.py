"""Simulation-based calibration: ranks of true latents among draws from the guide."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.evidence.diagnostics.calibration.ranks import NUM_PROJECTIONS, projection_ranks, ranks_among
from pyro_vae.evidence.diagnostics.calibration.result import LEAST_DATAPOINTS, LOG_JOINT, PROJECTION, Calibration
from pyro_vae.evidence.diagnostics.calibration.uniformity import LEAST_DRAWS
from pyro_vae.evidence.estimators.simulation import simulate
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.chunks import choose_rows, particle_counts
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.runner.resume_file import beginning_with
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import x_alone
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Layout, Program, no_sites, sample_sites, terms_at, trace_of

SITE = "site "  # before the name of a latent site, in the names of columns


@evidence_function
def calibrate(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_draws: int = 99,
    chunk_size: int | None = None,
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> Calibration:
    """Simulation-based calibration of the guide (Talts et al. 2018, section 4.1; Modrák et al. 2023).

    Draws z from the prior and x from p(x | z): z is then an exact draw from p(z | x). If q(z | x) is that posterior, z
    and draws from q are exchangeable, and the rank of any function of z and x among its values at the draws is uniform
    on 0 to num_draws. These are ranked:

    - each coordinate of the latents, which shows a shift, a wrong width or a wrong shape, but no dependence;
    - log p(x, z) (Modrák et al. 2023), which shows how latents depend on each other and on x: the prior as a guide,
      which ignores x, is right in every coordinate and fails here;
    - 8 random projections of all coordinates, each in standard deviations of its draws, if there are several.

    An error of q that changes none of these is not found. The result holds for data from the model, and for real data
    only as far as the model is right.

    Values that are missing from x, NaN or hidden by a mask of the model, are missing from the simulated data as well,
    so that the guide is tested on what it sees. This is right if values are missing for reasons that are independent
    of them.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x, observed at one site.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``, n at least 50, or a ``Dataset`` or ``DataLoader`` of them. As many datapoints are
            simulated: only the number, the kind and the missing values of x matter. Rows can be repeated.
        num_draws: Draws from the guide for each datapoint, at least 4: there are ``num_draws + 1`` possible ranks. The
            draws of a block of datapoints are in memory at once.
        chunk_size, progress, keep, processes: As for :func:`~pyro_vae.evidence.estimate`.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x has fewer than 50 rows or is not accepted by the programs, the programs share no data plate,
            their sites do not match, the model does not observe x at one site or takes missing values for data, or a
            draw is NaN.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.

    Example:
        >>> calibration = evidence.calibrate(vae.model, vae.guide, vae.sample(100), progress=False)
        >>> calibration.passed  # the guide is not trained yet
        False
    """
    num_draws = check_count("num_draws", num_draws, least=LEAST_DRAWS)
    x = x_alone(model, x)
    if len(check_rows(x)) < LEAST_DATAPOINTS:
        raise ValueError(
            f"x has {len(x)} datapoint{'s' * (len(x) > 1)}, too few for their ranks to tell; expected at least "
            f"{LEAST_DATAPOINTS}: repeat its rows, only their number, their kind and what is missing matter"
        )
    programs = Programs(model, guide, x, chunk_size, progress, keep, processes)
    layout = programs.layout

    def rank(block: Tensor, first: int) -> dict[str, Tensor]:
        x, true = simulate(model, guide, block, layout)
        drawn: dict[str, list[Tensor]] = {name: [] for name in (*true, LOG_JOINT)}
        for num_particles in particle_counts(num_draws, len(block), programs.chunk_size):
            guided = trace_of(guide, x, num_particles, layout)
            latents = {name: site["value"] for name, site in sample_sites(guided) if name in true}
            for name, value in latents.items():
                drawn[name].append(layout.by_datapoint(value))
                _check_numbers(name, drawn[name][-1], true[name], first)
            drawn[LOG_JOINT].append(_log_joint(model, x, latents, num_particles, layout))
        draws = {name: torch.cat(parts) for name, parts in drawn.items()}
        at_true = {name: layout.by_site(value[None]) for name, value in true.items()}
        log_joint = _log_joint(model, x, at_true, 1, layout)[0]
        # A sum computed twice, in batches of different sizes, differs by rounding.
        rounding = 8 * torch.finfo(log_joint.dtype).eps * log_joint.abs().clamp_min(1)
        columns = {f"{SITE}{name}": ranks_among(value, draws[name]) for name, value in true.items()}
        columns[LOG_JOINT] = ranks_among(log_joint, draws[LOG_JOINT], rounding)
        projected = projection_ranks(true, draws)
        return columns if projected is None else columns | {PROJECTION: projected}

    return programs.run(
        rank,
        partial(_calibration, num_draws),
        rows=choose_rows(programs.chunk_size, num_draws),
        settings={"function": "calibrate", "num_draws": num_draws, "num_projections": NUM_PROJECTIONS},
        description="calibration",
    )


def _calibration(num_draws: int, columns: dict[str, Tensor]) -> Calibration:
    """The result for the first datapoints, from the ranks of each."""
    joint = {name: columns[name] for name in (LOG_JOINT, PROJECTION) if name in columns}
    return Calibration(beginning_with(SITE, columns), num_draws, joint)


def _log_joint(model: Program, x: Tensor, latents: dict[str, Tensor], num_particles: int, layout: Layout) -> Tensor:
    """log p(x, z), ``[particles, n]``; minus infinity where z is impossible, as draws from a guide may be."""
    at = terms_at(model, no_sites, x, latents, num_particles, layout)
    return (at.log_prior + at.log_likelihood).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _check_numbers(name: str, draws: Tensor, true: Tensor, first: int) -> None:
    """Checks draws ``[draws, n, ...]`` and true values ``[n, ...]`` of a site, of datapoints from ``first`` on."""
    for values, program in ((draws, "guide"), (true[None], "model")):
        if values.isnan().any():
            index = first + int(values.isnan().nonzero()[0, 1])
            raise ValueError(f"site {name!r} of the {program} draws NaN at simulated datapoint {index}")

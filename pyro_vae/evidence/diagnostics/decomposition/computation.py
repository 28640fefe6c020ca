"""The parts of the ELBO, and the latent units that are active."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.evidence.diagnostics.decomposition.activity import activity, mean_or_draw
from pyro_vae.evidence.diagnostics.decomposition.aggregate_posterior import aggregate_densities
from pyro_vae.evidence.diagnostics.decomposition.information_bounds import information_bounds
from pyro_vae.evidence.diagnostics.decomposition.result import ElboDecomposition
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.runner.resume_file import beginning_with
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import as_tensors, by_row
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program, sample_sites, terms_of, vectorized_trace_pair

DRAWN, MEAN, VARIANCE = "drawn ", "mean ", "variance "  # before the name of a latent site, in the names of columns


@evidence_function
def decompose_elbo(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_particles: int = 16,
    num_marginal: int = 1000,
    more: Any = None,
    chunk_size: int | None = None,
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> ElboDecomposition:
    """Splits the ELBO as Hoffman & Johnson (2016) do, and counts active units.

    The mutual information needs the density of a latent under q of every datapoint. It is computed for some latents, of
    datapoints chosen at random. The average of this density over all datapoints leads to a lower bound on the mutual
    information; the average without the latent's own datapoint leads to an upper bound (Poole et al. 2019, equations 12
    and 13). Any prior leads to an upper bound too: the model's own prior, and a normal with the mean and covariance of
    other latents, are tried.

    No method has a lower bound much above the log of the number of datapoints, whatever the data (McAllester & Stratos
    2020).

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, as for :func:`~pyro_vae.evidence.estimate`.
        num_particles: Particles for each datapoint, at least 2.
        num_marginal: The number of latents that the mutual information is estimated from, at least 2.
        more: Further datapoints of the same kind, in one of the forms of x and not in x, which q(z) is averaged over
            too: the training data, for example. The more, the tighter the bounds.
        chunk_size, progress, keep, processes: As for :func:`~pyro_vae.evidence.estimate`.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x or ``more`` is empty or not accepted by the programs, the programs share no data plate, their
            sites do not match, ``more`` has all rows of x, or the file is of another run.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.

    Example:
        >>> parts = evidence.decompose_elbo(vae.model, vae.guide, x, progress=False)
        >>> parts.reconstruction < 0 < parts.rate
        True
    """
    settings = {
        "function": "decompose_elbo",
        "num_particles": check_count("num_particles", num_particles, least=2),
        "num_marginal": check_count("num_marginal", num_marginal, least=2),
    }
    tensors, others = as_tensors(model, x), () if more is None else as_tensors(model, more)
    settings |= {"more": others[0] if others else None}
    settings |= {f"more {i}": other for i, other in enumerate(others[1:], start=1)}
    programs = Programs(*by_row(model, guide, tensors), chunk_size, progress, keep, processes)
    further = None
    if others:
        _check_others(tensors[0], others[0])
        further = Programs(*by_row(model, guide, others), chunk_size)

    def decompose(block: Tensor, first: int) -> dict[str, Tensor]:  # noqa: ARG001
        layout = programs.layout
        model_trace, guide_trace = vectorized_trace_pair(programs.model, programs.guide, block, num_particles, layout)
        at = terms_of(model_trace, guide_trace, layout)
        columns = {"own_prior": at.log_prior[0].double()}
        for name, values in (("reconstruction", at.log_likelihood), ("rate", at.log_posterior - at.log_prior)):
            columns |= {name: values.double().mean(0), f"{name}_variance": values.double().var(0) / num_particles}
        for name, site in sample_sites(guide_trace):
            means = layout.by_datapoint(mean_or_draw(site)).double()
            columns |= {
                f"{DRAWN}{name}": layout.by_datapoint(site["value"])[0],
                f"{MEAN}{name}": means.mean(0),
                f"{VARIANCE}{name}": means.var(0) / num_particles,
            }
        return columns

    return programs.run(
        decompose,
        partial(_decomposition, programs, further, num_particles, num_marginal),
        rows=max(1, programs.chunk_size // num_particles),
        settings=settings,
    )


def _decomposition(
    programs: Programs, further: Programs | None, num_particles: int, num_marginal: int, columns: dict[str, Tensor]
) -> ElboDecomposition:
    """The result for the first datapoints, from the columns of each."""
    n = len(columns["rate"])
    chosen = torch.randperm(n)[:num_marginal].sort().values
    with pyro.validation_enabled(False):
        densities = aggregate_densities(programs, beginning_with(DRAWN, columns), chosen, further)
    log_prior = columns["own_prior"][chosen]
    bounds = information_bounds(densities, log_prior, columns["rate"], chosen)
    rate, rate_std_error = columns["rate"].mean().item(), _std_error(columns["rate_variance"])
    information, information_std_error = _mutual_information(
        densities.own - densities.everyone, densities.everyone - log_prior, rate, rate_std_error
    )
    means, noise = beginning_with(MEAN, columns), beginning_with(VARIANCE, columns)
    units = {name: activity(means[name], noise[name], num_particles) for name in means}
    return ElboDecomposition(
        reconstruction=columns["reconstruction"].mean().item(),
        rate=rate,
        mutual_information=information,
        reconstruction_std_error=_std_error(columns["reconstruction_variance"]),
        rate_std_error=rate_std_error,
        mutual_information_std_error=information_std_error,
        mutual_information_bounds=bounds.mutual_information,
        marginal_kl_bounds=bounds.marginal_kl,
        total_correlation_bounds=bounds.total_correlation,
        activity={name: each.variance for name, each in units.items()},
        active={name: each.active for name, each in units.items()},
        inactive={name: each.inactive for name, each in units.items()},
        num_datapoints=n,
        num_aggregated=n + (0 if further is None else len(further.x)),
    )


def _mutual_information(
    information: Tensor, marginal: Tensor, rate: float, rate_std_error: float
) -> tuple[float, float]:
    """The mutual information and its standard error, from terms of it and of the marginal KL at some draws, ``[m]``.

    Both add up to the rate. The one that varies less is estimated, and the other is the rest of the rate.
    """
    information_variance, marginal_variance = _variance(information), _variance(marginal)
    error = math.sqrt(min(information_variance, marginal_variance) / len(information))
    if information_variance <= marginal_variance:
        return information.mean().item(), error
    return rate - marginal.mean().item(), math.hypot(error, rate_std_error)


def _check_others(x: Tensor, more: Tensor) -> None:
    """Checks that x is not a part of the further datapoints.

    Raises:
        ValueError: If all rows of x are among them.
    """
    check_rows(more)
    if more.shape[1:] == x.shape[1:]:
        # A random projection stands for a row.
        weight = torch.randn(x[0].numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        marks = [rows.flatten(1).cpu().double().nan_to_num() @ weight for rows in (x, more)]
        if torch.isin(*marks).all():
            raise ValueError(f"more has all {len(x)} rows of x; expected other datapoints")


def _variance(values: Tensor) -> float:
    """The variance of ``[m]``; zero for a single value."""
    return values.var().item() if len(values) > 1 else 0.0


def _std_error(variances: Tensor) -> float:
    """The standard error of the mean over datapoints of estimates with these variances, ``[n]``."""
    return variances.sum().sqrt().item() / len(variances)

"""What the ELBO consists of, and whether the latents carry anything."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.evidence.diagnostics.activity import activity, mean_or_draw
from pyro_vae.evidence.diagnostics.aggregate_posterior import aggregate_densities
from pyro_vae.evidence.diagnostics.information_bounds import Bounds, information_bounds
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import as_tensors, by_row
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program, sample_sites, terms_of, vectorized_trace_pair

__all__ = ["ElboDecomposition", "decompose_elbo"]

DRAWN, MEAN, VARIANCE = "drawn ", "mean ", "variance "  # of a latent site, in the names of columns
NEAR = 1.0  # nats below the log of the number of datapoints


@dataclass(frozen=True)
class ElboDecomposition:
    """ELBO = reconstruction - mutual information - marginal KL, in nats per datapoint (Hoffman & Johnson 2016).

    What is said of q(z), the mean of q(z | x) over the data, depends on which data are meant. ``mutual_information``
    and ``marginal_kl`` are of these very datapoints: z can tell few of them all apart, and then the mutual information
    is the log of their number. The ``..._bounds`` are of all the data of which these are a sample: a pair, of which
    each end holds with 97.5%. Fewer than 10 datapoints or draws cannot tell: the bounds are then 0 and infinity.

    Attributes:
        reconstruction: The mean of log p(x | z) under q. Its negative is the distortion (Alemi et al. 2018).
        rate: The mean of KL(q(z | x) || p(z)), from the same draws.
        mutual_information: Between z and the index of the datapoint, under q: at most the log of the number of
            datapoints, and on average a lower bound on that of z and x (Poole et al. 2019, equation 12).
        marginal_kl: KL(q(z) || p(z)), where q(z) is the mean of q(z | x) over the datapoints. On average an upper bound
            on what a better prior could save.
        reconstruction_std_error: The Monte Carlo standard error of ``reconstruction``.
        rate_std_error: That of ``rate``.
        mutual_information_std_error: That of ``mutual_information``, for the choice of the draws, as an estimate for
            these very datapoints: it says nothing of how far the bound lies from the mutual information of z and x.
        mutual_information_bounds: On the mutual information of z and x.
        marginal_kl_bounds: On KL(q(z) || p(z)): what a better prior could save.
        total_correlation_bounds: On KL(q(z) || product of q(z_d)), if there is one latent site whose units are
            independent given x; else None.
        activity: For each latent site, the variance over the data of the mean of q(z | x), ``[...]``.
        active: Which latent units are active, by site: those of an activity above 0.01 (Burda et al. 2015, section
            5.2), by four standard errors. A single datapoint tells nothing of it.
        inactive: Those of an activity below 0.01, by four standard errors. Some may be neither.
        num_datapoints: The number of datapoints.
        num_aggregated: The number of datapoints that q(z) is the mean over: with those of ``more``.
    """

    reconstruction: float
    rate: float
    mutual_information: float
    reconstruction_std_error: float
    rate_std_error: float
    mutual_information_std_error: float
    mutual_information_bounds: Bounds
    marginal_kl_bounds: Bounds
    total_correlation_bounds: Bounds | None
    activity: dict[str, Tensor]
    active: dict[str, Tensor]
    inactive: dict[str, Tensor]
    num_datapoints: int
    num_aggregated: int

    @property
    def elbo(self) -> float:
        """``reconstruction - rate``."""
        return self.reconstruction - self.rate

    @property
    def distortion(self) -> float:
        """``-reconstruction``."""
        return -self.reconstruction

    @property
    def marginal_kl(self) -> float:
        """``rate - mutual_information``."""
        return self.rate - self.mutual_information

    @property
    def collapsed(self) -> bool:
        """Whether more than half of the latent units of some site are surely not active."""
        return any(map(_mostly, self.inactive.values()))

    def summary(self) -> str:
        """The parts with their errors and bounds, and the active units, with a warning at posterior collapse."""
        n = self.num_datapoints
        lines = [
            f"ELBO {self.elbo:.3f} nats, " + (f"the mean over {n} datapoints:" if n > 1 else "of one datapoint:"),
            f"  reconstruction, E log p(x | z)    {self.reconstruction:10.3f} +- {self.reconstruction_std_error:.3f}",
            f"  minus the rate, KL(q || p(z))     {self.rate:10.3f} +- {self.rate_std_error:.3f}",
            "  (standard errors of the draws)",
            *self._of_all_data(),
        ]
        for name, active in self.active.items():
            unknown = int((~active & ~self.inactive[name]).sum())
            lines.append(f"  active units of {name!r}: {int(active.sum())} of {active.numel()}")
            if unknown:
                lines[-1] += f"; for {unknown} more, so few datapoints and particles cannot tell"
            if _mostly(self.inactive[name]):
                lines.append(
                    f"  WARNING: posterior collapse: most units of {name!r} say nothing of x. A KL term that is\n"
                    "  phased in, or held above a least rate (free bits), can prevent it; so can fewer units."
                )
        return "\n".join(lines)

    def _of_all_data(self) -> list[str]:
        """What is known of the parts of the rate, for all the data of which the datapoints are a sample."""
        count, most = self.num_aggregated, math.log(self.num_aggregated)
        if math.isinf(self.mutual_information_bounds.upper):
            return [
                "  The rate consists of the mutual information of x and z and the marginal KL(q(z) || p(z)): so few",
                "  datapoints or draws (num_marginal) cannot tell how much is which. The mutual information that they",
                f"  can show is at most {most:.3f}, the log of the number of datapoints.",
            ]
        lines = [
            "  The rate consists of (95% bounds, for all the data of which these are a sample)",
            f"    mutual information of x and z   {self.mutual_information_bounds}",
            f"    marginal KL(q(z) || p(z))       {self.marginal_kl_bounds}, what a better prior could save",
        ]
        if self.total_correlation_bounds is not None:
            lines.append(f"  total correlation of the units    {self.total_correlation_bounds}")
        if self.mutual_information > most - NEAR:
            lines += [
                f"  Note: z tells nearly all of the {count} datapoints apart. The mutual information that so many can",
                f"  show is at most {most:.3f}, the log of their number: it may be anywhere up to the upper bound, and",
                "  the marginal KL anywhere down to the lower one. More datapoints (more=) raise this limit.",
            ]
        return lines

    def __str__(self) -> str:
        return self.summary()


@evidence_function
@torch.no_grad()
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

    The mutual information needs the density of a latent under q given every datapoint: it is computed for some latents,
    of datapoints chosen at random. Averaged over all datapoints, this density leads to a lower bound on the mutual
    information; without the latent's own datapoint, to an upper bound (Poole et al. 2019, equations 12 and 13). Any
    prior gives an upper bound too: the model's own, and a normal with mean and covariance of other latents, are tried.

    No method has a lower bound that is much above the log of the number of datapoints, whatever the data (McAllester &
    Stratos 2020).

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``; or, for programs of more than x, a tuple of tensors, each ``[n, ...]``; or a
            ``Dataset`` or ``DataLoader`` of what they take, which is loaded into memory, in the order of the data set.
        num_particles: Particles for each datapoint, at least 2.
        num_marginal: The number of latents that the mutual information is estimated from, at least 2.
        more: Further datapoints of the same kind, in one of the forms of x, none of them in x, that q(z) is averaged
            over too: the training data, for one. The more, the closer are the bounds.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Whether to show a progress bar; or a function that wraps the blocks, as ``tqdm.tqdm`` does.
        keep: A file for what is done. If it is there, the call goes on from it, to the same numbers as if it had not
            been stopped. At most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x or ``more`` is empty or not accepted by the programs, the programs share no data plate, their
            sites do not match, ``more`` has all rows of x, or the file is of another run.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    settings = {
        "function": "decompose_elbo",
        "num_particles": check_count("num_particles", num_particles, least=2),
        "num_marginal": check_count("num_marginal", num_marginal, least=2),
    }
    tensors, others = as_tensors(model, x), () if more is None else as_tensors(model, more)
    settings |= {"more": others[0] if others else None}
    settings |= {f"more {i}": other for i, other in enumerate(others[1:], start=1)}
    programs, further = Programs(*by_row(model, guide, tensors), chunk_size), None
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
        progress=progress,
        keep=keep,
        processes=processes,
    )


@torch.no_grad()
def _decomposition(
    programs: Programs, further: Programs | None, num_particles: int, num_marginal: int, columns: dict[str, Tensor]
) -> ElboDecomposition:
    """The result for the first datapoints, from what was computed of each."""
    n = len(columns["rate"])
    chosen = torch.randperm(n)[:num_marginal].sort().values
    with pyro.validation_enabled(False):
        densities = aggregate_densities(programs, _sites(DRAWN, columns), chosen, further)
    bounds = information_bounds(densities, columns["own_prior"][chosen], columns["rate"], chosen)
    information = densities.own - densities.everyone
    marginal = densities.everyone - columns["own_prior"][chosen]
    rate, rate_std_error = columns["rate"].mean().item(), _std_error(columns["rate_variance"])
    # Their sum is the rate. The one that varies less is estimated, and the other is what remains of the rate.
    variances = [_variance(information), _variance(marginal)]
    error = math.sqrt(min(variances) / len(chosen))
    if variances[0] <= variances[1]:
        mutual_information = information.mean().item()
    else:
        mutual_information = rate - marginal.mean().item()
        error = math.hypot(error, rate_std_error)
    noise = _sites(VARIANCE, columns)
    units = {name: activity(means, noise[name], num_particles) for name, means in _sites(MEAN, columns).items()}
    return ElboDecomposition(
        reconstruction=columns["reconstruction"].mean().item(),
        rate=rate,
        mutual_information=mutual_information,
        reconstruction_std_error=_std_error(columns["reconstruction_variance"]),
        rate_std_error=rate_std_error,
        mutual_information_std_error=error,
        mutual_information_bounds=bounds.mutual_information,
        marginal_kl_bounds=bounds.marginal_kl,
        total_correlation_bounds=bounds.total_correlation,
        activity={name: each.variance for name, each in units.items()},
        active={name: each.active for name, each in units.items()},
        inactive={name: each.inactive for name, each in units.items()},
        num_datapoints=n,
        num_aggregated=n + (0 if further is None else len(further.x)),
    )


def _check_others(x: Tensor, more: Tensor) -> None:
    """Checks that further datapoints are not those that x was taken from.

    Raises:
        ValueError: If x is a part of them.
    """
    check_rows(more)
    if more.shape[1:] == x.shape[1:]:
        # A random projection stands for a row.
        weight = torch.randn(x[0].numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        marks = [rows.flatten(1).cpu().double().nan_to_num() @ weight for rows in (x, more)]
        if torch.isin(*marks).all():
            raise ValueError(f"more has all {len(x)} rows of x; expected other datapoints")


def _mostly(units: Tensor) -> bool:
    return bool(units.double().mean() > 0.5)


def _sites(prefix: str, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}


def _variance(values: Tensor) -> float:
    """That of a single value is zero."""
    return values.var().item() if len(values) > 1 else 0.0


def _std_error(variances: Tensor) -> float:
    """Of the mean over datapoints of estimates with these variances, ``[n]``."""
    return variances.sum().sqrt().item() / len(variances)

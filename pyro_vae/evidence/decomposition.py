"""What the ELBO consists of, and whether the latents carry anything."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyro
import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.runner import Programs, Progress, bar
from pyro_vae.processes import Processes
from pyro_vae.weights import Program, no_sites, terms, terms_at

__all__ = ["ElboDecomposition", "decompose_elbo"]

ACTIVE = 0.01  # Burda et al. 2015, section 5.2
DRAWN, MEAN, VARIANCE = "drawn ", "mean ", "variance "  # of a latent site, in the names of columns
PAIRS_AT_ONCE = 2**16  # densities of one latent under q given another datapoint: no likelihood to compute


@dataclass(frozen=True)
class ElboDecomposition:
    """ELBO = reconstruction - mutual information - marginal KL, in nats per datapoint (Hoffman & Johnson 2016).

    Attributes:
        reconstruction: The mean of log p(x given z) under q. Its negative is the distortion (Alemi et al. 2018).
        rate: The mean of KL(q(z given x) || p(z)), from the same draws.
        mutual_information: Between z and the index of the datapoint, under q: at most the log of the number of
            datapoints.
        marginal_kl: KL(q(z) || p(z)), where q(z) is the mean of q(z given x) over the datapoints: what a better prior
            could save.
        reconstruction_std_error: The Monte Carlo standard error of ``reconstruction``.
        rate_std_error: That of ``rate``.
        mutual_information_std_error: That of ``mutual_information``, for the choice of the draws.
        activity: For each latent site, the variance over the data of the mean of q(z given x), ``[...]``.
        num_datapoints: The number of datapoints.
    """

    reconstruction: float
    rate: float
    mutual_information: float
    reconstruction_std_error: float
    rate_std_error: float
    mutual_information_std_error: float
    activity: dict[str, Tensor]
    num_datapoints: int

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
    def active(self) -> dict[str, Tensor]:
        """Which latent units are active, by site: those of an activity above 0.01 (Burda et al. 2015, section 5.2)."""
        return {name: activity > ACTIVE for name, activity in self.activity.items()}

    @property
    def collapsed(self) -> bool:
        """Whether more than half of the latent units of some site are not active."""
        return any(map(_mostly_off, self.active.values()))

    def summary(self) -> str:
        """The parts and the active units, with a warning at posterior collapse."""
        most = math.log(self.num_datapoints)
        lines = [
            f"ELBO {self.elbo:.3f} nats, the mean over {self.num_datapoints} datapoints:",
            f"  reconstruction, E log p(x given z){self.reconstruction:10.3f} +- {self.reconstruction_std_error:.3f}",
            f"  minus the rate, KL(q || p(z)){self.rate:15.3f} +- {self.rate_std_error:.3f}, which consists of",
            f"    mutual information of x and z{self.mutual_information:12.3f} "
            f"+- {self.mutual_information_std_error:.3f} (at most {most:.3f}, the log of the number of datapoints)",
            f"    marginal KL(q(z) || p(z)){self.marginal_kl:16.3f}",
        ]
        for name, active in self.active.items():
            lines.append(f"  active units of {name!r}: {int(active.sum())} of {active.numel()}")
            if _mostly_off(active):
                lines.append(
                    f"  WARNING: posterior collapse: most units of {name!r} say nothing of x. A KL term that is\n"
                    "  phased in, or held above a least rate (free bits), can prevent it; so can fewer units."
                )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


@torch.no_grad()
def decompose_elbo(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_particles: int = 16,
    num_marginal: int = 1000,
    chunk_size: int | None = None,
    progress: Progress = bar,
    resume: str | Path | None = None,
    processes: Processes | None = None,
) -> ElboDecomposition:
    """Splits the ELBO as Hoffman & Johnson (2016) do, and counts active units.

    The mutual information needs the density of a latent under q given every datapoint: it is computed for some latents,
    of datapoints chosen at random.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``.
        num_particles: Particles for each datapoint, at least 2.
        num_marginal: The number of latents that the mutual information is estimated from, at least 2.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Wraps the sequence of blocks of datapoints, as ``rich.progress.track`` does; ``iter`` for silence.
        resume: A file to keep what is done in. The same call goes on from it, to the same numbers as if it had not
            been stopped; at most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Raises:
        TypeError: If x is not a tensor, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, or the file is of another run.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    settings = {
        "function": "decompose_elbo",
        "num_particles": check_count("num_particles", num_particles, least=2),
        "num_marginal": check_count("num_marginal", num_marginal, least=2),
    }
    programs = Programs(model, guide, x, chunk_size)

    def decompose(block: Tensor, first: int) -> dict[str, Tensor]:  # noqa: ARG001
        at = terms(model, guide, block, num_particles, programs.layout)
        columns = {"own_posterior": at.log_posterior[0].double(), "own_prior": at.log_prior[0].double()}
        for name, values in (("reconstruction", at.log_likelihood), ("rate", at.log_posterior - at.log_prior)):
            columns |= {name: values.double().mean(0), f"{name}_variance": values.double().var(0) / num_particles}
        for name, value in at.latents.items():
            values = programs.layout.rows_second(value)
            columns |= {
                f"{DRAWN}{name}": values[0],
                f"{MEAN}{name}": values.double().mean(0),
                f"{VARIANCE}{name}": values.double().var(0) / num_particles,
            }
        return columns

    return programs.run(
        decompose,
        partial(_decomposition, programs, num_marginal),
        rows=max(1, programs.chunk_size // num_particles),
        settings=settings,
        progress=progress,
        resume=resume,
        processes=processes,
    )


@torch.no_grad()
def _decomposition(programs: Programs, num_marginal: int, columns: dict[str, Tensor]) -> ElboDecomposition:
    """The result for the first datapoints, from what was computed of each."""
    n = len(columns["rate"])
    chosen = torch.randperm(n)[:num_marginal].sort().values
    latents = {name: values[chosen].to(programs.x.device) for name, values in _sites(DRAWN, columns).items()}
    with pyro.validation_enabled(False):
        log_marginal = _log_marginal(programs, n, latents).cpu()
    information = columns["own_posterior"][chosen] - log_marginal
    marginal = log_marginal - columns["own_prior"][chosen]
    rate, rate_std_error = columns["rate"].mean().item(), _std_error(columns["rate_variance"])
    # Their sum is the rate. The one that varies less is estimated, and the other is what remains of the rate.
    variances = [_variance(information).item(), _variance(marginal).item()]
    error = math.sqrt(min(variances) / len(chosen))
    if variances[0] <= variances[1]:
        mutual_information = information.mean().item()
    else:
        mutual_information = rate - marginal.mean().item()
        error = math.hypot(error, rate_std_error)
    variances_of_means = _sites(VARIANCE, columns)
    return ElboDecomposition(
        reconstruction=columns["reconstruction"].mean().item(),
        rate=rate,
        mutual_information=mutual_information,
        reconstruction_std_error=_std_error(columns["reconstruction_variance"]),
        rate_std_error=rate_std_error,
        mutual_information_std_error=error,
        # Without what the finite number of particles adds to it.
        activity={
            name: (_variance(means) - variances_of_means[name].mean(0)).clamp_min(0)
            for name, means in _sites(MEAN, columns).items()
        },
        num_datapoints=n,
    )


def _mostly_off(active: Tensor) -> bool:
    return bool(active.double().mean() < 0.5)


def _sites(prefix: str, columns: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}


def _variance(values: Tensor) -> Tensor:
    """Over the rows; that of a single one is zero."""
    return values.var(0) if len(values) > 1 else torch.zeros_like(values[0])


def _std_error(variances: Tensor) -> float:
    """Of the mean over datapoints of estimates with these variances, ``[n]``."""
    return variances.sum().sqrt().item() / len(variances)


def _log_marginal(programs: Programs, n: int, latents: dict[str, Tensor]) -> Tensor:
    """log q(z) of latents ``[m, ...]``: the log of the mean over the first n datapoints of q(z | x), ``[m]``."""
    layout, done = programs.layout, 0
    count = len(next(iter(latents.values())))
    log_sum = torch.full((count,), -torch.inf, dtype=torch.float64, device=programs.x.device)
    for rows in programs.blocks(512):
        block = rows[: n - done]
        done += len(block)
        for index in torch.arange(count, device=block.device).split(max(1, PAIRS_AT_ONCE // len(block))):
            shared = {
                name: layout.rows_back(values[index, None].expand(-1, len(block), *values.shape[1:]))
                for name, values in latents.items()
            }
            density = terms_at(no_sites, programs.guide, block, shared, len(index), layout).log_posterior
            log_sum[index] = torch.logaddexp(log_sum[index], density.double().logsumexp(1))
        if done == n:
            break
    return log_sum - math.log(n)

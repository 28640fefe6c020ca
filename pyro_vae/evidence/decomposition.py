"""What the ELBO consists of, and whether the latents carry anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.evidence.blocks import choose_chunk_size, split_rows
from pyro_vae.evidence.progress import Progress, bar
from pyro_vae.weights import Layout, Program, find_layout, no_sites, terms, terms_at

__all__ = ["ElboDecomposition", "decompose_elbo"]

ACTIVE = 0.01  # Burda et al. 2015, section 5.2
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
        chunk_size: The number of (particle, datapoint) pairs to compute at once; by default what suits the device.
        progress: Wraps the sequence of blocks of datapoints, as ``rich.progress.track`` does; ``iter`` for silence.

    Raises:
        TypeError: If x is not a tensor, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, or their sites do
            not match.
    """
    check_count("num_particles", num_particles, least=2)
    check_count("num_marginal", num_marginal, least=2)
    layout = find_layout(model, guide, check_rows(x))
    chunk_size = choose_chunk_size(model, guide, x, layout, chunk_size)
    n = len(x)
    chosen = torch.randperm(n, device=x.device)[:num_marginal].sort().values
    columns: dict[str, list[Tensor]] = {"log_likelihood": [], "rate": []}
    moments: dict[str, list[tuple[Tensor, Tensor]]] = {}
    drawn: dict[str, list[Tensor]] = {}
    own_posterior, own_prior, first = [], [], 0
    with pyro.validation_enabled(False):
        for block in progress(split_rows(model, guide, x, layout, max(1, chunk_size // num_particles))):
            at = terms(model, guide, block, num_particles, layout)
            columns["log_likelihood"].append(at.log_likelihood.double())
            columns["rate"].append((at.log_posterior - at.log_prior).double())
            mine = chosen[(chosen >= first) & (chosen < first + len(block))] - first
            own_posterior.append(at.log_posterior[0, mine].double())
            own_prior.append(at.log_prior[0, mine].double())
            for name, value in at.latents.items():
                values = layout.rows_second(value)
                moments.setdefault(name, []).append((values.double().mean(0), values.double().var(0)))
                drawn.setdefault(name, []).append(values[0, mine])
            first += len(block)
        latents = {name: torch.cat(parts) for name, parts in drawn.items()}
        log_marginal = _log_marginal(guide, x, latents, layout)
    log_likelihood, rate = (torch.cat(parts, dim=1) for parts in columns.values())
    information, marginal = torch.cat(own_posterior) - log_marginal, log_marginal - torch.cat(own_prior)
    # Their sum is the rate. The one that varies less is estimated, and the other is what remains of the rate.
    error = math.sqrt(min(information.var().item(), marginal.var().item()) / len(marginal))
    if information.var() <= marginal.var():
        mutual_information = information.mean().item()
    else:
        mutual_information = rate.mean().item() - marginal.mean().item()
        error = math.hypot(error, _std_error(rate))
    return ElboDecomposition(
        reconstruction=log_likelihood.mean().item(),
        rate=rate.mean().item(),
        mutual_information=mutual_information,
        reconstruction_std_error=_std_error(log_likelihood),
        rate_std_error=_std_error(rate),
        mutual_information_std_error=error,
        activity={name: _variance_of_mean(parts, num_particles) for name, parts in moments.items()},
        num_datapoints=n,
    )


def _mostly_off(active: Tensor) -> bool:
    return bool(active.double().mean() < 0.5)


def _std_error(values: Tensor) -> float:
    """Of the mean of values ``[particles, n]``, for these datapoints."""
    return (values.var(0) / values.shape[0]).sum().sqrt().item() / values.shape[1]


def _variance_of_mean(moments: list[tuple[Tensor, Tensor]], num_particles: int) -> Tensor:
    """The variance over datapoints of the mean of q, without what the finite number of particles adds to it."""
    means, variances = (torch.cat(parts) for parts in zip(*moments, strict=True))
    between = means.var(0) if len(means) > 1 else torch.zeros_like(means[0])
    return (between - variances.mean(0) / num_particles).clamp_min(0).cpu()


def _log_marginal(guide: Program, x: Tensor, latents: dict[str, Tensor], layout: Layout) -> Tensor:
    """log q(z) of latents ``[m, ...]``: the log of the mean over all datapoints of q(z given x), ``[m]``."""
    count = len(next(iter(latents.values())))
    blocks = split_rows(no_sites, guide, x, layout, 512)
    log_sum = torch.full((count,), -torch.inf, dtype=torch.float64, device=x.device)
    for block in blocks:
        for index in torch.arange(count, device=x.device).split(max(1, PAIRS_AT_ONCE // len(block))):
            shared = {
                name: layout.rows_back(values[index, None].expand(-1, len(block), *values.shape[1:]))
                for name, values in latents.items()
            }
            density = terms_at(no_sites, guide, block, shared, len(index), layout).log_posterior
            log_sum[index] = torch.logaddexp(log_sum[index], density.double().logsumexp(1))
    return log_sum - math.log(len(x))

"""Densities of q(z), the mean of q(z | x) over all data, estimated from a sample of the data."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.distributions.bijections import is_unbounded
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.infer.losses.latent_sites import is_factorized
from pyro_vae.weights import Layout, Program, sample_sites, terms_of, trace_of

PAIRS_AT_ONCE = 2**16  # densities of one latent under q of another datapoint, which need no likelihood
ROWS = 512
ENOUGH = 4  # draws for each dimension of a covariance


class AggregateDensities(NamedTuple):
    """Log-densities in nats of m draws, each from q(z | x) of its own datapoint.

    Attributes:
        own: log q(z | x) of the draw's own datapoint, ``[m]``.
        everyone: The log of the mean of q(z | x) over all datapoints, ``[m]``.
        others: The same without the draw's own datapoint, ``[m]``; minus infinity if there are no others.
        normal: That of a normal with the mean and covariance of draws of other datapoints, ``[m]``; None if the latents
            are not real numbers.
        units_everyone: ``everyone`` of each latent unit by itself, ``[m, units]``, if there is one site whose units are
            independent given x; else None.
        units_others: ``others`` of each latent unit by itself, likewise.
    """

    own: Tensor
    everyone: Tensor
    others: Tensor
    normal: Tensor | None
    units_everyone: Tensor | None
    units_others: Tensor | None


def aggregate_densities(
    programs: Programs, draws: dict[str, Tensor], index: Tensor, more: Programs | None = None
) -> AggregateDensities:
    """Log-densities of some draws under the mean of q(z | x) over the first n datapoints, and further ones.

    Args:
        programs: The guide, and the data.
        draws: One draw for each of the first n datapoints, by site, ``[n, ...]``.
        index: The draws to compute the densities of, ``[m]``, ascending.
        more: The guide with further datapoints.
    """
    n, device = len(next(iter(draws.values()))), programs.x.device
    at = index.to(device)
    latents = {name: values.to(device)[at] for name, values in draws.items()}
    sums: list[_LogSum] = []
    real = False
    for source in [programs] if more is None else [programs, more]:
        left = n if source is programs else len(source.x)
        for rows in source.blocks(ROWS):
            block = rows[:left]
            for some in torch.arange(len(index), device=device).split(max(1, PAIRS_AT_ONCE // len(block))):
                densities, real = _densities(source.guide, block, latents, some, source.layout)
                sums = sums or [_LogSum(len(index), each) for each in densities]
                for total, each in zip(sums, densities, strict=True):
                    total.add(some, each, at[some] - (n - left) if source is programs else None)
            left -= len(block)
            if left == 0:
                break
    count = n + (0 if more is None else len(more.x))
    joint, *units = sums
    return AggregateDensities(
        own=joint.own.cpu(),
        everyone=joint.mean_of_everyone(count),
        others=joint.mean_of_others(count),
        normal=_log_normal(draws, index) if real else None,
        units_everyone=units[0].mean_of_everyone(count) if units else None,
        units_others=units[0].mean_of_others(count) if units else None,
    )


class _LogSum:
    """The log of a sum of densities over datapoints, without that of the draw's own datapoint, which is separate.

    If the latter is most of the sum, subtracting it would leave only rounding errors.
    """

    def __init__(self, m: int, densities: Tensor) -> None:
        shape = (m, *densities.shape[2:])
        self.own = torch.full(shape, -torch.inf, dtype=torch.float64, device=densities.device)
        self.rest = self.own.clone()

    def add(self, some: Tensor, densities: Tensor, row: Tensor | None) -> None:
        """Adds log-densities ``[some, rows, ...]``; ``row`` is that of each draw's own datapoint, if it is in them."""
        densities = densities.double().clone()
        if row is not None:
            here = ((row >= 0) & (row < densities.shape[1])).nonzero()[:, 0]
            self.own[some[here]] = densities[here, row[here]]
            densities[here, row[here]] = -torch.inf
        self.rest[some] = torch.logaddexp(self.rest[some], densities.logsumexp(1))

    def mean_of_everyone(self, count: int) -> Tensor:
        return torch.logaddexp(self.rest, self.own).cpu() - math.log(count)

    def mean_of_others(self, count: int) -> Tensor:
        return self.rest.cpu() - math.log(max(1, count - 1))


def _densities(
    guide: Program, block: Tensor, latents: dict[str, Tensor], some: Tensor, layout: Layout
) -> tuple[list[Tensor], bool]:
    """log q(z | x) of some draws for each datapoint, ``[some, rows]``, and whether all latents are real numbers.

    If there is one site with independent units, also the log-density of each, ``[some, rows, units]``.
    """
    given = {
        name: layout.by_site(values[some, None].expand(-1, len(block), *values.shape[1:]))
        for name, values in latents.items()
    }
    trace = trace_of(guide, block, len(some), layout, given)
    densities = [terms_of(Trace(), trace, layout).log_posterior.expand(len(some), len(block))]
    sites = [site for _, site in sample_sites(trace)]
    q, z = sites[0]["fn"], sites[0]["value"]
    if len(sites) == 1 and is_factorized(q) and sites[0]["mask"] is None and z.ndim == 3:
        densities.append(q.base_dist.log_prob(z).expand(len(some), len(block), -1))
    return densities, all(is_unbounded(site["fn"]) for site in sites)


def _log_normal(draws: dict[str, Tensor], index: Tensor) -> Tensor:
    """Log-densities of draws under a normal that is fitted to the other half of the draws, ``[m]``."""
    z = torch.cat([values.double().reshape(len(values), -1) for values in draws.values()], dim=1)
    half = torch.arange(len(z)) % 2
    log_density = torch.full((len(index),), -torch.inf, dtype=torch.float64)
    for side in (0, 1):
        fitted, wanted = z[half != side], half[index] == side
        if len(fitted) < 2:
            continue
        center = fitted.mean(0)
        factor = fitted.std(0).diag()
        if len(fitted) >= ENOUGH * z.shape[1]:
            full, failed = torch.linalg.cholesky_ex(fitted.T.cov().reshape(len(center), -1))
            factor = factor if failed else full
        standard = torch.linalg.solve_triangular(factor, (z[index[wanted]] - center).T, upper=False)
        log_density[wanted] = (
            -(standard.square().sum(0) + len(center) * math.log(2 * math.pi)) / 2 - factor.diagonal().log().sum()
        )
    return log_density.nan_to_num(nan=-torch.inf, posinf=-torch.inf)

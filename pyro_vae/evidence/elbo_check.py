"""The evidence lower bound by four ways that must agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pyro_vae.checks import check_count, check_rows
from pyro_vae.distributions.independent import split_independent
from pyro_vae.evidence.blocks import choose_chunk_size, split_rows
from pyro_vae.evidence.progress import Progress, bar
from pyro_vae.evidence.unscaled import Unscaled
from pyro_vae.randomness import generators_kept, reseed
from pyro_vae.weights import Layout, Program, find_layout, sample_sites, sum_out, terms_of, vectorized_trace_pair

__all__ = ["ElboCheck", "Estimate", "check_elbo"]

# Two-sided tail probability of a normal beyond this: 6e-5, the false-alarm rate of the statistical comparison.
MAX_STANDARD_ERRORS = 4


class Estimate(NamedTuple):
    """An estimate of the ELBO, the mean over the datapoints in nats, and its Monte Carlo standard error."""

    value: float
    std_error: float


@dataclass(frozen=True)
class ElboCheck:
    """The ELBO by four ways, on the same noise.

    Attributes:
        trace: Pyro's ``Trace_ELBO``: log p(x, z) - log q(z given x) at sampled z.
        log_weights: The mean log-weight: the same terms, computed by ``pyro_vae.weights``.
        mean_field: Pyro's ``TraceMeanField_ELBO``: analytic KL where torch knows one, else as ``trace``.
        analytic: log p(x given z) at sampled z, minus the KL divergence in closed form: computed here for independent
            normals, else torch's or Pyro's; None where there is none for some site.
        disagreements: A sentence for each pair that does not agree; empty if all is well.
        mean_field_valid: Whether ``TraceMeanField_ELBO`` estimates the same bound as the log-weights. It does not where
            a site's parents in the model are its descendants in the guide, as in some hierarchies: its analytic KL
            divergences, each given sampled parents, then do not add up to that of all latents.
    """

    trace: Estimate
    log_weights: Estimate
    mean_field: Estimate
    analytic: Estimate | None
    disagreements: tuple[str, ...]
    mean_field_valid: bool = True

    @property
    def agree(self) -> bool:
        """Whether all estimates agree: to rounding where they have the same terms, else within standard errors."""
        return not self.disagreements

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The estimates that there are, by name."""
        rows = {
            "Pyro Trace_ELBO": self.trace,
            "mean log-weight": self.log_weights,
            "Pyro TraceMeanField_ELBO": self.mean_field,
            "analytic KL": self.analytic,
        }
        return {name: row for name, row in rows.items() if row is not None}

    @property
    def verdict(self) -> str:
        """Whether they agree, in words."""
        lines = list(self.disagreements) or ["All estimates of the ELBO agree."]
        if not self.mean_field_valid:
            lines.append(
                "Pyro's TraceMeanField_ELBO is not valid for these programs, as where a site's parents in the\n"
                "model are its descendants in the guide: it is no bound on log p(x). Use Trace_ELBO."
            )
        return "\n".join(lines)

    def summary(self) -> str:
        """The numbers and the verdict."""
        lines = [f"{name:<26}{value:.4f} +- {error:.4f}" for name, (value, error) in self.estimates.items()]
        return "\n".join([*lines, self.verdict])

    def __str__(self) -> str:
        return self.summary()


@torch.no_grad()
def check_elbo(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_particles: int = 16,
    chunk_size: int | None = None,
    progress: Progress = bar,
) -> ElboCheck:
    """Computes the ELBO in four ways on the same noise and says whether they agree.

    ``Trace_ELBO`` and the mean log-weight have the same terms, as have ``TraceMeanField_ELBO`` and the analytic ELBO:
    each pair must agree to rounding. The pairs differ by a sampled against an analytic KL divergence, whose mean
    difference must be zero within 4 standard errors (of the paired difference; false alarms: 6e-5). Scales, as of
    ``poutine.scale`` or a subsampled plate, are left out: they weigh a loss, and are no part of p or q.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``.
        num_particles: Particles for each datapoint, at least 2 (for the standard error).
        chunk_size: The number of (particle, datapoint) pairs to compute at once; by default what suits the device. All
            particles of one datapoint are computed at once in any case.
        progress: Wraps the sequence of blocks of datapoints, as ``rich.progress.track`` does.

    Raises:
        TypeError: If x is not a tensor, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, or their sites do
            not match.
    """
    check_count("num_particles", num_particles, least=2)
    layout = find_layout(model, guide, check_rows(x))
    chunk_size = choose_chunk_size(model, guide, x, layout, chunk_size)
    options = {"vectorize_particles": True, "max_plate_nesting": -layout.particle_dim - 1}
    trace, mean_field = (elbo(num_particles, **options) for elbo in (Trace_ELBO, TraceMeanField_ELBO))
    trace_total, mean_field_total = 0.0, 0.0
    sampled, analytic, difference = _Mean(), _Mean(), _Mean()
    model, guide = Unscaled()(model), Unscaled()(guide)
    with pyro.validation_enabled(False):
        for block in progress(split_rows(model, guide, x, layout, max(1, chunk_size // num_particles))):
            seed = int(torch.randint(2**63 - 1, ()))
            with generators_kept(x.device):
                reseed(seed, x.device)
                trace_total -= trace.loss(model, guide, block)
                reseed(seed, x.device)
                mean_field_total -= mean_field.loss(model, guide, block)
                reseed(seed, x.device)
                traces = vectorized_trace_pair(model, guide, block, num_particles, layout)
            terms, kl = terms_of(*traces, layout), _analytic_kl(*traces, layout)
            sampled.update(terms.log_weights)
            if kl is not None:
                analytic.update(terms.log_likelihood - kl)
                difference.update(terms.log_prior - terms.log_posterior + kl)
    n = len(x)
    has_analytic = analytic.count == n
    return _verdict(
        # Pyro gives one number without an error: it is that of the estimate with the same terms.
        trace=Estimate(trace_total / n, sampled.estimate.std_error),
        log_weights=sampled.estimate,
        mean_field=Estimate(mean_field_total / n, (analytic if has_analytic else sampled).estimate.std_error),
        analytic=analytic.estimate if has_analytic else None,
        difference=difference.estimate if has_analytic else None,
        precision=torch.finfo(terms.log_weights.dtype).eps,
    )


def _verdict(
    trace: Estimate,
    log_weights: Estimate,
    mean_field: Estimate,
    analytic: Estimate | None,
    difference: Estimate | None,
    precision: float,
) -> ElboCheck:
    names = {  # by identity, since two estimates may be equal
        id(trace): "Pyro's Trace_ELBO",
        id(log_weights): "the mean log-weight",
        id(mean_field): "Pyro's TraceMeanField_ELBO",
        id(analytic): "the analytic-KL ELBO",
    }
    pairs = [(trace, log_weights, 0.0)]
    if analytic is None or difference is None:
        # How much Pyro's own KL differs is not known here: at most about as much as two estimates would.
        pairs.append((mean_field, log_weights, math.hypot(mean_field.std_error, log_weights.std_error)))
    else:
        pairs += [(mean_field, analytic, 0.0), (log_weights, analytic, difference.std_error)]
    # Two sums of the same float terms, in different orders.
    rounding = 16 * precision * max(1.0, abs(log_weights.value))
    differing = [
        (a, b, allowed)
        for a, b, std_error in pairs
        if a.value != b.value and not abs(a.value - b.value) <= (allowed := MAX_STANDARD_ERRORS * std_error + rounding)
    ]
    disagreements = tuple(
        f"DISAGREEMENT: {names[id(a)]} is {a.value:.6f}, {names[id(b)]} is {b.value:.6f}; "
        f"expected a difference of at most {allowed:.2g}"
        for a, b, allowed in differing
    )
    # What has the same terms agrees, and yet the analytic KL is not the sampled one.
    sampled_against_analytic = pairs[-1][:2]
    mean_field_valid = [pair[:2] for pair in differing] != [sampled_against_analytic]
    return ElboCheck(trace, log_weights, mean_field, analytic, disagreements, mean_field_valid)


class _Mean:
    """The mean over particles and datapoints, and the standard error that the particles give it."""

    def __init__(self) -> None:
        self.total, self.variance, self.count = 0.0, 0.0, 0

    def update(self, values: Tensor) -> None:
        """Takes in values ``[particles, n]``."""
        values = values.double()
        self.total += values.mean(0).sum().item()
        self.variance += (values.var(0) / values.shape[0]).sum().item()
        self.count += values.shape[1]

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.total / self.count, math.sqrt(self.variance) / self.count)


def _analytic_kl(model_trace: Trace, guide_trace: Trace, layout: Layout) -> Tensor | None:
    """The sum over latent sites of KL(q || p), ``[particles, n]``; None unless it is known for every site."""
    total = torch.zeros(())
    for name, site in sample_sites(guide_trace):
        kl = _kl(site["fn"], model_trace.nodes[name]["fn"]) if name in model_trace.nodes else None
        if kl is None:
            return None
        total = total + sum_out(scale_and_mask(kl, mask=site["mask"]), layout, name)
    return total


def _kl(guide_fn: Any, model_fn: Any) -> Tensor | None:
    """KL(q || p) in closed form, ``[*batch]``, or None."""
    q, p = _as_normal(guide_fn), _as_normal(model_fn)
    if q is None or p is None:
        try:
            return torch.as_tensor(kl_divergence(guide_fn, model_fn)).expand(guide_fn.batch_shape)
        except NotImplementedError:
            return None
    # Kingma & Welling 2013, appendix B, for a normal prior of any location and scale.
    ratio, shift = (q.scale / p.scale).square(), ((q.loc - p.loc) / p.scale).square()
    kl = 0.5 * (ratio + shift - 1 - ratio.log())
    return kl.sum(tuple(range(-q.event_dims, 0))) if q.event_dims else kl


class _Normal(NamedTuple):
    loc: Tensor
    scale: Tensor
    event_dims: int


def _as_normal(distribution: Any) -> _Normal | None:
    """The normal that a distribution consists of, or None."""
    each, event_dims = split_independent(distribution)
    return _Normal(each.loc, each.scale, event_dims) if isinstance(each, Normal) else None

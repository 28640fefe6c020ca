"""The evidence lower bound by four ways that must agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pyro_vae.checks import check_count
from pyro_vae.distributions.independent import split_independent
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.runner.unscaled import Unscaled
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import by_row
from pyro_vae.system.progress import Progress
from pyro_vae.system.randomness import reseed
from pyro_vae.weights import Layout, Program, sample_sites, site_log_prob, sum_out, terms_of, vectorized_trace_pair

__all__ = ["ElboCheck", "ElboEstimate", "check_elbo"]

# Two-sided tail probability of a normal beyond this: 6e-5. Sampled KL divergences of few dimensions are skewed: for
# those of one dimension false alarms are 3 in 10^3 with 100 samples, and 2 in 10^4 with 1000.
MAX_STANDARD_ERRORS = 4
SEEN_STANDARD_ERRORS = 6  # a difference of so many is more than 4 of them in 98 of 100 samples
LEAST_SAMPLES = 100  # pairs of a particle and a datapoint; with fewer, 4 standard errors are no rare event
ENOUGH_SAMPLES, FEWEST_PARTICLES = 2000, 16


class ElboEstimate(NamedTuple):
    """An estimate of the ELBO, the mean over the datapoints in nats, and its Monte Carlo standard error."""

    value: float
    std_error: float


@dataclass(frozen=True)
class ElboCheck:
    """The ELBO by four ways, on the same noise.

    Attributes:
        trace: Pyro's ``Trace_ELBO``: log p(x, z) - log q(z | x) at sampled z.
        log_weights: The mean log-weight: the same terms, computed by ``pyro_vae.weights``.
        mean_field: Pyro's ``TraceMeanField_ELBO``: analytic KL where torch knows one, else as ``trace``.
        analytic: log p(x | z) at sampled z, minus the KL divergence in closed form: computed here for independent
            normals, else torch's or Pyro's; None where there is none for some site.
        disagreements: A sentence for each pair that does not agree; empty if all is well.
        mean_field_valid: Whether ``TraceMeanField_ELBO`` estimates the same bound as the log-weights. It does not where
            a site's parents in the model are its descendants in the guide, as in some hierarchies: its analytic KL
            divergences, each given sampled parents, then do not add up to that of all latents.
        num_samples: The number of pairs of a particle and a datapoint.
        seen: The differences that would have been noticed, in nats: between estimates with the same terms, and (98
            times of 100) between a sampled and an analytic KL divergence. Infinite where so few samples cannot tell.
    """

    trace: ElboEstimate
    log_weights: ElboEstimate
    mean_field: ElboEstimate
    analytic: ElboEstimate | None
    disagreements: tuple[str, ...]
    mean_field_valid: bool = True
    num_samples: int = 0
    seen: tuple[float, float] = (math.inf, math.inf)

    @property
    def agree(self) -> bool:
        """Whether all estimates agree: to rounding where they have the same terms, else within standard errors."""
        return not self.disagreements

    @property
    def estimates(self) -> dict[str, ElboEstimate]:
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
        lines = list(self.disagreements) or ["All estimates of the ELBO agree.", *self._what_was_seen()]
        if not self.mean_field_valid:
            lines.append(
                "Pyro's TraceMeanField_ELBO is not valid for these programs, as where a site's parents in the\n"
                "model are its descendants in the guide: it is no bound on log p(x). Use Trace_ELBO."
            )
        return "\n".join(lines)

    def _what_was_seen(self) -> list[str]:
        rounding, sampling = self.seen
        lines = [
            f"{self.num_samples} samples would have shown a difference of {rounding:.1g} nats where terms are the same"
        ]
        if math.isinf(sampling):
            few = f"take {LEAST_SAMPLES} (particles times datapoints)"
            lines.append(f"and are too few to compare a sampled with an analytic KL divergence: {few}")
        elif sampling != rounding:
            lines.append(f"and one of {sampling:.2g} between a sampled and an analytic KL divergence (98 times of 100)")
        return [",\n".join(lines) + "."]

    def summary(self) -> str:
        """The numbers and the verdict."""
        lines = [f"{name:<26}{value:.4f} +- {error:.4f}" for name, (value, error) in self.estimates.items()]
        return "\n".join([*lines, self.verdict])

    def __str__(self) -> str:
        return self.summary()


@evidence_function
@torch.no_grad()
def check_elbo(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_particles: int | None = None,
    chunk_size: int | None = None,
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> ElboCheck:
    """Computes the ELBO in four ways on the same noise and says whether they agree.

    ``Trace_ELBO`` and the mean log-weight have the same terms, as have ``TraceMeanField_ELBO`` and the analytic ELBO:
    each pair must agree to rounding, of these terms and not of their sum, which may be near zero. The pairs differ by a
    sampled against an analytic KL divergence, whose mean difference must be zero within 4 standard errors (of the
    paired difference; false alarms: 6e-5 where it is normal, and with 1000 samples at most 1 in 1000). ``seen`` says
    how small a difference would have been noticed. With fewer than 100 samples, particles times datapoints, that
    comparison is not made, and the summary says so. Scales, as of ``poutine.scale`` or a subsampled plate, are left
    out: they weigh a loss, and are no part of p or q. All particles of one datapoint are computed at once, whatever the
    chunk size.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``; or, for programs of more than x, a tuple of tensors, each ``[n, ...]``; or a
            ``Dataset`` or ``DataLoader`` of what they take, which is loaded into memory, in the order of the data set.
        num_particles: Particles for each datapoint, at least 2 (for the standard error). By default 16, or as many more
            as it takes for 2000 samples in all.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Whether to show a progress bar; or a function that wraps the blocks, as ``tqdm.tqdm`` does.
        keep: A file for what is done. If it is there, the call goes on from it, to the same numbers as if it had not
            been stopped. At most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, or the file is of another run.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    if num_particles is not None:
        check_count("num_particles", num_particles, least=2)
    model, guide, x = by_row(model, guide, x)
    programs = Programs(Unscaled()(model), Unscaled()(guide), x, chunk_size)
    if num_particles is None:
        num_particles = max(FEWEST_PARTICLES, math.ceil(ENOUGH_SAMPLES / len(x)))
    options = {"vectorize_particles": True, "max_plate_nesting": -programs.layout.particle_dim - 1}
    trace, mean_field = (elbo(num_particles, **options) for elbo in (Trace_ELBO, TraceMeanField_ELBO))

    def check(block: Tensor, first: int) -> dict[str, Tensor]:  # noqa: ARG001
        model, guide, layout = programs.model, programs.guide, programs.layout
        seed = int(torch.randint(2**63 - 1, ()))
        columns = {}
        for name, elbo in (("trace", trace), ("mean_field", mean_field)):
            reseed(seed, block.device)
            # One number for the whole block, which stands for it in the row of its first datapoint.
            columns[name] = torch.zeros(len(block), dtype=torch.float64)
            columns[name][0] = -elbo.loss(model, guide, block)
        reseed(seed, block.device)
        traces = vectorized_trace_pair(model, guide, block, num_particles, layout)
        terms, kl = terms_of(*traces, layout), _mean_field_kl(*traces, layout)
        ways = {
            "log_weights": terms.log_weights,
            "closed": terms.log_likelihood - kl.total,
            # Without the likelihood, which may be so large that the rest is lost in its rounding.
            "difference": terms.log_prior - terms.log_posterior + kl.total,
        }
        columns["analytic"] = torch.full((len(block),), kl.is_analytic)
        sizes = _sizes(*traces, layout)
        columns |= {name: size.double().expand(num_particles, len(block)).mean(0) for name, size in sizes.items()}
        for name, values in ways.items():
            columns[name] = values.double().mean(0)
            columns[f"{name}_variance"] = values.double().var(0) / num_particles
        return columns

    return programs.run(
        check,
        partial(_check_of, torch.finfo(programs.dtype).eps, num_particles),
        rows=max(1, programs.chunk_size // num_particles),
        settings={"function": "check_elbo", "num_particles": num_particles},
        progress=progress,
        keep=keep,
        processes=processes,
    )


def _check_of(precision: float, num_particles: int, columns: dict[str, Tensor]) -> ElboCheck:
    """The result for the first datapoints, from what was computed of each."""
    n = len(columns["log_weights"])

    def estimate(name: str, error_of: str) -> ElboEstimate:
        return ElboEstimate(columns[name].sum().item() / n, columns[f"{error_of}_variance"].sum().sqrt().item() / n)

    return _verdict(
        # Pyro gives one number without an error: it is that of the estimate with the same terms.
        trace=estimate("trace", "log_weights"),
        log_weights=estimate("log_weights", "log_weights"),
        mean_field=estimate("mean_field", "closed"),
        closed=estimate("closed", "closed"),
        is_analytic=bool(columns["analytic"].all()),
        difference=estimate("difference", "difference"),
        # Of two sums of the same float terms, in different orders.
        rounding=16 * precision * (1 + columns["size"].mean().item()),
        rounding_of_latents=16 * precision * (1 + columns["size_of_latents"].mean().item()),
        num_samples=n * num_particles,
    )


def _verdict(
    trace: ElboEstimate,
    log_weights: ElboEstimate,
    mean_field: ElboEstimate,
    closed: ElboEstimate,
    is_analytic: bool,
    difference: ElboEstimate,
    rounding: float,
    rounding_of_latents: float,
    num_samples: int,
) -> ElboCheck:
    sampled = "the mean log-weight"
    known = "the analytic-KL ELBO" if is_analytic else "the ELBO with the KL divergences that have a closed form"
    enough = num_samples >= LEAST_SAMPLES or difference.std_error == 0
    noise = difference.std_error if enough else math.inf
    trace_name, mean_field_name = "Pyro's Trace_ELBO", "Pyro's TraceMeanField_ELBO"
    pairs = [
        (trace, trace_name, log_weights, sampled, trace.value - log_weights.value, rounding),
        (mean_field, mean_field_name, closed, known, mean_field.value - closed.value, rounding),
        (log_weights, sampled, closed, known, difference.value, rounding_of_latents + MAX_STANDARD_ERRORS * noise),
    ]
    # Infinities agree with themselves only.
    differing = [
        (a, name, b, other, off, allowed)
        for a, name, b, other, off, allowed in pairs
        if a.value != b.value and not (math.isfinite(off) and abs(off) <= allowed)
    ]
    disagreements = tuple(
        f"DISAGREEMENT: {name} is {a.value:.6f}, {other} is {b.value:.6f}: a difference of {abs(off):.2g}; "
        f"expected one of at most {allowed:.2g}"
        for a, name, b, other, off, allowed in differing
    )
    return ElboCheck(
        trace,
        log_weights,
        mean_field,
        closed if is_analytic else None,
        disagreements,
        # What has the same terms agrees, and yet the analytic KL is not the sampled one.
        mean_field_valid=differing != pairs[-1:],
        num_samples=num_samples,
        seen=(rounding, rounding_of_latents + SEEN_STANDARD_ERRORS * noise if noise > 0 else rounding),
    )


def _sizes(model_trace: Trace, guide_trace: Trace, layout: Layout) -> dict[str, Tensor]:
    """The sums of the magnitudes of the terms, all and those of latents, ``[particles, n]``: what rounding goes by."""
    sizes = {"size": torch.zeros(()), "size_of_latents": torch.zeros(())}
    for trace in (model_trace, guide_trace):
        for name, site in sample_sites(trace):
            magnitude = sum_out(site_log_prob(site).abs(), layout, name)
            for kind in ("size",) if site["is_observed"] else sizes:
                sizes[kind] = sizes[kind] + magnitude
    return sizes


class _KL(NamedTuple):
    total: Tensor  #: The KL divergence of all latents, ``[particles, n]``.
    is_analytic: bool  #: Whether it is known in closed form for every site, rather than sampled.


def _mean_field_kl(model_trace: Trace, guide_trace: Trace, layout: Layout) -> _KL:
    """The sum of KL(q || p) over sites, sampled where it is not known: what ``TraceMeanField_ELBO`` subtracts."""
    total, is_analytic = torch.zeros(()), True
    for name, site in sample_sites(guide_trace):
        other = model_trace.nodes.get(name)
        kl = None if other is None else _kl(site["fn"], other["fn"])
        if kl is not None:
            parts = [scale_and_mask(kl, mask=site["mask"])]
        else:
            is_analytic = False
            # Pyro leaves out log q where a site is not reparameterized.
            scored = site["fn"].score_parts(site["value"], *site["args"], **site["kwargs"])
            parts = [scored.scale_and_mask(mask=site["mask"]).entropy_term]
            parts += [] if other is None else [-site_log_prob(other)]
        for part in parts:
            total = total + (sum_out(part, layout, name) if isinstance(part, Tensor) else part)
    return _KL(total, is_analytic)


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

"""The evidence lower bound computed in four ways that must agree."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.diagnostics.elbo_check.closed_form_kl import mean_field_kl
from pyro_vae.evidence.diagnostics.elbo_check.result import LEAST_SAMPLES, ElboCheck, ElboEstimate
from pyro_vae.evidence.diagnostics.tolerance import MAX_STANDARD_ERRORS
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.runner.unscaled import Unscaled
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import by_row
from pyro_vae.system.progress import Progress
from pyro_vae.system.randomness import reseed
from pyro_vae.weights import Layout, Program, sample_sites, site_log_prob, sum_out, terms_of, vectorized_trace_pair

# Sampled KL divergences of few dimensions are skewed. With one dimension, false alarms of 4 standard errors are 3 in
# 10^3 with 100 samples, and 2 in 10^4 with 1000.
SEEN_STANDARD_ERRORS = 6  # a difference of so many is more than 4 of them in 98 of 100 samples
ENOUGH_SAMPLES, FEWEST_PARTICLES = 2000, 16


@evidence_function
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
    """Computes the ELBO in four ways on the same noise and reports whether they agree.

    ``Trace_ELBO`` and the mean log-weight have the same terms, as have ``TraceMeanField_ELBO`` and the analytic ELBO.
    Each pair must agree to rounding, relative to these terms and not to their sum, which may be near zero. The pairs
    differ by a sampled or an analytic KL divergence. The mean of this difference must be zero within 4 of its standard
    errors (paired; false alarms: 6e-5 if it is normal, and with 1000 samples at most 1 in 1000). ``seen`` is how small
    a difference would have been noticed. With fewer than 100 samples, particles times datapoints, this comparison is
    not made, and the summary says so.

    Scales, as of ``poutine.scale`` or a subsampled plate, are left out: they weigh a loss, and are no part of p or q.
    All particles of a datapoint are computed at once, whatever the chunk size.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, as for :func:`~pyro_vae.evidence.estimate`.
        num_particles: Particles for each datapoint, at least 2 (for the standard error). By default 16, or as many more
            as it takes for 2000 samples in all.
        chunk_size, progress, keep, processes: As for :func:`~pyro_vae.evidence.estimate`.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, or the file is of another run.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.

    Example:
        >>> evidence.check_elbo(vae.model, vae.guide, x, progress=False).passed
        True
    """
    if num_particles is not None:
        check_count("num_particles", num_particles, least=2)
    model, guide, x = by_row(model, guide, x)
    programs = Programs(Unscaled()(model), Unscaled()(guide), x, chunk_size, progress, keep, processes)
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
        terms, kl = terms_of(*traces, layout), mean_field_kl(*traces, layout)
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
    )


def _check_of(precision: float, num_particles: int, columns: dict[str, Tensor]) -> ElboCheck:
    """The result for the first datapoints, from the columns of each."""
    n = len(columns["log_weights"])

    def estimate(name: str, error_of: str) -> ElboEstimate:
        return ElboEstimate(columns[name].sum().item() / n, columns[f"{error_of}_variance"].sum().sqrt().item() / n)

    # Pyro returns one number without an error, which is that of the estimate with the same terms.
    trace, log_weights = estimate("trace", "log_weights"), estimate("log_weights", "log_weights")
    mean_field, closed = estimate("mean_field", "closed"), estimate("closed", "closed")
    difference, num_samples = estimate("difference", "difference"), n * num_particles
    # Two sums of the same float terms, in different orders.
    rounding, rounding_of_latents = (
        16 * precision * (1 + columns[size].mean().item()) for size in ("size", "size_of_latents")
    )
    enough = num_samples >= LEAST_SAMPLES or difference.std_error == 0
    noise = difference.std_error if enough else math.inf

    is_analytic = bool(columns["analytic"].all())
    known = "the analytic-KL ELBO" if is_analytic else "the ELBO with the KL divergences that have a closed form"
    sampled = "the mean log-weight"
    pairs = [
        _Pair("Pyro's Trace_ELBO", trace, sampled, log_weights, trace.value - log_weights.value, rounding),
        _Pair("Pyro's TraceMeanField_ELBO", mean_field, known, closed, mean_field.value - closed.value, rounding),
        _Pair(sampled, log_weights, known, closed, difference.value, rounding_of_latents + MAX_STANDARD_ERRORS * noise),
    ]
    differing = [pair for pair in pairs if not pair.agrees]
    return ElboCheck(
        trace,
        log_weights,
        mean_field,
        closed if is_analytic else None,
        tuple(pair.disagreement for pair in differing),
        # If only the last pair differs, the same terms agree and yet the analytic KL is not the sampled one.
        mean_field_valid=differing != pairs[-1:],
        num_samples=num_samples,
        seen=(rounding, rounding_of_latents + SEEN_STANDARD_ERRORS * noise if noise > 0 else rounding),
    )


class _Pair(NamedTuple):
    """Two estimates that should agree."""

    name: str
    estimate: ElboEstimate
    other_name: str
    other: ElboEstimate
    difference: float
    allowed: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is allowed. Infinities agree with themselves only."""
        within = math.isfinite(self.difference) and abs(self.difference) <= self.allowed
        return within or self.estimate.value == self.other.value

    @property
    def disagreement(self) -> str:
        """The difference, in words."""
        return (
            f"DISAGREEMENT: {self.name} is {self.estimate.value:.6f}, {self.other_name} is {self.other.value:.6f}: "
            f"a difference of {abs(self.difference):.2g}; expected one of at most {self.allowed:.2g}"
        )


def _sizes(model_trace: Trace, guide_trace: Trace, layout: Layout) -> dict[str, Tensor]:
    """The summed magnitudes of all terms and of those of latents, ``[particles, n]``: what rounding is relative to."""
    sizes = {"size": torch.zeros(()), "size_of_latents": torch.zeros(())}
    for trace in (model_trace, guide_trace):
        for name, site in sample_sites(trace):
            magnitude = sum_out(site_log_prob(site).abs(), layout, name)
            for kind in ("size",) if site["is_observed"] else sizes:
                sizes[kind] = sizes[kind] + magnitude
    return sizes

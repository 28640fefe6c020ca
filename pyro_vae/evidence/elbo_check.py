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
from pyro_vae.evidence.runner import Programs, Progress, bar
from pyro_vae.evidence.unscaled import Unscaled
from pyro_vae.inputs import by_row
from pyro_vae.processes import Processes
from pyro_vae.randomness import reseed
from pyro_vae.weights import Layout, Program, sample_sites, sum_out, terms_of, vectorized_trace_pair

__all__ = ["ElboCheck", "ElboEstimate", "check_elbo"]

# Two-sided tail probability of a normal beyond this: 6e-5, the false-alarm rate of the statistical comparison.
MAX_STANDARD_ERRORS = 4


class ElboEstimate(NamedTuple):
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

    trace: ElboEstimate
    log_weights: ElboEstimate
    mean_field: ElboEstimate
    analytic: ElboEstimate | None
    disagreements: tuple[str, ...]
    mean_field_valid: bool = True

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
    x: Any,
    *,
    num_particles: int = 16,
    chunk_size: int | None = None,
    progress: Progress = bar,
    resume: str | Path | None = None,
    processes: Processes | None = None,
) -> ElboCheck:
    """Computes the ELBO in four ways on the same noise and says whether they agree.

    ``Trace_ELBO`` and the mean log-weight have the same terms, as have ``TraceMeanField_ELBO`` and the analytic ELBO:
    each pair must agree to rounding. The pairs differ by a sampled against an analytic KL divergence, whose mean
    difference must be zero within 4 standard errors (of the paired difference; false alarms: 6e-5). Scales, as of
    ``poutine.scale`` or a subsampled plate, are left out: they weigh a loss, and are no part of p or q. All particles
    of one datapoint are computed at once, whatever the chunk size.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``; or, for programs of more than x, a tuple of tensors, each ``[n, ...]``; or a
            ``Dataset`` or ``DataLoader`` of what they take, which is loaded into memory, in the order of the data set.
        num_particles: Particles for each datapoint, at least 2 (for the standard error).
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Wraps the sequence of blocks of datapoints, as ``rich.progress.track`` does; ``iter`` for silence.
        resume: A file to keep what is done in. The same call goes on from it, to the same numbers as if it had not
            been stopped; at most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, or the file is of another run.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    check_count("num_particles", num_particles, least=2)
    model, guide, x = by_row(model, guide, x)
    programs = Programs(Unscaled()(model), Unscaled()(guide), x, chunk_size)
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
        terms, kl = terms_of(*traces, layout), _analytic_kl(*traces, layout)
        ways = {"log_weights": terms.log_weights}
        if kl is not None:
            ways["analytic"] = terms.log_likelihood - kl
            ways["difference"] = terms.log_prior - terms.log_posterior + kl
        for name, values in ways.items():
            columns[name] = values.double().mean(0)
            columns[f"{name}_variance"] = values.double().var(0) / num_particles
        return columns

    return programs.run(
        check,
        partial(_check_of, torch.finfo(programs.dtype).eps),
        rows=max(1, programs.chunk_size // num_particles),
        settings={"function": "check_elbo", "num_particles": num_particles},
        progress=progress,
        resume=resume,
        processes=processes,
    )


def _check_of(precision: float, columns: dict[str, Tensor]) -> ElboCheck:
    """The result for the first datapoints, from what was computed of each."""
    n = len(columns["log_weights"])

    def estimate(name: str, error_of: str) -> ElboEstimate:
        return ElboEstimate(columns[name].sum().item() / n, columns[f"{error_of}_variance"].sum().sqrt().item() / n)

    has_analytic = "analytic" in columns
    return _verdict(
        # Pyro gives one number without an error: it is that of the estimate with the same terms.
        trace=estimate("trace", "log_weights"),
        log_weights=estimate("log_weights", "log_weights"),
        mean_field=estimate("mean_field", "analytic" if has_analytic else "log_weights"),
        analytic=estimate("analytic", "analytic") if has_analytic else None,
        difference=estimate("difference", "difference") if has_analytic else None,
        precision=precision,
    )


def _verdict(
    trace: ElboEstimate,
    log_weights: ElboEstimate,
    mean_field: ElboEstimate,
    analytic: ElboEstimate | None,
    difference: ElboEstimate | None,
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

"""The primitive: log-weights of any model and guide that share a data plate, for each particle and datapoint.

    log w[k, n] = log p(x_n, z_kn) - log q(z_kn | x_n),    z_kn ~ q(z | x_n)

Their mean over k is the ELBO. Their log-mean-exp is the importance-weighted bound (Burda et al. 2015, section 3), which
tends to log p(x_n) with many particles. Everything that this library estimates or trains is a function of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.util import check_site_shape
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.html_table import html_table
from pyro_vae.programs.few_rows import is_large, on_few_rows
from pyro_vae.programs.inputs import by_row
from pyro_vae.system.randomness import generators_kept
from pyro_vae.system.threads import one_thread_at_a_time

__all__ = ["Layout", "Program", "Terms", "find_layout", "log_mean_exp", "log_weights", "terms"]

Program = Callable[..., Any]  #: A Pyro program, a callable with Pyro statements that is called with data.


class Terms(NamedTuple):
    """The three log-densities of the log-weights, in nats, each ``[particles, n]``, and the latents.

    Scales (of ``poutine.scale`` or a subsampled plate) are left out: they weight a loss and are not part of p or q.

    Example:
        >>> layout = weights.find_layout(vae.model, vae.guide, x)
        >>> parts = weights.terms(vae.model, vae.guide, x, num_particles=5, layout=layout)
        >>> parts.log_weights.shape, parts.latents["z"].shape
        (torch.Size([5, 8]), torch.Size([5, 8, 2]))
    """

    log_likelihood: Tensor  #: log p(x | z), from the observed sites of the model.
    log_prior: Tensor  #: log p(z), from the latent sites of the model.
    log_posterior: Tensor  #: log q(z | x), from the sites of the guide.
    latents: dict[str, Tensor]  #: z by site, with all the dimensions of the site in the guide.

    @property
    def log_weights(self) -> Tensor:
        """log p(x, z) - log q(z | x), ``[particles, n]``."""
        return self.log_likelihood + self.log_prior - self.log_posterior

    def summary(self) -> str:
        """The means of the log-densities, in nats."""
        return "\n".join(f"{name}: {words}" for name, words in self._rows.items())

    @property
    def _rows(self) -> dict[str, str]:
        particles, n = self.log_weights.shape
        means = {
            "log p(x | z)": self.log_likelihood,
            "log p(z)": self.log_prior,
            "log q(z | x)": self.log_posterior,
            "log-weight": self.log_weights,
        }
        rows = {f"{name}, mean in nats": f"{values.double().mean().item():.3f}" for name, values in means.items()}
        return {**rows, "particles": f"{particles} of each of {n} datapoints"}

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        particles, n = self.log_weights.shape
        return f"Terms(particles={particles}, n={n}, sites={len(self.latents)})"

    def _repr_html_(self) -> str:
        return html_table(self._rows)


class Layout(NamedTuple):
    """The batch dimensions of datapoints and particles at the sites of two programs.

    Example:
        >>> weights.find_layout(vae.model, vae.guide, x)
        Layout(data_plate='data', data_dim=-1, particle_dim=-2)
    """

    data_plate: str  #: The name of the plate over datapoints.
    data_dim: int  #: Its dimension, negative.
    particle_dim: int  #: The dimension for particles, to the left of all plates.

    def by_datapoint(self, value: Tensor) -> Tensor:
        """Views the value of a site as ``[particles, n, *other_plates, *event]``."""
        return value.movedim(self.data_dim - self.particle_dim, 1)

    def by_site(self, value: Tensor) -> Tensor:
        """The inverse of :meth:`by_datapoint`."""
        return value.movedim(1, self.data_dim - self.particle_dim)


@one_thread_at_a_time
def log_weights(model: Program, guide: Program, x: Any, num_particles: int = 1) -> Tensor:
    """Draws particles from the guide and weighs them: log p(x_n, z_kn) - log q(z_kn | x_n).

    The result is differentiable if the programs are. Each call runs the programs once more to find their layout; to
    avoid this, call :func:`find_layout` once and then :func:`terms`.

    Args:
        model: A Pyro program called as ``model(x)``, with a vectorized ``pyro.plate`` over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites in a plate of the same name.
        x: Data, ``[n, *event]``; or a tuple of tensors ``[n, ...]`` for programs with several arguments; or a
            ``Dataset`` or ``DataLoader`` of these, which is loaded into memory in the order of the data set.
        num_particles: The number of draws for each datapoint, at least 1. They are drawn at once, in an additional
            plate to the left of the programs' plates, over which the programs must broadcast.

    Returns:
        Log-weights in nats, ``[num_particles, n]``.

    Raises:
        TypeError: If x has another type.
        ValueError: If x is empty, the programs share no data plate, a site lies outside of it, or their sites do not
            match.

    Example:
        >>> log_w = weights.log_weights(vae.model, vae.guide, x, num_particles=100)
        >>> elbo, tighter = log_w.mean(0), weights.log_mean_exp(log_w)
        >>> bool((tighter >= elbo).all())
        True
    """
    model, guide, x = by_row(model, guide, x)
    check_rows(x)
    check_count("num_particles", num_particles)
    return terms(model, guide, x, num_particles, find_layout(model, guide, x)).log_weights


def terms(model: Program, guide: Program, x: Tensor, num_particles: int, layout: Layout) -> Terms:
    """The terms of :func:`log_weights`, for programs whose layout is known from :func:`find_layout`.

    Args:
        model: The model.
        guide: The guide.
        x: Data, ``[n, *event]``.
        num_particles: The number of draws for each datapoint.
        layout: The layout of the programs.

    Example:
        >>> layout = weights.find_layout(vae.model, vae.guide, x)
        >>> weights.terms(vae.model, vae.guide, x, 5, layout).log_likelihood.shape
        torch.Size([5, 8])
    """
    return terms_of(*vectorized_trace_pair(model, guide, x, num_particles, layout), layout)


def terms_of(model_trace: Trace, guide_trace: Trace, layout: Layout) -> Terms:
    """The terms of the log-weights, from the traces that :func:`vectorized_trace_pair` returns."""
    log_likelihood = log_prior = log_posterior = torch.zeros(())
    for name, site in sample_sites(model_trace):
        if site["is_observed"]:
            log_likelihood = log_likelihood + sum_out(site_log_prob(site), layout, name)
        else:
            log_prior = log_prior + sum_out(site_log_prob(site), layout, name)
    for name, site in sample_sites(guide_trace):
        log_posterior = log_posterior + sum_out(site_log_prob(site), layout, name)
    latents = {name: site["value"] for name, site in sample_sites(guide_trace)}
    log_likelihood, log_prior, log_posterior = torch.broadcast_tensors(log_likelihood, log_prior, log_posterior)
    return Terms(log_likelihood, log_prior, log_posterior, latents)


def sample_sites(trace: Trace) -> list[tuple[str, Any]]:
    """The names and sites of the sample statements of a trace, including observed ones."""
    return [(name, site) for name, site in trace.nodes.items() if site["type"] == "sample"]


def site_log_prob(site: Any) -> Tensor:
    """The log-density of a site without its scale, in nats, ``[*batch]``."""
    return scale_and_mask(site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"]), mask=site["mask"])


def trace_pair(model: Program, guide: Program, *args: Any, **kwargs: Any) -> tuple[Trace, Trace]:
    """Runs the guide, then the model on the guide's draws.

    Returns:
        The traces of model and guide, without the bookkeeping sites of subsampled plates.
    """
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return poutine.util.prune_subsample_sites(model_trace), poutine.util.prune_subsample_sites(guide_trace)


def vectorized_trace_pair(
    model: Program, guide: Program, x: Tensor, num_particles: int, layout: Layout
) -> tuple[Trace, Trace]:
    """Runs the guide, then the model on the guide's draws, both in a plate of particles.

    The plate has the name and place that it has in Pyro's vectorized ELBOs, so the same seed gives the same draws.
    """
    with _broadcasting_explained(num_particles):
        return trace_pair(vectorized(model, num_particles, layout), vectorized(guide, num_particles, layout), x)


def vectorized(program: Program, num_particles: int, layout: Layout) -> Program:
    """The program in a plate of particles."""
    return _particle_plate(num_particles, layout.particle_dim)(program)


@lru_cache(maxsize=64)  # a new plate takes as long as a sample statement
def _particle_plate(num_particles: int, dim: int) -> Any:
    return pyro.plate("num_particles_vectorized", num_particles, dim=dim)


def terms_at(
    model: Program, guide: Program, x: Tensor, latents: dict[str, Tensor], num_particles: int, layout: Layout
) -> Terms:
    """The terms of the log-weights at given latents, by site, each with all its dimensions in the programs."""
    model_trace, guide_trace = (
        Trace() if program is no_sites else trace_of(program, x, num_particles, layout, latents)
        for program in (model, guide)
    )
    return terms_of(model_trace, guide_trace, layout)


def trace_of(
    program: Program, x: Tensor, num_particles: int, layout: Layout, latents: dict[str, Tensor] | None = None
) -> Trace:
    """Runs a program in a plate of particles, at the given latents; sites that are not given are drawn."""
    program = vectorized(program, num_particles, layout)
    given = Trace()
    for name, value in (latents or {}).items():
        given.add_node(name, name=name, type="sample", is_observed=False, value=value, infer={})
    with _broadcasting_explained(num_particles):
        return poutine.util.prune_subsample_sites(poutine.trace(poutine.replay(program, trace=given)).get_trace(x))


def no_sites(x: Tensor) -> None:
    """A program without sites, for use as a model or guide that has no effect."""


@contextmanager
def _broadcasting_explained(num_particles: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        error.add_note(
            f"This happened with {num_particles} particles at once, in a plate to the left of the programs' plates: "
            "their networks must broadcast over leading dimensions. pyro_vae.nn.Broadcast wraps networks that expect "
            "one batch dimension, such as those with BatchNorm1d."
        )
        raise


@torch.no_grad()
def find_layout(model: Program, guide: Program, x: Tensor) -> Layout:
    """Runs both programs once, with Pyro's validation on, and finds their data plate.

    For large data it runs them on a few rows, if they accept fewer rows. The states of random generators do not change.

    Args:
        model: The model.
        guide: The guide.
        x: Data, ``[n, *event]``.

    Raises:
        ValueError: If the programs share no data plate, a site lies outside of it, their sites do not match, or a
            log-density is NaN.

    Example:
        >>> weights.find_layout(vae.model, vae.guide, x).data_plate
        'data'
    """

    def look(x: Tensor) -> Layout:
        return checked_trace_pair(model, guide, x)[2]

    if is_large(x) and (layout := on_few_rows(look, x)) is not None:
        return layout
    with generators_kept(x.device):
        return look(x)


@torch.no_grad()
def checked_trace_pair(model: Program, guide: Program, x: Tensor) -> tuple[Trace, Trace, Layout]:
    """Runs both programs once, without particles, with the checks of :func:`find_layout`.

    Returns:
        The traces of model and guide, and the layout.

    Raises:
        ValueError: As :func:`find_layout`.
    """
    with pyro.validation_enabled():
        model_trace, guide_trace = trace_pair(model, guide, x)
        _check_latents_match(model_trace, guide_trace)
        sites = [("model", *named) for named in sample_sites(model_trace)]
        sites += [("guide", *named) for named in sample_sites(guide_trace)]
        frames = {
            (program, name): [f for f in site["cond_indep_stack"] if f.vectorized] for program, name, site in sites
        }
        data = _data_frame(frames, x, {name for name, site in sample_sites(model_trace) if not site["is_observed"]})
        for program, name, site in sites:
            site["log_prob"] = site_log_prob(site)
            check_site_shape(site, max_plate_nesting=math.inf)  # type: ignore[arg-type]  # Pyro's default is infinity, too
            if site["log_prob"].isnan().any():
                raise ValueError(f"site {name!r} of the {program} has a log-density that is NaN")
    leftmost = min(frame.dim for stack in frames.values() for frame in stack)
    return model_trace, guide_trace, Layout(data.name, data.dim, leftmost - 1)


def log_densities(model_trace: Trace, guide_trace: Trace, layout: Layout) -> Tensor:
    """log p(x, z) and log q(z | x) in nats, ``[2, n]``, of traces without a plate of particles."""
    totals = []
    for trace in (model_trace, guide_trace):
        total = torch.zeros(())
        for _, site in sample_sites(trace):
            by_row = (site["log_prob"] if "log_prob" in site else site_log_prob(site)).movedim(layout.data_dim, 0)
            total = total + by_row.flatten(1).sum(1) if by_row.ndim > 1 else total + by_row
        totals.append(total)
    return torch.stack(torch.broadcast_tensors(*totals))


def _check_latents_match(model_trace: Trace, guide_trace: Trace) -> None:
    latent = {name: site for name, site in sample_sites(model_trace) if not site["is_observed"]}
    guided = dict(sample_sites(guide_trace))
    auxiliary = [name for name, site in guided.items() if site["infer"].get("is_auxiliary")]
    for name, site in latent.items():
        if name not in guided:
            raise ValueError(f"latent site {name!r} of the model is not in the guide, which has {list(guided)}")
        if _is_delta(guided[name]) and not _is_delta(site) and not auxiliary:
            raise ValueError(f"site {name!r} of the guide is a point mass, which has no density for log-weights")
        if auxiliary and not _is_delta(guided[name]):
            raise ValueError(
                f"site {name!r} of the guide is random given its auxiliary site {auxiliary[0]!r}; "
                "its marginal density, without the auxiliary variable, is not known"
            )
    for name in guided:
        if name not in latent and name not in auxiliary:
            raise ValueError(f"site {name!r} of the guide is not a latent site of the model, which has {list(latent)}")


def _is_delta(site: Any) -> bool:
    distribution = site["fn"]
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, Delta)


def _data_frame(frames: dict[tuple[str, str], list[Any]], x: Tensor, latent: set[str]) -> Any:
    """The plate that has the size of x's first dimension and contains every site."""
    n = x.shape[0]
    plates = {frame.name: frame for stack in frames.values() for frame in stack}
    if not plates:
        program, name = next(iter(frames))
        raise ValueError(
            "there is no data plate: in both programs put every site, "
            f"such as {name!r} of the {program}, in 'with pyro.plate(\"data\", x.shape[0]):'"
        )
    candidates = [name for name in plates if plates[name].size == n]
    if not candidates:
        sizes = ", ".join(f"{name!r} of size {frame.size}" for name, frame in plates.items())
        raise ValueError(f"there is no plate of size {n}, the number of rows of x, only {sizes}")
    counts = Counter(frame.name for stack in frames.values() for frame in stack)
    enclosing = [name for name in candidates if counts[name] == len(frames)]
    if len(enclosing) > 1 and "data" not in enclosing:
        raise ValueError(
            f"the plates {enclosing} all have size {n}, the number of rows of x; give the data plate the name 'data'"
        )
    name = "data" if "data" in enclosing else max(enclosing or candidates, key=lambda name: counts[name])
    for (program, site), stack in frames.items():
        dims = [frame.dim for frame in stack if frame.name == name]
        if not dims and site in latent:
            raise ValueError(
                f"latent site {site!r} of the {program} lies outside of the data plate {name!r}: all datapoints share "
                "it, so log p(x) is not a sum over datapoints. Either pass draws of it, as in "
                f"evidence.estimate(..., given={{{site!r}: draws}}), or fix it in both programs by "
                f"poutine.block(poutine.condition(program, data={{{site!r}: value}}), hide=[{site!r}])"
            )
        if not dims:
            raise ValueError(
                f"site {site!r} of the {program} lies outside of the data plate {name!r}, "
                "so there is no log-weight for each datapoint"
            )
        if dims != [plates[name].dim]:
            raise ValueError(
                f"the data plate {name!r} is at dim {dims[0]} for site {site!r} of the {program}, "
                f"and at dim {plates[name].dim} for other sites; expected the same dim for all"
            )
    return plates[name]


def sum_out(values: Tensor, layout: Layout, name: str = "") -> Tensor:
    """Sums the values ``[*batch]`` of a site over all dimensions except those of particles and datapoints.

    Returns:
        A tensor ``[particles, n]``.

    Raises:
        ValueError: If there are too few dimensions; the message contains the name of the site.
    """
    missing = -layout.particle_dim - values.ndim
    if missing > 0:
        raise ValueError(
            f"site {name!r} has a log-density of shape {list(values.shape)}, too few dimensions for the plate of "
            f"particles at dim {layout.particle_dim}: declare its dimensions with plates or .to_event"
        )
    particle, data = values.ndim + layout.particle_dim, values.ndim + layout.data_dim
    others = [dim for dim in range(values.ndim) if dim not in (particle, data)]
    return values.sum(others) if others else values


def log_mean_exp(values: Tensor, dim: int = 0) -> Tensor:
    """The log of the mean of exp(values) over a dimension, which is removed.

    Example:
        >>> weights.log_mean_exp(torch.tensor([1.0, 3.0]).log()).exp().round(decimals=4)
        tensor(2.)
    """
    return values.logsumexp(dim) - math.log(values.shape[dim])


def standard_error(values: Tensor) -> float:
    """The standard error of the mean of independent values ``[n]``; infinite for a single value."""
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf

"""Checks before any work: that parts fit together, and that data are valid for a likelihood."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from pyro_vae.checks import call_part, check_rows
from pyro_vae.models.conditions import append, posterior_given
from pyro_vae.system.randomness import generators_kept
from pyro_vae.system.tracing import is_tracing
from pyro_vae.system.values import evaluation_mode
from pyro_vae.system.warning import warn

ROWS_AT_ONCE = 4096


def check_parts(
    prior: nn.Module, likelihood: nn.Module, posterior: nn.Module, conditions: int | None = None
) -> tuple[Tensor, Tensor, Any]:
    """Runs the three parts once, on one draw from the prior, and checks that they fit together.

    Parameters that a part creates lazily exist afterwards.

    Args:
        prior: The prior.
        likelihood: The likelihood.
        posterior: The posterior.
        conditions: The number of conditions that likelihood and posterior are called with, which are zeros here; None
            for parts without conditions.

    Returns:
        The draws, z ``[1, latent]`` and x ``[1, *event]``, and the support of the likelihood.

    Raises:
        TypeError: If a part is not a module or does not return a distribution.
        ValueError: If a part does not accept the output of another.
    """
    with trial({"prior": prior, "likelihood": likelihood, "posterior": posterior}):
        p_z = call_part("prior()", prior)
        z = p_z.sample((1,))
        y = None if conditions is None else z.new_zeros(1, conditions)
        inputs = z if y is None else append(z, y)
        p_x = call_part(f"likelihood(z), for z of shape {list(z.shape)} drawn from the prior,", likelihood, inputs)
        x = p_x.sample()
        warn_unless_broadcasting("likelihood(z)", likelihood, inputs)
        q_z = call_part(
            f"posterior(x), for x of shape {list(x.shape)} drawn from the likelihood,",
            posterior if y is None else partial(posterior_given, posterior, y=y, event_dims=x.ndim - 1),
            x,
        )
        code = q_z.sample()
    check_batch("prior()", p_z, ())
    check_batch("likelihood(z)", p_x)
    check_batch("posterior(x)", q_z)
    if q_z.event_shape != p_z.event_shape:
        raise ValueError(
            f"latent sizes do not match: prior() has event shape {list(p_z.event_shape)}, "
            f"posterior(x) has {list(q_z.event_shape)}"
        )
    check_inside(z, "prior()", q_z, "posterior(x)")
    check_inside(code, "posterior(x)", p_z, "prior()")
    return z, x, p_x.support


def check_batch(name: str, distribution: Any, batch: tuple[int, ...] = (1,)) -> None:
    """Checks the batch shape of a distribution, which a part returned for a batch of one.

    Raises:
        ValueError: If the batch shape is different.
    """
    if distribution.batch_shape != batch:
        raise ValueError(
            f"{name} has batch shape {list(distribution.batch_shape)} for a batch of one, and event shape "
            f"{list(distribution.event_shape)}; expected batch shape {list(batch)}, all other dimensions in the event "
            "(.to_event(1) makes independent dimensions one event)"
        )


def check_inside(draws: Tensor, source: str, distribution: Distribution, name: str) -> None:
    """Checks that draws from one distribution are in the support of another.

    Raises:
        ValueError: If they are not.
    """
    try:
        support: Any = distribution.support
    except NotImplementedError:  # the support of a flow is unknown
        return
    if not support.check(draws).all():
        raise ValueError(f"draws from {source} lie outside of the support of {name}, which is {support}")


@contextmanager
def trial(parts: dict[str, nn.Module]) -> Iterator[None]:
    """A context to run parts once, in evaluation mode: random generators and training modes are restored afterwards.

    Args:
        parts: The parts, by the name that an error gives them.

    Raises:
        TypeError: If a part is not a module.
    """
    for name, part in parts.items():
        if not isinstance(part, nn.Module):
            raise TypeError(f"{name} is of type {type(part).__name__}; a part is an nn.Module returning a distribution")
    tensors = (tensor for part in parts.values() for tensor in (*part.parameters(), *part.buffers()))
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    # No batch statistics from a batch of one.
    with evaluation_mode(*parts.values()), torch.no_grad(), generators_kept(device):
        yield


def warn_unless_broadcasting(name: str, part: nn.Module, z: Tensor) -> None:
    """Warns if a part, called with several particles at once, does not treat each of them as it would alone.

    :func:`check_particles` then refuses particles for this part. Call this in a :func:`trial`.

    Args:
        name: What a message calls the part.
        part: A part from latents to a distribution.
        z: A latent to try, ``[1, *latent]``.
    """
    part.__dict__.pop(_TAKES_ROWS, None)
    if not _broadcasts(part, z):
        part.__dict__[_TAKES_ROWS] = True
        warn(
            f"{name} does not broadcast over a leading dimension of z: it can be trained with one particle, but "
            f"several at once, as for log p(x), are refused. {_REMEDY}"
        )


def check_particles(name: str, part: nn.Module, z: Tensor) -> None:
    """Checks that a part can be called with latents ``[*batch, latent]``.

    Raises:
        ValueError: If there are particles besides the rows, and the part does not broadcast.
    """
    if z.ndim > 2 and getattr(part, _TAKES_ROWS, False):
        raise ValueError(
            f"{name} does not broadcast over a leading dimension of z, of shape {list(z.shape)}. {_REMEDY}"
        )


_TAKES_ROWS = "_takes_rows_only"  # an attribute of parts that do not broadcast
_REMEDY = (
    "If it has a layer that gives dimension 1 a meaning (BatchNorm1d, convolutions, Flatten), wrap its network: "
    "pyro_vae.nn.Broadcast(network, event_dims=1)"
)


def _broadcasts(part: nn.Module, z: Tensor) -> bool:
    """Whether particles of latents close to z ``[1, *latent]`` have the densities that they have in one flat batch.

    It tries two numbers of rows, since one of them could be the number of features of a layer.
    """
    for particles, rows in ((2, 3), (2, 5)):
        flat = z.expand(particles * rows, *z.shape[1:])
        if z.is_floating_point():  # so that rows differ
            flat = flat + 0.1 * torch.randn_like(flat)
        try:
            p = part(flat)
            x = p.sample()
            apart = p.log_prob(x).unflatten(0, (particles, rows))
            together = part(flat.unflatten(0, (particles, rows))).log_prob(x.unflatten(0, (particles, rows)))
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
        if together.shape != apart.shape or not torch.allclose(together, apart, rtol=1e-3, atol=1e-3, equal_nan=True):
            return False
    return True


def check_data(x: Tensor, example: Tensor, support: Any) -> None:
    """Checks that x ``[n, *event]`` is valid data for a likelihood.

    Args:
        x: The data.
        example: A draw from the likelihood, ``[1, *event]``; x must have its event shape, dtype and device.
        support: The support of the likelihood.

    Raises:
        TypeError: If x is not a tensor or has the wrong dtype.
        ValueError: If x is misshapen, empty, on another device, or outside the support.
    """
    event = ", ".join(map(str, example.shape[1:]))
    check_rows(x, event)
    if x.shape[1:] != example.shape[1:]:
        raise ValueError(f"x has shape {list(x.shape)}; expected [n, {event}]")
    if x.dtype != example.dtype:
        raise TypeError(f"x has dtype {x.dtype}; expected {example.dtype}, as the likelihood draws it")
    if x.device != example.device:
        raise ValueError(f"x is on device {x.device}; expected {example.device}, where the VAE is")
    if is_tracing():
        return
    while isinstance(support, constraints.independent):
        support = support.base_constraint  # so that the message names the value, not the datapoint
    count, first = 0, None
    for begin in range(0, len(x), ROWS_AT_ONCE):  # copies of large data would not fit in memory
        part = x[begin : begin + ROWS_AT_ONCE]
        outside = ~support.check(part) | part.isinf()  # torch counts infinity as real
        if outside.any():
            row, *place = outside.nonzero()[0].tolist()
            first = first or (begin + row, *place)
            count += int(outside.sum())
    if first is not None:
        raise ValueError(
            f"x has {count} values outside the support of the likelihood, {support}: "
            f"the first is x{list(first)} = {x[first].tolist()}"
        )

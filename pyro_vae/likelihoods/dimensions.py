"""The batch, event and parameter dimensions of a network's outputs."""

from __future__ import annotations

from pyro.distributions import TorchDistribution
from torch import Tensor


def as_event(distribution: TorchDistribution, z: Tensor) -> TorchDistribution:
    """Makes one event of all batch dimensions of the distribution except those of z ``[*batch, latent]``."""
    return distribution.to_event(len(distribution.batch_shape) - (z.ndim - 1))


def check_parameters(name: str, parameters: Tensor, z: Tensor, expected: str) -> Tensor:
    """Returns the parameters ``[*batch, *event, count]`` that a network computed from z ``[*batch, latent]``.

    Raises:
        ValueError: If they have too few dimensions; the message names the likelihood and what is expected.
    """
    if parameters.ndim <= z.ndim:
        raise ValueError(_message(name, parameters, z, expected))
    return parameters


def split_parameters(name: str, parameters: Tensor, z: Tensor, *names: str) -> tuple[Tensor, ...]:
    """Splits ``[*batch, *event, count]`` into ``count`` tensors ``[*batch, *event]``, one for each name.

    Raises:
        ValueError: If the last dimension has another size; the message contains the name of the likelihood.
    """
    expected = f"{len(names)} ({', '.join(names)})"
    if check_parameters(name, parameters, z, expected).shape[-1] != len(names):
        raise ValueError(_message(name, parameters, z, expected))
    return parameters.unbind(-1)


def _message(name: str, parameters: Tensor, z: Tensor, expected: str) -> str:
    return (
        f"the network of {name} maps z of shape {list(z.shape)} to {list(parameters.shape)}; "
        f"expected {list(z.shape[:-1])} + [*event, {expected}]"
    )

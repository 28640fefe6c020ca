"""Which dimensions of what a network returns are what."""

from __future__ import annotations

from pyro.distributions import TorchDistribution
from torch import Tensor

__all__ = ["as_event", "check_parameters", "split_parameters"]


def as_event(distribution: TorchDistribution, z: Tensor) -> TorchDistribution:
    """Makes one event of all dimensions of the distribution but the batch dimensions of z ``[*batch, latent]``."""
    return distribution.to_event(len(distribution.batch_shape) - (z.ndim - 1))


def check_parameters(name: str, parameters: Tensor, z: Tensor, expected: str) -> Tensor:
    """Returns the parameters ``[*batch, *event, count]`` that a network made of z ``[*batch, latent]``.

    Raises:
        ValueError: If they have too few dimensions; the message has the name of the likelihood and what is expected.
    """
    if parameters.ndim <= z.ndim:
        raise ValueError(_message(name, parameters, z, expected))
    return parameters


def split_parameters(name: str, parameters: Tensor, z: Tensor, *names: str) -> tuple[Tensor, ...]:
    """Splits ``[*batch, *event, count]`` into ``count`` tensors ``[*batch, *event]``, one for each of the names.

    Raises:
        ValueError: If they are not so many; the message has the name of the likelihood.
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

"""Autoregressive transforms, shared by several posteriors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.checks import check_count
from pyro_vae.distributions.zuko_import import zuko


def autoregressive_transforms(
    latent_dim: int, context_dim: int, transforms: int, hidden_features: Sequence[int], **univariate: Any
) -> zuko.lazy.LazyComposedTransform:
    """Transforms ``y[i] = f(x[i]; network(x[:i], context))`` in sequence, each in the reverse order of the last.

    From x to y each transform takes one pass through its network; from y to x it takes one pass for every dimension.
    f is the identity if its parameters are zero. The last layers of the networks start small, so that f starts close to
    the identity.

    Args:
        latent_dim: The number of dimensions of x and y, at least 1.
        context_dim: The number of dimensions of the context, at least 1.
        transforms: The number of transforms, at least 1.
        hidden_features: The widths of the hidden layers of each network.
        univariate: f and the shapes of its parameters: ``univariate=`` and ``shapes=`` of zuko's
            ``MaskedAutoregressiveTransform``.

    Raises:
        ValueError: If a size is not a positive integer.
    """
    order = torch.arange(check_count("latent_dim", latent_dim))
    check_count("context_dim", context_dim)
    layers = [
        zuko.flows.autoregressive.MaskedAutoregressiveTransform(
            latent_dim,
            context_dim,
            order=order if i % 2 == 0 else order.flip(0),
            hidden_features=[check_count("hidden_features", width) for width in hidden_features],
            activation=nn.SiLU,
            **univariate,
        )
        for i in range(check_count("transforms", transforms))
    ]
    for layer in layers:
        last = layer.hyper[-1]
        nn.init.zeros_(last.bias)
        with torch.no_grad():
            last.weight.mul_(0.01)
    return zuko.lazy.LazyComposedTransform(*layers)


def split_outputs(outputs: Tensor, latent_dim: int, context_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Splits the outputs of a network into two tensors ``[*batch, latent]`` and the context, ``[*batch, context]``.

    Raises:
        ValueError: If the number of outputs is not ``2 * latent_dim + context_dim``.
    """
    if outputs.shape[-1] != 2 * latent_dim + context_dim:
        raise ValueError(
            f"the network of the posterior has {outputs.shape[-1]} outputs for a datapoint; expected "
            f"2 * latent_dim + context_dim = {2 * latent_dim + context_dim}"
        )
    first, second, context = outputs.split([latent_dim, latent_dim, context_dim], dim=-1)
    return first, second, context

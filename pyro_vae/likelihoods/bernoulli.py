"""A likelihood for binary data."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.nn.with_network import WithNetwork
from pyro_vae.system.tracing import is_tracing
from pyro_vae.system.warning import warn


class Bernoulli(WithNetwork):
    """Independent Bernoulli values with logits from a network (Kingma & Welling 2013, appendix C.1).

    Data are 0 or 1, as floats. Values between 0 and 1 are accepted with a warning, since the result is then a
    cross-entropy and not a log-probability.

    Args:
        network: Maps latents ``[*batch, latent]`` to logits ``[*batch, *event]``.

    Example:
        >>> likelihood = likelihoods.Bernoulli(nn.mlp(2, [8], (1, 4, 4)))
        >>> p_x = likelihood(torch.zeros(8, 2))
        >>> p_x.log_prob(x).shape
        torch.Size([8])
    """

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        logits = self.network(z)
        pixels = _Pixels(logits=logits, validate_args=False)
        return _Image(pixels, logits.ndim - (z.ndim - 1), validate_args=False)


class _Binary(constraints.Constraint):
    """0 and 1; values in between are accepted with a warning, since much of the literature uses them."""

    range = (0.0, 1.0)

    def check(self, value: Tensor) -> Tensor:
        inside = constraints.unit_interval.check(value)
        if inside.all() and ((value != 0) & (value != 1)).any():
            warn(
                "x has grey values, for which a Bernoulli likelihood is a cross-entropy and not a log-probability; "
                "to estimate log p(x), binarize them (pyro_vae.data.binarize)"
            )
        return inside

    def __repr__(self) -> str:
        return "[0, 1]"


class _Pixels(dist.Bernoulli):
    support = _Binary()


class _Image(dist.Independent):
    """All pixels as one event, with a faster log-probability where no gradient is needed."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits = self.base_dist.logits
        has_gradient = logits.requires_grad or value.requires_grad
        if has_gradient or logits.dtype not in (torch.float32, torch.float64) or is_tracing():  # vmap: not in place
            return super().log_prob(value)
        # log p = sum x l - max(l, 0) + log sigmoid(|l|), with one logarithm for the product of many sigmoids: each is
        # between 1/2 and 1, so a product of up to 120 does not underflow.
        logits = logits.flatten(-self.reinterpreted_batch_ndims)
        positive = logits.clamp_min(0)
        log_prob = (logits * value.flatten(-self.reinterpreted_batch_ndims)).sub_(positive).sum(-1)
        factors = torch.abs(logits, out=positive).sigmoid_()
        size = logits.shape[-1]
        groups = next(count for count in range(-(-size // 120), size + 1) if size % count == 0)
        return log_prob + factors.unflatten(-1, (groups, -1)).prod(-1).log_().sum(-1)

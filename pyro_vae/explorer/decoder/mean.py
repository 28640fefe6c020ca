"""The mean of p(x | z) as a function of tensors that can be exported."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.distributions import Columnwise, DiscretizedLogistic, as_pyro
from pyro_vae.distributions.independent import split_independent


class MeanDecoder(nn.Module):
    """Maps latents ``[batch, latent]`` to the mean of p(x | z) ``[batch, *event]``.

    For the columns of a table there is a second output, ``[batch, details]``: for each categorical or ordinal column
    the probability of each category, for each binary column the probability of 1, and for each column of numbers the
    standard deviation.

    Args:
        likelihood: ``likelihood(z)`` returns p(x | z).
    """

    def __init__(self, likelihood: nn.Module) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """Returns the mean, and for a table the details."""
        p_x = as_pyro(self.likelihood(z))
        base = _of_one_value(p_x)
        if isinstance(base, DiscretizedLogistic):
            return (_discretized_logistic_mean()(base.loc, base.scale, base.levels),)
        if isinstance(base, Columnwise):
            details = [_details(column, z) for column in base.columns]
            return p_x.mean, torch.cat(details, dim=-1)
        return (p_x.mean,)


def _of_one_value(distribution: Any) -> Any:
    """The distribution of one value, inside ``Independent`` and the wrapper for missing values."""
    base, _ = split_independent(distribution)
    while hasattr(base, "complete"):  # of likelihoods.Incomplete
        base, _ = split_independent(base.complete)
    return base


def _details(column: Any, z: Tensor) -> Tensor:
    """The details of one column besides its mean, ``[batch, 1 or categories]``."""
    if isinstance(column, torch.distributions.Categorical):
        return column.probs.expand(*z.shape[:-1], -1)
    if isinstance(column, torch.distributions.Bernoulli):
        return column.probs.expand(z.shape[:-1]).unsqueeze(-1)
    return column.variance.sqrt().expand(z.shape[:-1]).unsqueeze(-1)


@cache  # when it is needed: registering an operator takes a tenth of a second
def _discretized_logistic_mean() -> Any:
    """The mean of a discretized logistic as an operator ``(loc, scale, levels)``.

    It is a sum over 256 levels. As a loop in PyTorch it would be 2000 operations of the exported graph; as one
    operator, the page computes it in one loop.
    """

    @torch.library.custom_op("pyro_vae::discretized_logistic_mean", mutates_args=())
    def mean(loc: Tensor, scale: Tensor, levels: int) -> Tensor:
        return DiscretizedLogistic(loc, scale, levels, validate_args=False).mean

    @mean.register_fake
    def _(loc: Tensor, scale: Tensor, levels: int) -> Tensor:  # noqa: ARG001
        return torch.empty_like(loc)

    return mean

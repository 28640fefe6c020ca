"""Columns of 0 and 1."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.nn.kind import Kind


class Binary(Kind):
    """0 or 1; a network gives the logit.

    Example:
        >>> likelihoods.columns.Binary()(torch.zeros(3, 1)).mean
        tensor([0.5000, 0.5000, 0.5000])
    """

    num_parameters = 1
    num_features = 1

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """Returns the distribution of one value, for parameters ``[*batch, 1]``."""
        return dist.Bernoulli(logits=parameters.squeeze(-1), validate_args=False)

    def features(self, x: Tensor) -> Tensor:
        """-1 or 1, ``[*batch, 1]``, for values ``[*batch]``."""
        return (2 * x - 1).unsqueeze(-1)

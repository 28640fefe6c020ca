"""Columns of categories without an order."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.nn.kind import Kind


class _Categories(dist.Categorical):
    log_prob = torch.distributions.Categorical.log_prob  # as in likelihoods.Categorical

    @property
    def mean(self) -> Tensor:
        """The most probable category: numbers of categories without an order have no mean."""
        return self.logits.argmax(-1).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self.logits[..., 0], torch.nan)


class Categorical(Kind):
    """Categories 0, ..., K - 1 without an order; a network gives the logits.

    Args:
        categories: Their number K, at least 2.

    Raises:
        ValueError: If ``categories`` is not an integer of at least 2.

    Example:
        >>> kind = likelihoods.columns.Categorical(4)
        >>> kind(torch.zeros(2, 4)).probs
        tensor([[0.2500, 0.2500, 0.2500, 0.2500],
                [0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def __init__(self, categories: int) -> None:
        super().__init__()
        self.categories = check_count("categories", categories, least=2)
        self.num_parameters = self.num_features = self.categories

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """Returns the distribution of one value, for parameters ``[*batch, categories]``."""
        return _Categories(logits=parameters, validate_args=False)

    def features(self, x: Tensor) -> Tensor:
        """A vector of zeros and a one, ``[*batch, categories]``, for values ``[*batch]``.

        The first layer of a network makes an embedding of it.
        """
        return (x.unsqueeze(-1) == torch.arange(self.categories, device=x.device)).to(x.dtype)

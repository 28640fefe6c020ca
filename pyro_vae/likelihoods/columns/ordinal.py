"""Columns of categories with an order."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from pyro_vae.checks import check_count
from pyro_vae.nn.kind import Kind


class _Levels(dist.Categorical):
    log_prob = torch.distributions.Categorical.log_prob  # as in likelihoods.Categorical

    @property
    def mean(self) -> Tensor:
        """The mean of the number of the category."""
        return self.probs @ self._numbers()

    @property
    def variance(self) -> Tensor:
        return self.probs @ self._numbers().square() - self.mean.square()

    def _numbers(self) -> Tensor:
        return torch.arange(self._num_events, dtype=self.probs.dtype, device=self.probs.device)


class Ordinal(Kind):
    """Categories 0, ..., K - 1 with an order: log-odds of x <= k are threshold_k - location (McCullagh 1980).

    A network gives the location. The thresholds are parameters, the same for all datapoints.

    Args:
        categories: Their number K, at least 2.

    Raises:
        ValueError: If ``categories`` is not an integer of at least 2.

    Example:
        >>> kind = likelihoods.columns.Ordinal(4)
        >>> kind(torch.tensor([[-9.0], [9.0]])).probs.argmax(-1)
        tensor([0, 3])
    """

    num_parameters = 1
    num_features = 1

    def __init__(self, categories: int) -> None:
        super().__init__()
        self.categories = check_count("categories", categories, least=2)
        # At location 0, all categories are equally probable in the beginning.
        shares = torch.arange(1, self.categories) / self.categories
        thresholds = shares.logit()
        self.first = nn.Parameter(thresholds[:1].clone())
        self.raw_steps = nn.Parameter(thresholds.diff().expm1().log())

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """Returns the distribution of one value, for parameters ``[*batch, 1]``."""
        steps = softplus(self.raw_steps)
        thresholds = torch.cat([self.first, self.first + steps.cumsum(0)])
        above = thresholds - parameters  # [*batch, K - 1], the log-odds of x <= k
        # p(x = k) = s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)), for the log-odds b of x <= k and a of x < k.
        inner = logsigmoid(above[..., 1:]) + logsigmoid(-above[..., :-1]) + (-(-steps).exp()).log1p()
        logits = torch.cat([logsigmoid(above[..., :1]), inner, logsigmoid(-above[..., -1:])], dim=-1)
        return _Levels(logits=logits, validate_args=False)

    def features(self, x: Tensor) -> Tensor:
        """The number of the category, from -1 to 1, ``[*batch, 1]``, for values ``[*batch]``."""
        return (2 * x / (self.categories - 1) - 1).unsqueeze(-1)

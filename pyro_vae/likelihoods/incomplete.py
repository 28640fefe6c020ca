"""A likelihood for data with missing values."""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from pyro_vae.distributions.columnwise import ColumnSupports
from pyro_vae.distributions.conversion import as_pyro
from pyro_vae.distributions.independent import split_independent
from pyro_vae.distributions.named_parameters import named_parameters


class Incomplete(nn.Module):
    """Another likelihood for data with missing values, marked by NaN and left out (Mattei & Frellsen 2019, section 2).

    The density is that of the observed values, so log p(x) is that of the observed part of each datapoint, which is
    correct if values are missing at random. The posterior gets the same data; wrap its network in ``nn.FillMissing``
    to replace NaN by zero. ``evidence.impute`` fills in the missing values after training.

    Args:
        likelihood: A likelihood whose values are independent given z, with any event shape. Data are floats.

    Raises:
        ValueError: When called, if the values are not independent given z.

    Example:
        >>> likelihood = likelihoods.Incomplete(likelihoods.Normal(nn.mlp(2, [8], (3,)), scale=1.0))
        >>> data = torch.tensor([[1.0, float("nan"), 0.0]])
        >>> likelihood(torch.zeros(1, 2)).log_prob(data).isfinite()
        tensor([True])
    """

    def __init__(self, likelihood: nn.Module) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) with the shapes of the other likelihood. It accepts NaN; its draws are complete."""
        return _Incomplete(as_pyro(self.likelihood(z)))


class _Incomplete(dist.TorchDistribution):
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, complete: Any) -> None:
        complete = complete.dist if isinstance(complete, ZukoToPyro) else complete
        self.each, dims = split_independent(complete)
        if self.each.event_shape:
            raise ValueError(
                f"Incomplete expects values that are independent given z; a {type(self.each).__name__} has "
                f"event shape {list(self.each.event_shape)}"
            )
        self.complete, self.dims, self.has_rsample = complete, dims, complete.has_rsample
        super().__init__(complete.batch_shape, complete.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(_OrMissing(self.each.support), self.dims)

    @property
    def mean(self) -> Tensor:
        return self.complete.mean

    @property
    def variance(self) -> Tensor:
        return self.complete.variance

    def named_parameters(self) -> dict[str, Tensor]:
        return named_parameters(self.complete)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.complete.sample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.complete.rsample(sample_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Incomplete:
        return _Incomplete(self.complete.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        missing = value.isnan()
        # Missing values are replaced by a value in the support: NaN would make the gradient NaN.
        each = self.each.log_prob(torch.where(missing, _possible(self.each.support, value), value))
        return each.masked_fill(missing, 0.0).flatten(-self.dims).sum(-1) if self.dims else each.masked_fill(missing, 0)


def _possible(support: Any, value: Tensor) -> Tensor:
    """A value in the support: the image of zero under the bijection to it, or zero if there is none, as for counts."""
    if isinstance(support, ColumnSupports):
        return support.possible(value)
    zero = value.new_zeros(())
    try:
        return zero if support.is_discrete else biject_to(support)(zero)
    except NotImplementedError:
        return zero


class _OrMissing(constraints.Constraint):
    def __init__(self, values: Any) -> None:
        self.unless_missing = values
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        missing = value.isnan()
        return missing | self.unless_missing.check(torch.where(missing, _possible(self.unless_missing, value), value))

    def __repr__(self) -> str:
        return f"{self.unless_missing}, or NaN for missing"

"""Wraps any distribution as a Pyro distribution."""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from pyro.contrib.zuko import ZukoToPyro
from torch.distributions import constraints, kl_divergence, register_kl


def as_pyro(distribution: torch.distributions.Distribution) -> Any:
    """Returns a Pyro distribution as it is, and any other (of torch or zuko) wrapped as one.

    Raises:
        TypeError: If it is not a distribution.

    Example:
        >>> distributions.as_pyro(torch.distributions.Normal(0.0, 1.0)).log_prob(torch.tensor(0.0))
        tensor(-0.9189)
    """
    if isinstance(distribution, dist.torch_distribution.TorchDistributionMixin):
        return distribution
    if isinstance(distribution, torch.distributions.Distribution):
        return _Wrapped(distribution)
    raise TypeError(f"expected a distribution, got {type(distribution).__name__}")


class _Wrapped(ZukoToPyro):
    """A wrapper that keeps draws, moments and the support of the wrapped distribution."""

    def sample(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.dist.sample(*args, **kwargs)

    @property
    def mean(self) -> torch.Tensor:
        return self.dist.mean

    @property
    def variance(self) -> torch.Tensor:
        return self.dist.variance

    @property
    def support(self) -> Any:
        try:
            return self.dist.support
        except NotImplementedError:  # zuko's flows do not define it; their values are real vectors
            return constraints.real_vector

    def expand(self, *args: Any, **kwargs: Any) -> _Wrapped:
        return _Wrapped(self.dist.expand(*args, **kwargs))


# Closed-form KL divergences between wrapped distributions, so that Pyro's TraceMeanField_ELBO finds them.


@register_kl(ZukoToPyro, ZukoToPyro)
@register_kl(ZukoToPyro, torch.distributions.Distribution)
@register_kl(torch.distributions.Distribution, ZukoToPyro)
def _kl_of_wrapped(q: torch.distributions.Distribution, p: torch.distributions.Distribution) -> torch.Tensor:
    inside = (each.dist if isinstance(each, ZukoToPyro) else each for each in (q, p))
    return kl_divergence(*inside)

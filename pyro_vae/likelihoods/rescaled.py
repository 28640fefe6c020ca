"""Data in their own units, for networks that work with standardized numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import Normal, constraints

from pyro_vae.distributions.conversion import as_pyro
from pyro_vae.distributions.independent import split_independent
from pyro_vae.distributions.named_parameters import named_parameters


class Rescaled(nn.Module):
    """Another likelihood of real numbers, moved and stretched: x = center + scale x'.

    The density is that of x in its own units: the Jacobian, -log(scale) for each value, is counted. ``nn.Standardize``
    does the reverse for the network of a posterior.

    Args:
        likelihood: A likelihood of x', real numbers of about mean 0 and standard deviation 1.
        center: What is added: a number, or a (nested) list or tensor that broadcasts with ``[*event]``, such as the
            mean of each feature.
        scale: What is multiplied by, likewise, positive: such as the standard deviation of each feature.

    Raises:
        ValueError: If a scale is not positive, or a number is not finite.

    Example:
        >>> p = likelihoods.Rescaled(likelihoods.Normal(nn.mlp(2, [8], 3), 1.0), center=[5.0, 0.0, 1.0], scale=10.0)
        >>> p(torch.zeros(4, 2)).event_shape
        torch.Size([3])
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self, likelihood: nn.Module, center: float | Sequence[Any] | Tensor, scale: float | Sequence[Any] | Tensor
    ) -> None:
        super().__init__()
        self.likelihood = likelihood
        for name, value in (("center", center), ("scale", scale)):
            tensor = torch.as_tensor(value, dtype=torch.get_default_dtype()).clone()
            if not tensor.isfinite().all() or (name == "scale" and (tensor <= 0).any()):
                expected = "positive numbers" if name == "scale" else "finite numbers"
                raise ValueError(f"{name} is {tensor.tolist()}; expected {expected}")
            self.register_buffer(name, tensor)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of the shapes of the likelihood, for z ``[*batch, latent]``."""
        base, dims = split_independent(as_pyro(self.likelihood(z)))
        return _Rescaled(base, self.center, self.scale).to_event(dims)


class _Rescaled(dist.TorchDistribution):
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, base: Any, center: Tensor, scale: Tensor) -> None:
        self.base, self.center, self.scale = base, center, scale
        self.has_rsample = base.has_rsample
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return self.base.support

    @property
    def mean(self) -> Tensor:
        return self.center + self.scale * self.base.mean

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * self.base.variance

    def named_parameters(self) -> dict[str, Tensor]:
        found = named_parameters(self.base)
        if isinstance(self.base, Normal):
            return {"loc": self.center + self.scale * found["loc"], "scale": self.scale * found["scale"]}
        return {f"standardized_{name}": value for name, value in found.items()}

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.center + self.scale * self.base.sample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.center + self.scale * self.base.rsample(sample_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Rescaled:
        return _Rescaled(self.base.expand(batch_shape), self.center, self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob((value - self.center) / self.scale) - self.scale.log()

"""Mixtures that are fast enough as priors for many datapoints."""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints


class Mixture(dist.MixtureSameFamily):
    """Pyro's ``MixtureSameFamily`` for components with the same support, with faster densities and draws.

    Args:
        logits: Unnormalized log-weights of the components, ``[components]``.
        components: The components, a distribution with batch shape ``[components]``.

    Raises:
        ValueError: If the components have another batch shape.

    Example:
        >>> components = pyro.distributions.Normal(torch.tensor([-1.0, 1.0]), 0.1)
        >>> distributions.Mixture(torch.zeros(2), components).sample([5]).shape
        torch.Size([5])
    """

    def __init__(self, logits: Tensor, components: Distribution) -> None:
        if components.batch_shape != logits.shape:
            raise ValueError(
                f"the components of a mixture have batch shape {list(components.batch_shape)}; "
                f"expected {list(logits.shape)}, as their weights"
            )
        # The components check values themselves.
        super().__init__(Categorical(logits=logits, validate_args=False), components, validate_args=False)

    @constraints.dependent_property
    def support(self) -> Any:
        """The support of the components."""
        return self.component_distribution.support

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> ExpandedDistribution:
        """Expands the mixture but not its parameters, so that log-densities take their logarithms only once."""
        return ExpandedDistribution(self, batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-densities in nats, ``[*batch]``, at ``[*batch, *event]``."""
        batch_shape = value.shape[: value.ndim - self.event_dim]
        components = self.component_distribution
        # Expanded, since the transforms of zuko's flows do not broadcast.
        value = value.unsqueeze(-1 - self.event_dim).expand(*batch_shape, *components.batch_shape, *self.event_shape)
        return (components.log_prob(value) + self.mixture_distribution.logits).logsumexp(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draws ``[*sample_shape, *event]``.

        Torch draws from every component for each sample, and there may be hundreds of components. Here each component
        is drawn from only as often as the component that was chosen most.
        """
        chosen = self.mixture_distribution.sample(sample_shape)
        counts = chosen.flatten().bincount(minlength=self._num_component)
        most = int(counts.max())
        draws = self.component_distribution.sample(torch.Size((most,))).transpose(0, 1)
        wanted = torch.arange(most, device=counts.device) < counts.unsqueeze(-1)
        by_component = draws[wanted]  # in the order of the components
        sample = torch.empty_like(by_component)
        sample[chosen.flatten().argsort()] = by_component
        return sample.reshape(*chosen.shape, *self.event_shape)

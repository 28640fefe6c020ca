"""A posterior q(z | x, y) with an encoder of any kind."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.models.conditions import append


class ConditionalPosterior(nn.Module):
    """q(z | x, y) for a :class:`~pyro_vae.ConditionalVAE` or :class:`~pyro_vae.SemiSupervisedVAE`.

    A network makes features of x, such as convolutions of an image; y is appended to the features:

        features = nn.convolutional_encoder((1, 28, 28), 128)
        posterior = ConditionalPosterior(features, posteriors.Normal(nn.mlp(128 + 10, [], 2 * 20)))

    Args:
        features: Maps x ``[*batch, *event]`` to features ``[*batch, features]``.
        posterior: Maps features and conditions, ``[*batch, features + conditions]``, to q(z | x, y).

    Example:
        >>> posterior = ConditionalPosterior(nn.mlp((1, 4, 4), [8], 6), posteriors.Normal(nn.mlp(6 + 3, [], 4)))
        >>> posterior(x[:3], torch.eye(3)).event_shape
        torch.Size([2])
    """

    def __init__(self, features: nn.Module, posterior: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.posterior = posterior

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        """Returns q(z | x, y), for x ``[*batch, *event]`` and y ``[*batch, conditions]``, whose batches broadcast."""
        return self.posterior(append(self.features(x), y))

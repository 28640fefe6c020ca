"""Classes."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.likelihoods.dimensions import as_event, check_parameters

__all__ = ["Categorical"]


class _Classes(dist.Categorical):
    @property
    def mean(self) -> Tensor:
        """The mean of the class number."""
        return self.probs @ torch.arange(self._num_events, dtype=self.probs.dtype, device=self.probs.device)


class Categorical(nn.Module):
    """Independent values, each one of so many classes, with logits from a network.

    With 256 classes, a pixel has any distribution over its levels (van den Oord et al. 2016, section 2.2).

    Data are class numbers 0, 1, ..., classes - 1, of dtype ``int64``; a posterior's network has to take such. The mean
    is that of the number, which says something where the classes are ordered, as levels are; where they are not, take
    ``likelihood(z).base_dist.probs``.

    Args:
        network: Maps latents ``[*batch, latent]`` to logits ``[*batch, *event, classes]``.

    Raises:
        ValueError: If (when called) the logits have no dimension but the last beyond those of the batch.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        logits = check_parameters("Categorical", self.network(z), z, "classes")
        return as_event(_Classes(logits=logits, validate_args=False), z)

"""A likelihood for classes."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.likelihoods.dimensions import as_event, check_parameters
from pyro_vae.nn.with_network import WithNetwork


class _Classes(dist.Categorical):
    # Pyro's compares addresses in memory, to find enumerated values, which data are not; torch cannot compile that.
    log_prob = torch.distributions.Categorical.log_prob

    @property
    def mean(self) -> Tensor:
        """The mean of the class index."""
        return self.probs @ torch.arange(self._num_events, dtype=self.probs.dtype, device=self.probs.device)


class Categorical(WithNetwork):
    """Independent categorical values with logits from a network.

    With 256 classes, a pixel has an arbitrary distribution over its levels (van den Oord et al. 2016, section 2.2).

    Data are class indices 0, 1, ..., classes - 1 of dtype ``int64``, which the network of the posterior must accept
    (:class:`pyro_vae.nn.OneHot`). ``mean`` is the mean of the index, which is meaningful for ordered classes such as
    grey levels; for others use ``likelihood(z).base_dist.probs``.

    Args:
        network: Maps latents ``[*batch, latent]`` to logits ``[*batch, *event, classes]``.

    Raises:
        ValueError: When called, if the logits have no dimension for the classes.

    Example:
        >>> likelihood = likelihoods.Categorical(nn.mlp(2, [8], (5, 3)))  # 5 values of 3 classes
        >>> likelihood(torch.zeros(4, 2)).sample().shape
        torch.Size([4, 5])
    """

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        logits = check_parameters("Categorical", self.network(z), z, "classes")
        return as_event(_Classes(logits=logits, validate_args=False), z)

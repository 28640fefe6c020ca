"""8-bit pixels."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_vae import distributions
from pyro_vae.checks import check_count
from pyro_vae.likelihoods.dimensions import as_event, split_parameters

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(nn.Module):
    """Independent pixels of 256 levels, each a logistic variable rounded to a level (Kingma et al. 2016).

    It gives a probability to levels, so that the evidence is bounded by 0 and in bits per pixel comparable with that of
    other models of 8-bit pixels. The scale is softplus(raw) and a tenth of a level; at that scale a level
    at the location has more than 98% of the probability, and below it little is gained but large gradients.

    Data are the levels k / (levels - 1), from 0 to 1: 8-bit pixels divided by 255.

    Args:
        network: Maps latents ``[*batch, latent]`` to ``[*batch, *event, 2]``: locations, in the units of the data, and
            raw scales.
        levels: The number of levels, at least 2.

    Raises:
        ValueError: If ``levels`` is not an integer of at least 2, or (when called) the last dimension is not of size 2.
    """

    def __init__(self, network: nn.Module, levels: int = 256) -> None:
        super().__init__()
        self.network = network
        self.levels = check_count("levels", levels, least=2)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        loc, raw_scale = split_parameters("DiscretizedLogistic", self.network(z), z, "loc", "raw scale")
        scale = softplus(raw_scale) + 0.1 / (self.levels - 1)
        return as_event(distributions.DiscretizedLogistic(loc, scale, self.levels, validate_args=False), z)

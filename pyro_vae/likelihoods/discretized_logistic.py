"""A likelihood for 8-bit pixels."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_vae import distributions
from pyro_vae.checks import check_count
from pyro_vae.likelihoods.dimensions import as_event, split_parameters


class DiscretizedLogistic(nn.Module):
    """Independent pixels with 256 levels, each a logistic variable rounded to a level (Kingma et al. 2016).

    It gives probabilities to levels, so log p(x) is at most 0, and in bits per pixel comparable with that of other
    models of 8-bit pixels. The scale is softplus(raw) plus a tenth of a level: at that scale the level at the location
    has more than 98% of the probability; smaller scales would gain little and make gradients large.

    Data are the levels k / (levels - 1), from 0 to 1: 8-bit pixels divided by 255.

    Args:
        network: Maps latents ``[*batch, latent]`` to ``[*batch, *event, 2]``: locations, in the units of the data, and
            raw scales.
        levels: The number of levels, at least 2.

    Raises:
        ValueError: If ``levels`` is not an integer of at least 2; when called, if the last dimension is not of size 2.

    Example:
        >>> likelihood = likelihoods.DiscretizedLogistic(nn.mlp(2, [8], (1, 4, 4, 2)))
        >>> pixels = torch.randint(256, (8, 1, 4, 4)) / 255
        >>> bool((likelihood(torch.zeros(8, 2)).log_prob(pixels) < 0).all())
        True
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

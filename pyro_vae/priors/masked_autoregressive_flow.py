"""A masked autoregressive flow."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.distributions import Distribution

from pyro_vae.checks import check_count
from pyro_vae.distributions.zuko_import import zuko


class MaskedAutoregressiveFlow(nn.Module):
    """p(z): a standard normal transformed by masked autoregressive networks (Papamakarios et al. 2017, section 3).

    Any unconditional zuko flow can be a prior. Unlike these, this class stores its arguments, so ``pyro_vae.load`` can
    rebuild it.

    Args:
        latent_dim: The number of latent dimensions, at least 1.
        transforms: The number of autoregressive transforms, at least 1.
        hidden_features: The widths of the hidden layers of each transform's network.

    Raises:
        ValueError: If ``latent_dim`` or ``transforms`` is not a positive integer.

    Example:
        >>> priors.MaskedAutoregressiveFlow(2, transforms=2, hidden_features=[16])().sample().shape
        torch.Size([2])
    """

    def __init__(self, latent_dim: int, transforms: int = 3, hidden_features: Sequence[int] = (128,)) -> None:
        super().__init__()
        self.latent_dim = check_count("latent_dim", latent_dim)
        self.transforms = check_count("transforms", transforms)
        self.hidden_features = hidden_features
        self.flow = zuko.flows.MAF(latent_dim, transforms=transforms, hidden_features=list(hidden_features))

    def forward(self) -> Distribution:
        """Returns p(z), with event shape ``[latent]``."""
        return self.flow()

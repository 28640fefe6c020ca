"""Counts with more zeros than their distribution has."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.distributions.conversion import as_pyro
from pyro_vae.distributions.independent import split_independent


class ZeroInflated(nn.Module):
    """Another likelihood of counts, with additional zeros: p(0) = g + (1 - g) p'(0), else (1 - g) p'(x) (Lambert 1992).

    With a :class:`NegativeBinomial` that is the likelihood of scVI (Lopez et al. 2018), where a network gives the
    probability g of an additional zero.

    Args:
        likelihood: A likelihood of counts that are independent given z.
        network: Maps latents ``[*batch, latent]`` to the logits of g, ``[*batch, *event]``.

    Raises:
        ValueError: If (when called) the values of the likelihood are not independent, or the network returns another
            shape.

    Example:
        >>> likelihood = likelihoods.ZeroInflated(likelihoods.Poisson(nn.mlp(2, [8], 5)), nn.mlp(2, [8], 5))
        >>> p = likelihood(torch.zeros(4, 2))
        >>> list(p.batch_shape), list(p.event_shape)
        ([4], [5])
    """

    def __init__(self, likelihood: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.likelihood, self.network = likelihood, network

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of the shapes of the likelihood."""
        base, dims = split_independent(as_pyro(self.likelihood(z)))
        logits = self.network(z)
        if base.event_shape or logits.shape != base.batch_shape:
            raise ValueError(
                f"the logits of additional zeros have shape {list(logits.shape)}; expected {list(base.batch_shape)}, "
                "one for each of the independent counts of the likelihood"
            )
        return dist.ZeroInflatedDistribution(base, gate_logits=logits, validate_args=False).to_event(dims)

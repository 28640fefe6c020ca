"""A mixture of posteriors at learned pseudo-inputs."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.distributions import Mixture


class VampPrior(nn.Module):
    """p(z) = (1 / K) sum over k of q(z | u_k), for learned pseudo-inputs u_k (Tomczak & Welling 2018, section 3).

    The prior that maximizes the ELBO is the posterior averaged over all data; this one averages over K pseudo-inputs.
    Pass the same posterior module to this prior and to the VAE: they share its parameters, which are trained in both
    roles. Any posterior can be used, including flows.

    The pseudo-inputs are not restricted to the range of the data. To restrict them to [0, 1], as the paper does for
    images, use ``VampPrior(nn.Sequential(nn.Hardtanh(0, 1), posterior), pseudo_inputs)``.

    Args:
        posterior: The posterior of the VAE.
        pseudo_inputs: The initial pseudo-inputs, ``[components, *event]``: for example some of the data, or noise.

    Raises:
        TypeError: If the posterior is not a module, or the pseudo-inputs are not a floating-point tensor.
        ValueError: If there are no pseudo-inputs.

    Example:
        >>> posterior = posteriors.Normal(nn.mlp((1, 4, 4), [8], 4))
        >>> prior = priors.VampPrior(posterior, pseudo_inputs=x[:5])
        >>> VAE(prior, likelihoods.Bernoulli(nn.mlp(2, [8], (1, 4, 4))), posterior).sample(3).shape
        torch.Size([3, 1, 4, 4])
    """

    logits: Tensor

    def __init__(self, posterior: nn.Module, pseudo_inputs: Tensor) -> None:
        super().__init__()
        if not isinstance(posterior, nn.Module):
            raise TypeError(f"posterior is of type {type(posterior).__name__}; expected the nn.Module of the VAE")
        if not isinstance(pseudo_inputs, Tensor) or not pseudo_inputs.is_floating_point():
            kind = pseudo_inputs.dtype if isinstance(pseudo_inputs, Tensor) else type(pseudo_inputs).__name__
            raise TypeError(f"pseudo_inputs is of type {kind}; expected a floating-point tensor, since it is learned")
        if pseudo_inputs.ndim == 0 or len(pseudo_inputs) == 0:
            shape = list(pseudo_inputs.shape)
            raise ValueError(f"pseudo_inputs has shape {shape}; expected [components, *event] with at least one")
        self.posterior = posterior
        self.pseudo_inputs = nn.Parameter(pseudo_inputs.detach().clone())
        self.register_buffer("logits", self.pseudo_inputs.new_zeros(len(pseudo_inputs)), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Returns p(z), with event shape ``[latent]``."""
        return Mixture(self.logits, self.posterior(self.pseudo_inputs))

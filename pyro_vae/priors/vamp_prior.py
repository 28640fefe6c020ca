"""A prior made of the posterior."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.distributions import Mixture

__all__ = ["VampPrior"]


class VampPrior(nn.Module):
    """p(z) = (1 / K) sum over k of q(z | u_k), for learned pseudo-inputs u_k (Tomczak & Welling 2018, section 3).

    The prior that is best for the ELBO is the posterior averaged over all data; this is one averaged over K
    pseudo-inputs. It shares the posterior with the VAE, so pass both the same module: it is one module in the VAE, in
    copies of it and in its parameters, and learns from both roles. Any posterior will do, a flow as well as a normal.

    Nothing keeps the pseudo-inputs where data are. If that is wanted, put it before the posterior, here only:
    ``VampPrior(nn.Sequential(nn.Hardtanh(0, 1), posterior), pseudo_inputs)`` is what the paper does for images.

    Args:
        posterior: The posterior of the VAE.
        pseudo_inputs: Where they start, ``[components, *event]``: some of the data, for one, or noise.

    Raises:
        TypeError: If the posterior is not a module, or the pseudo-inputs are not a floating-point tensor.
        ValueError: If there are no pseudo-inputs.
    """

    logits: Tensor

    def __init__(self, posterior: nn.Module, pseudo_inputs: Tensor) -> None:
        super().__init__()
        if not isinstance(posterior, nn.Module):
            raise TypeError(f"posterior is of type {type(posterior).__name__}; expected the module that the VAE has")
        if not isinstance(pseudo_inputs, Tensor) or not pseudo_inputs.is_floating_point():
            kind = pseudo_inputs.dtype if isinstance(pseudo_inputs, Tensor) else type(pseudo_inputs).__name__
            raise TypeError(f"pseudo_inputs is of type {kind}; expected a floating-point tensor, for it is learned")
        if pseudo_inputs.ndim == 0 or len(pseudo_inputs) == 0:
            shape = list(pseudo_inputs.shape)
            raise ValueError(f"pseudo_inputs has shape {shape}; expected [components, *event] with at least one")
        self.posterior = posterior
        self.pseudo_inputs = nn.Parameter(pseudo_inputs.detach().clone())
        self.register_buffer("logits", self.pseudo_inputs.new_zeros(len(pseudo_inputs)), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Returns p(z), with event shape ``[latent]``."""
        return Mixture(self.logits, self.posterior(self.pseudo_inputs))

"""The two Pyro programs that a prior, a likelihood and a posterior make."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.infer.util import is_validation_enabled
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vae.checks import check_count, check_data, check_parts
from pyro_vae.distributions import as_pyro
from pyro_vae.parameters import declare_parameters

__all__ = ["VAE"]


class VAE(PyroModule):
    """A variational autoencoder: the programs p(z) p(x given z) and q(z given x) (Kingma & Welling 2013).

    Both programs have one plate, ``"data"`` at dim -1, and the sites ``"z"`` (latent) and, in the model, ``"x"``
    (observed). They are ordinary Pyro programs, so all of Pyro works on them: ``SVI``, every ELBO, ``Predictive``,
    ``poutine``, NUTS. To swap a part is to pass another module.

    The parameters belong to this module, not to Pyro's global parameter store: two VAEs in one process do not share
    them, ``load_state_dict`` and ``copy.deepcopy`` do what they do in PyTorch, and a parameter with
    ``requires_grad=False`` stays as it is.

    Args:
        prior: ``prior()`` returns p(z), with event shape ``[latent]``.
        likelihood: ``likelihood(z)`` returns p(x given z), with the batch shape of z.
        posterior: ``posterior(x)`` returns q(z given x), with the batch shape of x and event shape ``[latent]``.

    Attributes:
        event_shape: The shape of one datapoint, ``[*event]``.
        latent_shape: The shape of one latent, ``[latent]``.

    Raises:
        TypeError: If a part is not a module or does not return a distribution.
        ValueError: If the parts do not fit together; they are run once, on one draw from the prior, to find out.
    """

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module) -> None:
        super().__init__()
        self.latent_shape, self.event_shape = check_parts(prior, likelihood, posterior)
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior

    def model(self, x: Tensor) -> Tensor:
        """The program p(z) p(x given z), with x ``[n, *event]`` observed. Returns x.

        With Pyro's validation enabled (its default) the data are checked at every call, as in :meth:`check`.
        """
        if is_validation_enabled():
            self.check(x)
        declare_parameters(self, self.prior, self.likelihood)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", as_pyro(self.prior()))
            return pyro.sample("x", as_pyro(self.likelihood(z)), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """The program q(z given x), for x ``[n, *event]``. Returns z ``[n, latent]``."""
        if is_validation_enabled():
            self.check(x)
        declare_parameters(self, self.posterior)
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("z", as_pyro(self.posterior(x)))

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draws n datapoints from p(x), ``[n, *event]``; ``likelihood(z).mean`` gives their smooth counterparts."""
        check_count("n", n)
        return self.likelihood(self.prior().sample((n,))).sample()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The codes of x ``[n, *event]``: the means of q(z given x), ``[n, latent]``."""
        self.check(x)
        return self.posterior(x).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x given z) at the codes of x ``[n, *event]``; the same shape as x."""
        return self.likelihood(self.encode(x)).mean

    @torch.no_grad()
    def check(self, x: Tensor) -> None:
        """Checks that x ``[n, *event]`` is data this VAE can take; cheap, and draws no random numbers.

        Raises:
            TypeError: If x is not a tensor or its dtype is not that of the parameters.
            ValueError: If x is empty, misshapen, on another device, or outside the support of the likelihood
                (NaN is outside of every support).
        """
        check_data(x, self.event_shape, self._likelihood_at_zero(), like=self._any_tensor())

    def _likelihood_at_zero(self) -> dist.TorchDistribution:
        reference = self._any_tensor()
        reference = torch.empty(0) if reference is None else reference
        return self.likelihood(reference.new_zeros(1, *self.latent_shape))

    def _any_tensor(self) -> Tensor | None:
        tensors = (*self.parameters(), *self.buffers())
        return next((tensor for tensor in tensors if tensor.is_floating_point()), None)

    def __getstate__(self) -> dict[str, Any]:
        # Pyro hangs a weak reference on every parameter it has seen, and those cannot be pickled.
        for parameter in self.parameters():
            parameter.__dict__.pop("unconstrained", None)
        return self.__dict__.copy()

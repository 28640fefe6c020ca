"""The two Pyro programs that a prior, a likelihood and a posterior make."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyro_vae.checks import check_count
from pyro_vae.distributions import as_pyro
from pyro_vae.models.latent_variable_model import LatentVariableModel
from pyro_vae.models.parameters import declare_parameters
from pyro_vae.models.parts_fit import check_particles, check_parts

__all__ = ["VAE"]


class VAE(LatentVariableModel):
    """A variational autoencoder: the programs p(z) p(x | z) and q(z | x) (Kingma & Welling 2013).

    Both programs have one plate, ``"data"`` at dim -1, and the sites ``"z"`` (latent) and, in the model, ``"x"``
    (observed). They are ordinary Pyro programs, so all of Pyro works on them: ``SVI``, every ELBO, ``Predictive``,
    ``poutine``, NUTS. To swap a part is to pass another module.

    Args:
        prior: ``prior()`` returns p(z), with event shape ``[latent]``.
        likelihood: ``likelihood(z)`` returns p(x | z), with the batch shape of z.
        posterior: ``posterior(x)`` returns q(z | x), with the batch shape of x and event shape ``[latent]``.

    Raises:
        TypeError: If a part is not a module or does not return a distribution.
        ValueError: If the parts do not fit together; they are run once, on one draw from the prior, to find out.
    """

    _example_z: Tensor

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module) -> None:
        z, x, support = check_parts(prior, likelihood, posterior)
        super().__init__(x, support)
        self.register_buffer("_example_z", z, persistent=False)
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior

    def model(self, x: Tensor, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:  # noqa: ARG002
        """The program p(z) p(x | z), with x ``[n, *event]`` observed. Returns x.

        With Pyro's validation enabled (its default) the data are checked at every call, as in :meth:`check`.
        Observations are for the guide: ``ReweightedWakeSleep`` may pass them to both, and has the model draw x anew.
        """
        if is_validation_enabled():
            self.check(x)
        declare_parameters(self, self.prior, self.likelihood)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", as_pyro(self.prior()))
            check_particles("likelihood(z)", self.likelihood, z)
            return pyro.sample("x", as_pyro(self.likelihood(z)), obs=x)

    def guide(self, x: Tensor, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:
        """The program q(z | x), for x ``[n, *event]``. Returns z ``[n, latent]``.

        In the sleep phase of Pyro's ``ReweightedWakeSleep`` it is called with observations, which take the place of x.
        """
        if is_validation_enabled():
            self.check(x)
        declare_parameters(self, self.posterior)
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("z", as_pyro(self.posterior(self.data_of(x, observations))))

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draws n datapoints from p(x), ``[n, *event]``; ``likelihood(z).mean`` gives their smooth counterparts."""
        check_count("n", n)
        return self.likelihood(self.prior().sample((n,))).sample()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The codes of x ``[n, *event]``: the means of q(z | x), ``[n, latent]``.

        Raises:
            NotImplementedError: If the distribution that the posterior returns has no mean in closed form.
        """
        self.check(x)
        q = self.posterior(x)
        try:
            return q.mean
        except NotImplementedError as error:
            raise NotImplementedError(f"{type(q).__name__} has no mean; draw codes from vae.posterior(x)") from error

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x | z) at the codes of x ``[n, *event]``; the same shape as x."""
        return self.likelihood(self.encode(x)).mean

    @property
    def latent_shape(self) -> torch.Size:
        """The shape of one latent, ``[latent]``."""
        return self._example_z.shape[1:]

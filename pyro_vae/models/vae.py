"""The two Pyro programs that a prior, a likelihood and a posterior make."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.checks import check_count
from pyro_vae.distributions import as_pyro
from pyro_vae.exporting import Program
from pyro_vae.models.at_means import mean_of, mean_or_draw
from pyro_vae.models.exported import ROWS, conditional, encoder, log_density, picked
from pyro_vae.models.latent_variable_model import LatentVariableModel
from pyro_vae.models.parts_fit import check_parts
from pyro_vae.system.grad_mode import without_gradients


class VAE(LatentVariableModel):
    """A variational autoencoder: the programs p(z) p(x | z) and q(z | x) (Kingma & Welling 2013).

    Both programs have one plate, ``"data"`` at dim -1, and the sites ``"z"`` (latent) and, in the model, ``"x"``
    (observed). They are ordinary Pyro programs, so all of Pyro works on them: ``SVI``, every ELBO, ``Predictive``,
    ``poutine``, NUTS. To swap a part, pass another module.

    Args:
        prior: ``prior()`` returns p(z), with event shape ``[latent]``.
        likelihood: ``likelihood(z)`` returns p(x | z), with the batch shape of z.
        posterior: ``posterior(x)`` returns q(z | x), with the batch shape of x and event shape ``[latent]``.

    Raises:
        TypeError: If a part is not a module or does not return a distribution.
        ValueError: If the parts do not fit together; they are run once, on one draw from the prior, to find out.

    Example:
        >>> vae = VAE(
        ...     priors.StandardNormal(2),
        ...     likelihoods.Bernoulli(nn.mlp(2, [8], (1, 4, 4))),
        ...     posteriors.Normal(nn.mlp((1, 4, 4), [8], 4)),
        ... )
        >>> vae.sample(3).shape
        torch.Size([3, 1, 4, 4])
    """

    _example_z: Tensor

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module) -> None:
        z, x, support = check_parts(prior, likelihood, posterior)
        super().__init__(x, support, prior=prior, likelihood=likelihood, posterior=posterior)
        self.register_buffer("_example_z", z, persistent=False)

    def model(self, x: Tensor, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:  # noqa: ARG002
        """The program p(z) p(x | z), with x ``[n, *event]`` observed. Returns x.

        With Pyro's validation enabled (its default) the data are checked at every call, as in :meth:`check`.
        Observations are for the guide: ``ReweightedWakeSleep`` may pass them to both, and has the model draw x anew.
        """
        with self._data_plate([self.prior, self.likelihood], x):
            return self._observe(x, pyro.sample("z", as_pyro(self.prior())))

    def guide(self, x: Tensor, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:
        """The program q(z | x), for x ``[n, *event]``. Returns z ``[n, latent]``.

        In the sleep phase of Pyro's ``ReweightedWakeSleep`` it conditions on the observations instead of x.
        """
        with self._data_plate([self.posterior], x):
            return pyro.sample("z", as_pyro(self.posterior(self.data_of(x, observations))))

    def default_loss(self) -> ELBO:
        """Pyro's ELBO with the KL divergence in closed form, if there is one."""
        return TraceMeanField_ELBO()

    @torch.no_grad()
    def draw_prior(self, n: int) -> tuple[dict[str, Tensor], Distribution]:
        """Draws n latents from the prior. Returns ``{"z": [n, latent]}`` and p(x | z) of batch shape ``[n]``."""
        z = self.prior().sample((check_count("n", n),))
        return {"z": z}, self.likelihood(z)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draws n datapoints from p(x), ``[n, *event]``; :meth:`sample_means` returns their means given z."""
        return self.draw_prior(n)[1].sample()

    @without_gradients
    def encode(self, x: Tensor) -> Tensor:
        """The codes of x ``[n, *event]``: the means of q(z | x), ``[n, latent]``.

        Raises:
            NotImplementedError: If q(z | x) has no mean in closed form; :meth:`codes` draws from it.
        """
        self.check(x)
        return mean_of(self.posterior(x))

    @without_gradients
    def codes(self, x: Tensor) -> dict[str, Tensor]:
        """Codes of x ``[n, *event]``, ``{"z": [n, latent]}``: means of q(z | x), or draws if it has no mean."""
        self.check(x)
        return {"z": mean_or_draw(self.posterior(x))}

    @without_gradients
    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z) at latents z ``[*batch, latent]``: ``[*batch, *event]``."""
        return self.likelihood(z).mean

    @without_gradients
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x | z) at the :meth:`codes` of x ``[n, *event]``; the same shape as x."""
        return self.likelihood(self.codes(x)["z"]).mean

    def _export_programs(self) -> list[Program]:
        examples, likelihood, prior = self._examples(*ROWS), self.likelihood, self.prior
        words = {"x": f"data, {self._support}", "z": "latents"}
        return [
            encoder(self.posterior, [self.posterior], picked(examples, "x"), words, "q(z | x)"),
            conditional("decoder", likelihood, [likelihood], picked(examples, "z"), words, "p(x | z)"),
            log_density(
                lambda x, z: (likelihood(z).log_prob(x), prior().log_prob(z)),
                [likelihood, prior],
                picked(examples, "x", "z"),
                words,
                ("log p(x | z)", "log p(z)"),
            ),
        ]

    @property
    def latent_shape(self) -> torch.Size:
        """The shape of one latent, ``[latent]``."""
        return self._example_z.shape[1:]

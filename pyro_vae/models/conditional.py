"""Variational autoencoders of each datapoint given conditions: p(x | z, y)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.checks import check_count
from pyro_vae.distributions import as_pyro
from pyro_vae.exporting import Program
from pyro_vae.models.at_means import mean_of, mean_or_draw
from pyro_vae.models.conditions import append, posterior_given
from pyro_vae.models.exported import ROWS, conditional, encoder, log_density, picked
from pyro_vae.models.latent_variable_model import LatentVariableModel
from pyro_vae.models.parts_fit import check_parts
from pyro_vae.system.grad_mode import without_gradients
from pyro_vae.system.tracing import is_tracing


class ConditionalVAE(LatentVariableModel):
    """The programs p(z) p(x | z, y) and q(z | x, y) (Sohn et al. 2015, section 4.1, with a prior independent of y).

    The conditions y are what is known of a datapoint: attributes, or a label by ``torch.nn.functional.one_hot``. They
    are appended to z, so that the likelihoods of a :class:`~pyro_vae.VAE` can be used, with networks of
    ``latent + conditions`` inputs. The plate and the sites are those of a ``VAE``. The functions of
    ``pyro_vae.evidence`` take ``(x, y)``. To functions that need programs of x alone, pass ``partial(vae.model, y=y)``
    and ``partial(vae.guide, y=y)``, for as many datapoints as can be computed at once.

    Args:
        prior: ``prior()`` returns p(z), with event shape ``[latent]``.
        likelihood: Called with z and y, ``[*batch, latent + conditions]``; returns p(x | z, y).
        posterior: Returns q(z | x, y). If its ``forward`` has two required arguments, it is called as
            ``posterior(x, y)``, with x ``[*batch, *event]`` and y ``[*batch, conditions]``, as a
            :class:`~pyro_vae.ConditionalPosterior` is; otherwise with one tensor, x flattened and y appended,
            ``[*batch, pixels + conditions]``.
        conditions: The number of conditions, y being ``[n, conditions]``.

    Raises:
        TypeError: If a part is not a module or does not return a distribution.
        ValueError: If the parts do not fit together; they are run once, on one draw from the prior, to find out.

    Example:
        >>> vae = ConditionalVAE(
        ...     priors.StandardNormal(2),
        ...     likelihoods.Bernoulli(nn.mlp(2 + 3, [8], (1, 4, 4))),
        ...     posteriors.Normal(nn.mlp(16 + 3, [8], 4)),
        ...     conditions=3,
        ... )
        >>> vae.sample(torch.eye(3)).shape  # an image of each class
        torch.Size([3, 1, 4, 4])
    """

    _example_y: Tensor

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module, conditions: int) -> None:
        conditions = check_count("conditions", conditions)
        z, x, support = check_parts(prior, likelihood, posterior, conditions)
        super().__init__(x, support, prior=prior, likelihood=likelihood, posterior=posterior)
        self.register_buffer("_example_y", z.new_zeros(1, conditions), persistent=False)
        self.conditions = conditions

    def model(self, x: Tensor, y: Tensor, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:  # noqa: ARG002
        """The program p(z) p(x | z, y), with x ``[n, *event]`` observed, given y ``[n, conditions]``. Returns x."""
        with self._data_plate([self.prior, self.likelihood], x, y):
            return self._observe(x, append(pyro.sample("z", as_pyro(self.prior())), y))

    def guide(self, x: Tensor, y: Tensor, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:
        """The program q(z | x, y), for x ``[n, *event]`` and y ``[n, conditions]``. Returns z ``[n, latent]``.

        Observations are as in :meth:`VAE.guide <pyro_vae.VAE.guide>`.
        """
        with self._data_plate([self.posterior], x, y):
            return pyro.sample("z", as_pyro(self._posterior(self.data_of(x, observations), y)))

    def default_loss(self) -> ELBO:
        """Pyro's ELBO with the KL divergence in closed form, if there is one."""
        return TraceMeanField_ELBO()

    def check_conditions(self, y: Any, n: int) -> None:
        """Checks that y is a tensor ``[n, conditions]`` of finite floats, of the dtype of the latents.

        Raises:
            TypeError: If it is not a tensor of such floats.
            ValueError: If it has another shape or device, or values that are not finite.
        """
        example, columns = self._example_y, self._example_y.shape[1]
        if not isinstance(y, Tensor) or y.dtype != example.dtype:
            kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(
                f"y is of type {kind}; expected a tensor of {example.dtype} (labels by one_hot(...).to(...))"
            )
        if n == 0 or y.shape != (n, columns):
            raise ValueError(f"y has shape {list(y.shape)}; expected [{n or 'n'}, {columns}], a row for each x")
        if y.device != example.device:
            raise ValueError(f"y is on device {y.device}; expected {example.device}, where the VAE is")
        if not is_tracing() and not y.isfinite().all():
            raise ValueError("y has values that are NaN or infinite")

    @torch.no_grad()
    def draw_prior(self, y: Tensor) -> tuple[dict[str, Tensor], Distribution]:
        """Draws a latent for each row of y ``[n, conditions]``. Returns ``{"z": [n, latent]}`` and p(x | z, y)."""
        self.check_conditions(y, y.shape[0] if isinstance(y, Tensor) and y.ndim else 0)
        z = self.prior().sample((len(y),))
        return {"z": z}, self.likelihood(append(z, y))

    @torch.no_grad()
    def sample(self, y: Tensor) -> Tensor:
        """Draws a datapoint from p(x | y) for each row of y ``[n, conditions]``: ``[n, *event]``."""
        return self.draw_prior(y)[1].sample()

    @without_gradients
    def encode(self, x: Tensor, y: Tensor) -> Tensor:
        """The codes of x ``[n, *event]`` given y ``[n, conditions]``: the means of q(z | x, y), ``[n, latent]``.

        Raises:
            NotImplementedError: If q(z | x, y) has no mean in closed form; :meth:`codes` draws from it.
        """
        self.check(x)
        self.check_conditions(y, x.shape[0])
        return mean_of(self._posterior(x, y))

    @without_gradients
    def codes(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Codes of x given y, ``{"z": [n, latent]}``: means of q(z | x, y), or draws if it has no mean."""
        self.check(x)
        self.check_conditions(y, x.shape[0])
        return {"z": mean_or_draw(self._posterior(x, y))}

    @without_gradients
    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """The mean of p(x | z, y) at latents z ``[n, latent]`` and conditions y ``[n, conditions]``."""
        return self.likelihood(append(z, y)).mean

    @without_gradients
    def reconstruct(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean of p(x | z, y) at the :meth:`codes` of x ``[n, *event]`` given y ``[n, conditions]``."""
        return self.likelihood(append(self.codes(x, y)["z"], y)).mean

    def _export_programs(self) -> list[Program]:
        conditions = [torch.rand(n, self.conditions, dtype=self._example_y.dtype) for n in ROWS]
        drawn = self._examples(*conditions)
        examples = ({**drawn[0], "y": conditions[0]}, {**drawn[1], "y": conditions[1]})
        likelihood, prior = self.likelihood, self.prior
        words = {"x": f"data, {self._support}", "y": "conditions", "z": "latents"}

        def p_x(z: Tensor, y: Tensor) -> Any:
            return likelihood(append(z, y))

        return [
            encoder(self._posterior, [self.posterior], picked(examples, "x", "y"), words, "q(z | x, y)"),
            conditional("decoder", p_x, [likelihood], picked(examples, "z", "y"), words, "p(x | z, y)"),
            log_density(
                lambda x, z, y: (p_x(z, y).log_prob(x), prior().log_prob(z)),
                [likelihood, prior],
                picked(examples, "x", "z", "y"),
                words,
                ("log p(x | z, y)", "log p(z)"),
            ),
        ]

    def _posterior(self, x: Tensor, y: Tensor) -> Any:
        return posterior_given(self.posterior, x, y, len(self.event_shape))

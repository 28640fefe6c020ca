"""Variational autoencoders that know something of each datapoint: p(x | z, y)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyro
import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyro_vae.checks import check_count
from pyro_vae.distributions import as_pyro
from pyro_vae.models.latent_variable_model import LatentVariableModel
from pyro_vae.models.parameters import declare_parameters
from pyro_vae.models.parts_fit import check_particles, check_parts

__all__ = ["ConditionalVAE", "append", "append_zeros"]


def append(vectors: Tensor, conditions: Tensor) -> Tensor:
    """Appends conditions ``[*batch, conditions]`` to vectors ``[*batch, size]``; leading dimensions broadcast.

    Returns:
        ``[*batch, size + conditions]``; integers become of the dtype of the conditions.
    """
    if not vectors.is_floating_point():
        vectors = vectors.to(conditions.dtype)
    batch = torch.broadcast_shapes(vectors.shape[:-1], conditions.shape[:-1])
    return torch.cat([vectors.expand(*batch, -1), conditions.expand(*batch, -1)], dim=-1)


def append_zeros(conditions: int) -> Callable[[Tensor, Tensor], Tensor]:
    """For ``check_parts``: appends conditions of zero, of the dtype of z, to z or to x, ``[1, ...]``, flattened."""
    return lambda values, z: append(values.flatten(1), z.new_zeros(1, conditions))


class ConditionalVAE(LatentVariableModel):
    """The programs p(z) p(x | z, y) and q(z | x, y) (Sohn et al. 2015, section 4.1, with a prior of its own).

    y is what is known of a datapoint: attributes, or a label by ``torch.nn.functional.one_hot``. It is appended to what
    likelihood and posterior are called with, so that the parts of a :class:`~pyro_vae.VAE` will do, with networks of so
    many more inputs. The plate and the sites are those of a ``VAE``. The functions of ``pyro_vae.evidence`` take
    ``(x, y)``. To functions of programs of x alone, pass ``partial(vae.model, y=y)`` and ``partial(vae.guide, y=y)``,
    for as many datapoints as can be computed at once.

    Args:
        prior: ``prior()`` returns p(z), with event shape ``[latent]``.
        likelihood: Called with z and y, ``[*batch, latent + conditions]``; returns p(x | z, y).
        posterior: Called with x, flattened, and y, ``[*batch, pixels + conditions]``; returns q(z | x, y).
        conditions: The number of conditions, y being ``[n, conditions]``.

    Raises:
        TypeError: If a part is not a module or does not return a distribution.
        ValueError: If the parts do not fit together; they are run once, on one draw from the prior, to find out.
    """

    _example_y: Tensor

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module, conditions: int) -> None:
        conditions = check_count("conditions", conditions)
        z, x, support = check_parts(prior, likelihood, posterior, append_zeros(conditions))
        super().__init__(x, support)
        self.register_buffer("_example_y", z.new_zeros(1, conditions), persistent=False)
        self.conditions = conditions
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior

    def model(self, x: Tensor, y: Tensor, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:  # noqa: ARG002
        """The program p(z) p(x | z, y), with x ``[n, *event]`` observed, given y ``[n, conditions]``. Returns x."""
        if is_validation_enabled():
            self.check(x)
            self.check_conditions(y, len(x))
        declare_parameters(self, self.prior, self.likelihood)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", as_pyro(self.prior()))
            check_particles("likelihood(z)", self.likelihood, z)
            return pyro.sample("x", as_pyro(self.likelihood(append(z, y))), obs=x)

    def guide(self, x: Tensor, y: Tensor, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:
        """The program q(z | x, y), for x ``[n, *event]`` and y ``[n, conditions]``. Returns z ``[n, latent]``.

        Observations are as in :meth:`VAE.guide <pyro_vae.VAE.guide>`.
        """
        if is_validation_enabled():
            self.check(x)
            self.check_conditions(y, len(x))
        declare_parameters(self, self.posterior)
        with pyro.plate("data", x.shape[0], dim=-1):
            x = self.data_of(x, observations).flatten(-len(self.event_shape))
            return pyro.sample("z", as_pyro(self.posterior(append(x, y))))

    def check_conditions(self, y: Tensor, n: int) -> None:
        """Checks that y is a tensor ``[n, conditions]`` of finite floats, as the latents are.

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
        if not y.isfinite().all():
            raise ValueError("y has values that are NaN or infinite")

    @torch.no_grad()
    def sample(self, y: Tensor) -> Tensor:
        """Draws a datapoint from p(x | y) for each row of y ``[n, conditions]``: ``[n, *event]``."""
        self.check_conditions(y, len(y) if isinstance(y, Tensor) and y.ndim else 0)
        return self.likelihood(append(self.prior().sample((len(y),)), y)).sample()

    @torch.no_grad()
    def encode(self, x: Tensor, y: Tensor) -> Tensor:
        """The codes of x ``[n, *event]`` given y ``[n, conditions]``: the means of q(z | x, y), ``[n, latent]``."""
        self.check(x)
        self.check_conditions(y, len(x))
        return self.posterior(append(x.flatten(1), y)).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean of p(x | z, y) at the codes of x ``[n, *event]``; with another y, in its manner."""
        return self.likelihood(append(self.encode(x, y), y)).mean

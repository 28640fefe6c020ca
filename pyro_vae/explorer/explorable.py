"""Which models and data the page can show."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae.models import VAE, ConditionalVAE
from pyro_vae.models.parts_fit import trial


def check_vae(vae: Any, x: Tensor, conditions: Tensor | None) -> None:
    """Checks that the page can show this VAE and its data.

    Raises:
        TypeError: If it cannot.
        ValueError: Likewise.
    """
    if not isinstance(vae, (VAE, ConditionalVAE)):
        raise TypeError(
            f"vae is of type {type(vae).__name__}; the explorer shows a VAE or a ConditionalVAE, which have one vector "
            "of latents"
        )
    if isinstance(vae, ConditionalVAE) != (conditions is not None):
        expected = "no conditions" if isinstance(vae, VAE) else "conditions, [n, conditions]"
        raise ValueError(f"vae is a {type(vae).__name__}; expected {expected}")
    with trial({"vae": vae}):
        z = vae.prior().sample((1,))
    if z.ndim != 2 or not z.is_floating_point():
        raise ValueError(
            f"the latents of the VAE have shape {list(z.shape[1:])} and dtype {z.dtype}; the explorer shows vectors of "
            "real latents"
        )
    vae.check(x)
    if isinstance(vae, ConditionalVAE):
        vae.check_conditions(conditions, len(x))

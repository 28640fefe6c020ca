"""The ELBO with a weight on the KL term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import TraceMeanField_ELBO
from torch import Tensor

from pyro_vae.checks import check_positive
from pyro_vae.infer.kl_weight import WeightedLatents
from pyro_vae.infer.losses.as_function import as_function


class BetaELBO:
    """The ELBO with the KL term times beta (Higgins et al. 2017, equation 4), or another loss weighted likewise.

    A beta above 1 gives codes with less information about x and less dependence between dimensions. The objective is
    then below the ELBO, so it is still a lower bound on log p(x), but a looser one; with a beta below 1 it is no bound.

    Args:
        beta: The weight of the KL term.
        loss: The loss to weight: an ELBO of Pyro (by default ``TraceMeanField_ELBO()``), or a function of model, guide
            and their arguments.

    Raises:
        ValueError: If ``beta`` is not a positive number.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.BetaELBO(4.0))
        >>> loss = svi.step(x)
    """

    def __init__(self, beta: float, loss: Any = None) -> None:
        self.beta = check_positive("beta", beta)
        self.loss = TraceMeanField_ELBO() if loss is None else loss

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The loss, ``[]``, in nats, summed over the datapoints; it is differentiable."""
        weighted = WeightedLatents(model, self.beta), WeightedLatents(guide, self.beta)
        return as_function(self.loss)(*weighted, *args, **kwargs)

"""Another weight of the KL term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import TraceMeanField_ELBO
from torch import Tensor

from pyro_vae.checks import check_positive
from pyro_vae.infer.kl_weight import WeightedLatents
from pyro_vae.infer.losses.as_function import as_function

__all__ = ["BetaELBO"]


class BetaELBO:
    """The ELBO with the KL term times beta (Higgins et al. 2017, equation 4), or another loss with latents so weighted.

    Above 1 it asks for codes that say less and are less dependent; it is then no bound on log p(x), but below the ELBO.

    Args:
        beta: The weight.
        loss: What to weigh: an ELBO of Pyro, by default ``TraceMeanField_ELBO()``, or a function.

    Raises:
        ValueError: If the weight is not a positive number.
    """

    def __init__(self, beta: float, loss: Any = None) -> None:
        self.beta = check_positive("beta", beta)
        self.loss = TraceMeanField_ELBO() if loss is None else loss

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The loss, summed over the datapoints, with its gradient."""
        weighted = WeightedLatents(model, self.beta), WeightedLatents(guide, self.beta)
        return as_function(self.loss)(*weighted, *args, **kwargs)

"""Any loss as a function whose result has a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import ELBO


def as_function(loss: Any) -> Callable[..., Any]:
    """The loss as a function of model, guide and their arguments; Pyro's ELBOs are not callable themselves.

    Raises:
        TypeError: If it is neither a function nor an ELBO with a ``differentiable_loss``.
    """
    function = getattr(loss, "differentiable_loss", loss)
    if not callable(function) or isinstance(function, ELBO):
        raise TypeError(f"loss is {loss!r}; expected a function of model and guide, or an ELBO that is differentiable")
    return function

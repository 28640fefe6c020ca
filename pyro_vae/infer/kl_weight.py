"""A weight on the latents of two programs, which weights the KL term of their ELBO."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vae.checks import check_positive

__all__ = ["WeightedLatents", "linear_warm_up"]


class WeightedLatents:
    """A program whose latent sites have weighted log-densities. With both programs so, an ELBO has a weighted KL term.

    This is the objective of Higgins et al. 2017 (equation 4), and with a weight that grows from 0 to 1 the warm-up of
    Sønderby et al. 2016 (section 2.3). Observed sites do not change.

    Args:
        program: A model or a guide.
        weight: A number, or a tensor ``[]``. If the tensor is changed in place, the next call uses the new value.

    Example:
        >>> from pyro_vae.infer.kl_weight import WeightedLatents
        >>> beta = torch.tensor(0.1)
        >>> model, guide = (WeightedLatents(program, beta) for program in (vae.model, vae.guide))
        >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.TraceMeanField_ELBO())
        >>> loss, _ = svi.step(x), beta.fill_(0.2)  # the next step has another weight
    """

    def __init__(self, program: Callable[..., Any], weight: Tensor | float) -> None:
        self.program = program
        self.weight = weight

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the program."""
        with _ScaleOfLatents(self.weight):
            return self.program(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        """Whether they are the same program with the same weight object."""
        return isinstance(other, WeightedLatents) and self.program == other.program and self.weight is other.weight

    def __hash__(self) -> int:
        return hash((self.program, id(self.weight)))


class _ScaleOfLatents(Messenger):
    def __init__(self, scale: Tensor | float) -> None:
        super().__init__()
        self.scale = scale

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            msg["scale"] = self.scale * msg["scale"]


def linear_warm_up(epochs: float, start: float = 0.0) -> Callable[[float], float]:
    """A weight that grows linearly from ``start`` to 1 over the given epochs, and stays at 1: ``fit(kl_weight=...)``.

    Raises:
        ValueError: If ``epochs`` is not positive or ``start`` not from 0 to 1.

    Example:
        >>> from pyro_vae.infer.kl_weight import linear_warm_up
        >>> weight = linear_warm_up(10)
        >>> weight(0), weight(5), weight(20)
        (0.0, 0.5, 1.0)
    """
    check_positive("epochs", epochs)
    if not 0 <= start <= 1:
        raise ValueError(f"start is {start!r}; expected a number from 0 to 1")
    return partial(_line, start, epochs)


def _line(start: float, epochs: float, epoch: float) -> float:
    return min(1.0, start + (1 - start) * epoch / epochs)

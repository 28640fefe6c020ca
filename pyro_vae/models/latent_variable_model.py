"""What all variational autoencoders share: parameters of their own, and data that are checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_vae.models.parts_fit import check_data

__all__ = ["LatentVariableModel"]


class LatentVariableModel(PyroModule):
    """A pair of Pyro programs over the rows of x, with one plate ``"data"`` at dim -1 and x observed at site ``"x"``.

    The parameters belong to this module, not to Pyro's global parameter store: two of them in one process do not share
    any, ``load_state_dict`` and ``copy.deepcopy`` do what they do in PyTorch, and a parameter with
    ``requires_grad=False`` stays as it is.

    Args:
        example: A draw of x from the model, ``[1, *event]``: what data look like.
        support: The support of the likelihood.
    """

    _example_x: Tensor

    def __init__(self, example: Tensor, support: Any) -> None:
        super().__init__()
        self._support = support
        # It follows .to(device) and .to(dtype), and is not saved.
        self.register_buffer("_example_x", example, persistent=False)

    @torch.no_grad()
    def check(self, x: Tensor) -> None:
        """Checks that x ``[n, *event]`` is data that can be taken; cheap, and draws no random numbers.

        Raises:
            TypeError: If x is not a tensor or its dtype is not that of draws from the likelihood.
            ValueError: If x is empty, misshapen, on another device, or outside the support of the likelihood
                (NaN is outside of the support of all that are not made for missing values).
        """
        check_data(x, self._example_x, self._support)

    def data_of(self, x: Tensor, observations: Mapping[str, Tensor] | None) -> Tensor:
        """What a guide is to look at: x, or in the sleep phase of ``ReweightedWakeSleep`` what the model has dreamt.

        Args:
            x: Data, ``[n, *event]``.
            observations: Draws from the model by observed site, of which ``"x"`` is ``[*particles, n, *event]``.
        """
        return (observations or {}).get("x", x)

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one datapoint, ``[*event]``."""
        return self._example_x.shape[1:]

    def __getstate__(self) -> dict[str, Any]:
        # Pyro hangs a weak reference on every parameter it has seen, and those cannot be pickled.
        for parameter in self.parameters():
            parameter.__dict__.pop("unconstrained", None)
        return self.__dict__.copy()

"""Checks of the data of each batch, before the first step on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyro_vae.training.batch_of_one import rehearse
from pyro_vae.training.sources import Batch
from pyro_vae.training.support import Observed, observed, surely_inside


class DataCheck:
    """Checks batches by the ``check`` of the VAE, or else by the supports of the sites that observe the data.

    The latter only if Pyro's validation is on where this is made.

    Args:
        vae: The VAE.
        programs: Its model and guide.

    Attributes:
        check: The VAE's own check of data ``[n, *event]``, or None.
    """

    def __init__(self, vae: nn.Module, programs: tuple[Callable[..., Any], Callable[..., Any]]) -> None:
        self.check: Callable[[Tensor], None] | None = getattr(vae, "check", None)
        self._vae = vae
        self._programs = programs
        self._validates = is_validation_enabled()
        self._observed: list[Observed] | None = None
        self._checked: Any = None  # shape, dtype and device of data that passed

    def __call__(self, batch: Batch | None, where: str) -> Batch | None:
        """Checks a batch and returns it.

        Args:
            batch: The batch; None passes.
            where: What the message begins with.

        Raises:
            TypeError: If the VAE cannot take the data.
            ValueError: Likewise.
        """
        try:
            if batch is not None and self.check is not None:
                self._check_data(batch.x, self.check)
            elif batch is not None:
                self._check_observed(batch.gathered())
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{where}: {error}") from error
        return batch

    def _check_data(self, x: Tensor, check: Callable[[Tensor], None]) -> None:
        """Calls the check of the VAE, which is slow, only where it could fail."""
        kind = x.shape[1:], x.dtype, x.device
        if kind != self._checked or not surely_inside(x, getattr(self._vae, "_support", None)):
            check(x)
            self._checked = kind

    def _check_observed(self, batch: Batch) -> None:
        if self._observed is None:
            self._observed = []
            if self._validates:
                model_trace = rehearse(self._vae, self._programs, batch, validate=True)
                self._observed = observed(model_trace, batch.inputs)
        for each in self._observed:
            each.check(batch.inputs[each.argument])

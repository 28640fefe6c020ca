"""The settings of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Any

import torch

from pyro_vae.checks import check_choice, check_count, check_positive
from pyro_vae.training.optimization import check_maker

# These may change when a run is resumed: they do not change what was done before.
_FREE = ("epochs", "patience", "on_nan", "compile")


@dataclass(frozen=True)
class Settings:
    """The arguments of :func:`~pyro_vae.fit` that say how to train; they are explained there.

    Raises:
        TypeError: If one is of a wrong type.
        ValueError: If one is invalid.
    """

    epochs: int
    batch_size: int
    lr: float
    loss: Any
    transform: Callable[..., Any] | None
    optimizer: Callable[..., torch.optim.Optimizer]
    scheduler: Callable[[torch.optim.Optimizer], Any] | None
    scheduler_every: str
    kl_weight: Callable[[float], float] | None
    clip_norm: float | None
    accumulate: int
    patience: int | None
    on_nan: str
    precision: str
    compile: bool | str
    seed: int | None
    drop_last: bool = False
    average: Callable[[int], float] | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            check_count(name, getattr(self, name))
        if self.patience is not None:
            check_count("patience", self.patience)
        for name in ("lr", "clip_norm"):
            if (value := getattr(self, name)) is not None:  # as a float, which JSON knows
                object.__setattr__(self, name, check_positive(name, value))
        check_choice("compile", self.compile, (True, False, "graph", "auto"))
        if self.loss is not None and not (callable(self.loss) or hasattr(self.loss, "loss_and_grads")):
            raise TypeError(f"loss is {self.loss!r}; expected an ELBO of Pyro or a function of model, guide and data")
        check_choice("scheduler_every", self.scheduler_every, ("epoch", "step"))
        check_choice("on_nan", self.on_nan, ("stop", "skip"))
        check_maker("optimizer", self.optimizer)
        if self.scheduler is not None:
            check_maker("scheduler", self.scheduler)
        for name in ("transform", "kl_weight", "average"):
            value = getattr(self, name)
            if not callable(value) and value is not None:
                raise TypeError(f"{name} is of type {type(value).__name__}; expected a function")

    def in_words(self) -> dict[str, Any]:
        """The settings as JSON can hold them, functions by their names.

        Settings with a default are newer than some saved runs. They are left out if they have the default.
        """
        defaults = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        return {
            name: name_of(value)
            for name, value in vars(self).items()
            if name not in _FREE and (name not in defaults or value != defaults[name])
        }


def name_of(value: Any) -> Any:
    """Numbers and strings as they are; for anything else a name that is the same in the next run."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, partial):
        words = [*map(name_of, value.args), *(f"{name}={name_of(each)}" for name, each in value.keywords.items())]
        return f"{name_of(value.func)}({', '.join(map(str, words))})"
    return getattr(value, "__qualname__", None) or type(value).__qualname__

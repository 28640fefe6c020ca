"""Averages of the weights over the steps of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pyro_vae.training.sharding import gathered, spread_as, whole_and_shards


def ema(decay: float = 0.999) -> Callable[[int], float]:
    """An exponential moving average of the weights over the steps: ``fit(average=ema(0.999))``.

    The weights after a step count ``decay`` times as much as those after the next step. So this is the average of about
    the last 1 / (1 - decay) steps. The weights before the first step do not count.

    Args:
        decay: From 0 (only the last step counts) to below 1.

    Returns:
        A function of the number of a step, from 1: the factor of the average of the steps before it. The factors of
        both sum to 1.

    Raises:
        ValueError: If ``decay`` is not from 0 to below 1.

    Example:
        >>> from pyro_vae.training import ema
        >>> [round(ema(0.5)(step), 3) for step in (1, 2, 3)]
        [0.0, 0.333, 0.429]
    """
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
        raise ValueError(f"decay is {decay!r}; expected a number from 0 to below 1")
    return partial(_ema, float(decay))


def _ema(decay: float, step: int) -> float:
    return decay * (1 - decay ** (step - 1)) / (1 - decay**step)


class WeightAverage:
    """The average of the parameters that are trained, over all steps that were taken.

    Args:
        vae: The VAE.
        keep: The factor of the average so far, as a function of the number of the step; see :func:`ema`.

    Attributes:
        tensors: The averages, by the names of the parameters.
        steps: The number of steps.
    """

    def __init__(self, vae: nn.Module, keep: Callable[[int], float]) -> None:
        self._keep = keep
        self._parameters = {name: each for name, each in vae.named_parameters() if each.requires_grad}
        self._trained: dict[str, Tensor] | None = None  # what was loaded
        self.begin()

    def begin(self) -> None:
        """Begins with the weights as they are."""
        self.tensors = self._copies()
        self.steps = 0

    @torch.no_grad()
    def add(self) -> None:
        """Adds the weights after a step.

        Raises:
            ValueError: If the factor of the average so far is not from 0 to 1.
        """
        keep = self._keep(self.steps + 1)
        if not 0 <= keep <= 1:
            raise ValueError(f"average({self.steps + 1}) is {keep!r}; expected a number from 0 to 1")
        self.steps += 1
        update: Any = get_ema_multi_avg_fn(float(keep))
        # Each process averages its own shards, if parameters are spread.
        averages, parameters = [*self.tensors.values()], [*self._parameters.values()]
        update([*chain(*whole_and_shards(averages))], [*chain(*whole_and_shards(parameters))], self.steps)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The VAE has the averages in this context."""
        trained = self._copies()
        self.show()
        try:
            yield
        finally:
            self._set(trained)

    def show(self) -> None:
        """Gives the averages to the VAE."""
        self._set(self.tensors)

    def content(self) -> dict[str, Any]:
        """What is saved besides the averages, which are saved as the weights. All processes must ask."""
        trained = {name: parameter.detach() for name, parameter in self._parameters.items()}
        return {"steps": self.steps, "trained": gathered(trained)}

    def load(self, content: dict[str, Any]) -> None:
        """Loads what :meth:`content` has returned; :meth:`settle` must follow, when the VAE has the saved weights.

        Raises:
            Exception: If the content is invalid.
        """
        self.steps, self._trained = content["steps"], dict(content["trained"])
        if type(self.steps) is not int or self.steps < 0:
            raise ValueError(f"the average has {self.steps!r} steps")
        for name, parameter in self._parameters.items():
            there = self._trained[name]
            if (there.shape, there.dtype) != (parameter.shape, parameter.dtype):
                raise ValueError(f"{name} is {list(there.shape)} of {there.dtype} where it was trained")

    def settle(self) -> None:
        """Takes the weights of the VAE, which were loaded, as the averages, and gives it those that it had."""
        if self._trained is not None:
            self.tensors = self._copies()
            self._set(self._trained)
            self._trained = None

    def shard(self, vae: nn.Module) -> None:
        """Spreads the averages like the parameters of the VAE, which are others now."""
        whole = self.tensors
        self._parameters = {name: each for name, each in vae.named_parameters() if each.requires_grad}
        self.tensors = {name: spread_as(each, whole[name]) for name, each in self._copies().items()}

    def _copies(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def _set(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])

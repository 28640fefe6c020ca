"""The gradients of a batch, computed in parts one after the other: this takes less memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_vae.system.trees import leaves_of, map_leaves
from pyro_vae.training.scales import Scales

_LARGE = 10_000  # elements


class GradientAccumulation:
    """The loss of a batch and its gradients, accumulated over parts of the batch.

    Args:
        loss: An ELBO of Pyro, or a function of model, guide and their arguments: a sum over datapoints.
        parts: The number of parts.
        parameters: Those that get gradients.
        scales: Says whether losses stand for all data. Then the mean over the parts is taken, weighted by their
            datapoints, instead of the sum.
        checks_gradients: Whether the loss is NaN if a gradient is not finite.
    """

    def __init__(
        self,
        loss: Any,
        parts: int,
        parameters: Sequence[Tensor] = (),
        scales: Scales | None = None,
        *,
        checks_gradients: bool = True,
    ) -> None:
        self.loss: Any = loss
        self.parts = parts
        self.parameters = parameters
        self.scales = Scales() if scales is None else scales
        self.checks_gradients = checks_gradients

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Tensor, **kwargs: Tensor) -> Any:
        """Leaves gradients at the parameters. Returns the loss, as a sum over the datapoints of the batch."""
        total: Any = 0.0
        rows = len(next(iter((*args, *kwargs.values()))))
        start = 0
        for size in self._sizes(rows):
            part, keywords = args, kwargs
            if size < rows:
                part, keywords = map_leaves(partial(_rows, start, size), (args, kwargs))
            start += size
            self._scale_gradients(rows / size)
            self.scales.begin()
            loss = self._loss_and_gradients(model, guide, *part, **keywords)
            self.scales.end(size)
            self._scale_gradients(size / rows)
            per_row = size / self.scales.of(size).datapoints
            total = total + (loss if per_row == 1 else per_row * loss)
        if not self.checks_gradients:
            return total
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        parts = [part.reshape(-1) for each in gradients for part in _enough_of(each)]
        return total + 0.0 * torch.cat(parts).sum() if parts else total

    def datapoints(self, rows: int) -> float:
        """The number of datapoints over which the loss of a batch with this number of rows is a sum."""
        mean = self.scales.is_subsample
        return sum(self.scales.of(size).datapoints * (size / rows if mean else 1) for size in self._sizes(rows))

    def _sizes(self, rows: int) -> list[int]:
        """The sizes of the parts."""
        most = max(1, -(-rows // self.parts))
        return [min(most, rows - start) for start in range(0, rows, most)]

    def _loss_and_gradients(self, *args: Any, **kwargs: Any) -> Any:
        if hasattr(self.loss, "loss_and_grads"):  # some return a loss for the model and one for the guide
            return sum(leaves_of(self.loss.loss_and_grads(*args, **kwargs)))
        loss = self.loss(*args, **kwargs)
        loss.backward()
        return loss.detach()

    def _scale_gradients(self, weight: float) -> None:
        """Multiplies the gradients so far by the weight of a part, if the mean over the parts is taken."""
        for parameter in self.parameters if weight != 1 and self.scales.is_subsample else ():
            if parameter.grad is not None:
                parameter.grad = parameter.grad * weight


def _rows(start: int, size: int, tensor: Tensor) -> Tensor:
    return tensor.narrow(0, start, size)


def _enough_of(gradient: Tensor) -> tuple[Tensor, ...]:
    """Parts of a gradient that are not finite if it is not; of a large one, few.

    The gradient of a weight is a sum of products of an output and an input. If one of these is not finite, a whole row
    of the gradient is not, or a whole column. (If a single product overflows, the next loss is not finite.)
    """
    if gradient.ndim < 2 or gradient.numel() < _LARGE:
        return (gradient,)
    return gradient[0], gradient[:, 0]

"""Minibatches of a tensor in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_rows


class Batches:
    """Minibatches ``[batch_size, *event]`` of a tensor, in a new random order in every pass.

    Unlike a ``DataLoader``, it gathers a batch by one indexing operation on the tensor's device.

    Args:
        x: The data, ``[n, *event]``.
        batch_size: The number of datapoints in a batch; the last batch of a pass may be smaller.
        transform: A function of a batch, applied in every pass, such as ``binarize.dynamic``.
        check: A function that is called once with x and raises an error if x is invalid. By default NaN is refused; for
            data with missing values pass ``vae.check``, which accepts NaN if the likelihood does.

    Raises:
        TypeError: If x is not a tensor.
        ValueError: If x is empty or contains NaN, or ``batch_size`` is not a positive integer.

    Example:
        >>> [len(batch) for batch in data.Batches(x, batch_size=3)]
        [3, 3, 2]
    """

    def __init__(
        self,
        x: Tensor,
        batch_size: int,
        transform: Callable[[Tensor], Tensor] | None = None,
        *,
        check: Callable[[Tensor], Any] | None = None,
    ) -> None:
        self.x = check_rows(x)
        (check or _refuse_nan)(x)
        self.batch_size = check_count("batch_size", batch_size)
        self.transform = transform

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        for index in self.indices():
            yield self.gather(index)

    def indices(self) -> Iterator[Tensor]:
        """The indices of the datapoints of each batch of a pass, each ``[batch_size]``."""
        yield from torch.randperm(len(self.x), device=self.x.device).split(self.batch_size)

    def gather(self, index: Tensor) -> Tensor:
        """The transformed batch of the datapoints at the indices ``[batch_size]``."""
        batch = self.x.index_select(0, index)  # faster on a CPU than self.x[index]
        return batch if self.transform is None else self.transform(batch)


def _refuse_nan(x: Tensor) -> None:
    if x.isnan().any():
        raise ValueError(f"x has {int(x.isnan().sum())} values that are NaN")

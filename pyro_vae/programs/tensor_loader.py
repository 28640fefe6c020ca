"""A ``DataLoader`` of tensors in memory, which gathers each batch at once instead of item by item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, StackDataset, Subset, TensorDataset, default_collate

from pyro_vae.programs.arrays import collate


def by_indexing(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A loader of the same batches, in the same order and with the same random numbers, but faster.

    Torch's loader asks for the items one by one, and stacks them. If they are rows of tensors in memory, one indexing
    operation for each tensor makes the same batch, for which no worker processes are needed.

    Args:
        loader: Its data set is a tensor, a ``TensorDataset``, a ``StackDataset`` of these, or a ``Subset`` of one.

    Returns:
        The faster loader, or the same one if its data set is another, if its class or its ``collate_fn`` are the
        user's own, or if it does not make batches.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from pyro_vae.programs.tensor_loader import by_indexing
        >>> rows = TensorDataset(torch.arange(12.0).view(6, 2), torch.arange(6))
        >>> loader = DataLoader(rows, batch_size=4, sampler=[5, 0, 1])
        >>> [labels.tolist() for _, labels in by_indexing(loader)]
        [[5, 0, 1]]
    """
    is_usual = type(loader) is DataLoader and loader.collate_fn in (default_collate, collate)
    if not is_usual or loader.batch_sampler is None or not _can_be_gathered(loader.dataset):
        return loader
    return DataLoader(
        _Rows(loader.dataset),
        batch_sampler=loader.batch_sampler,
        collate_fn=_as_it_is,
        pin_memory=loader.pin_memory,
        generator=loader.generator,
    )


class _Rows(Dataset[Any]):
    """A data set that makes whole batches."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """The collated items at the indices, None without any. Torch calls this if a data set has it."""
        return _gather(self._dataset, indices) if len(indices) else None


def _can_be_gathered(dataset: Any) -> bool:
    if type(dataset) is Tensor:
        return dataset.ndim > 0 and dataset.layout is torch.strided
    if type(dataset) is Subset:
        return _can_be_gathered(dataset.dataset)
    if type(dataset) is TensorDataset:
        return all(map(_can_be_gathered, dataset.tensors))
    if type(dataset) is StackDataset:
        parts = dataset.datasets
        return all(map(_can_be_gathered, parts.values() if isinstance(parts, dict) else parts))
    return False


def _gather(dataset: Any, indices: Sequence[int]) -> Any:
    if isinstance(dataset, Tensor):
        index = torch.as_tensor(indices, device=dataset.device)
        return dataset.index_select(0, torch.where(index < 0, index + len(dataset), index))
    if isinstance(dataset, Subset):
        return _gather(dataset.dataset, [dataset.indices[i] for i in indices])
    parts = dataset.tensors if isinstance(dataset, TensorDataset) else dataset.datasets
    if isinstance(parts, dict):
        return {name: _gather(part, indices) for name, part in parts.items()}
    return [_gather(part, indices) for part in parts]


def _as_it_is(batch: Any) -> Any:
    return batch

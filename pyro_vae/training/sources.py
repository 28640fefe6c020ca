"""Batches to train on, in an order that the epoch determines, so that a run can go on in the middle of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from pyro_vae.data import Batches
from pyro_vae.processes import Processes
from pyro_vae.randomness import get_generators, reseed, set_generators

__all__ = ["Batch", "Loaded", "Rows", "Source", "as_source"]

Transform = Callable[[Tensor], Tensor]


class Batch(NamedTuple):
    """What a step is taken on by this process."""

    inputs: tuple[Tensor, ...]  #: What the programs are called with, or the index of it.
    rows: int  #: The number of datapoints.
    gather: Transform | None = None  #: Makes of an index what the programs are called with.

    @property
    def kind(self) -> list[Any]:
        """Equal for batches that one recorded step will do for."""
        return [[str(each.dtype), *each.shape] for each in self.inputs]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What the programs are called with."""
        return self.inputs if self.gather is None else (self.gather(self.inputs[0]),)


class Rows:
    """Batches of a tensor ``[n, *event]``, gathered where it is.

    Args:
        batches: The tensor, and the size of a batch over all processes.
        seed: Of the order, with the number of the epoch.
        processes: Each has an equal share of every batch, but for one datapoint.
    """

    def __init__(self, batches: Batches, seed: int, processes: Processes) -> None:
        self._batches = batches
        self._seed = seed
        self._processes = processes

    def __len__(self) -> int:
        return len(self._batches)

    def check(self, check: Callable[[Tensor], None]) -> None:
        """Calls a function with all data, as they come out of the transform."""
        for index in torch.arange(len(self._batches.x), device=self._batches.x.device).split(1000):
            check(self._batches.gather(index))

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch | None]:
        """The batches of an epoch, without the first so many; None where others have one and this process has not."""
        generator = torch.Generator().manual_seed(self._seed + number)
        order = torch.randperm(len(self._batches.x), generator=generator).to(self._batches.x.device)
        for index in order.split(self._batches.batch_size)[skip:]:
            mine = index[self._processes.rank :: self._processes.size].contiguous()
            yield Batch((mine,), len(mine), self._batches.gather) if len(mine) else None


class Loaded:
    """Batches of a ``DataLoader``, moved to a device.

    What loading draws from torch's generators (an order, augmentations) depends on the epoch alone; but not what
    workers draw that persist, which torch seeds only once.

    Args:
        loader: Its batches are tensors, or tuples that begin with those that the programs take.
        count: How many they take.
        transform: Applied to the first of them.
        device: Where to move them.
        seed: Of the order, with the number of the epoch.
        processes: Each loads its own share of every batch, but of an ``IterableDataset``, which must share by itself.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        count: int,
        transform: Transform | None,
        device: torch.device,
        seed: int,
        processes: Processes,
    ) -> None:
        self._loader = _shared(loader, processes)
        self._processes = processes
        self._is_uneven = processes.size > 1 and isinstance(loader.dataset, IterableDataset)
        self._count = count
        self._transform = transform
        self._device = device
        self._seed = seed

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch | None]:
        """The batches of an epoch, without the first so many, which are loaded nevertheless."""
        batches = islice(self._all(number), skip, None)
        return self._until_none_has_more(batches) if self._is_uneven else batches

    def _until_none_has_more(self, batches: Iterator[Batch | None]) -> Iterator[Batch | None]:
        while True:
            batch = next(batches, None)
            if not self._processes.sum([], batch is not None)[0]:
                return
            yield batch

    def _all(self, number: int) -> Iterator[Batch | None]:
        kept = get_generators(self._device)
        reseed(self._seed + number, self._device)
        iterator = iter(self._loader)
        while True:
            try:
                batch = self._as_batch(next(iterator))
            except StopIteration:
                return
            finally:
                loading = get_generators(self._device)
                set_generators(kept, self._device)
            yield batch
            kept = get_generators(self._device)
            set_generators(loading, self._device)

    def _as_batch(self, loaded: Any) -> Batch | None:
        if loaded is None:
            return None
        values = list(loaded) if isinstance(loaded, list | tuple) else [loaded]
        if not values or not all(isinstance(value, Tensor) for value in values[: self._count]):
            kinds = ", ".join(type(value).__name__ for value in values[: self._count])
            raise TypeError(f"the data loader gives batches of {kinds or 'nothing'}; expected tensors")
        x, *others = (value.to(self._device, non_blocking=True) for value in values[: self._count])
        return Batch((x if self._transform is None else self._transform(x), *others), len(x))


Source = Rows | Loaded


def as_source(
    data: Any,
    *,
    batch_size: int,
    count: int,
    transform: Transform | None,
    device: torch.device,
    seed: int,
    processes: Processes,
) -> Source:
    """Makes batches of a tensor, a ``Dataset`` or a ``DataLoader``.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it is empty or has NaN.
    """
    if isinstance(data, Tensor) and count == 1:
        return Rows(Batches(data.to(device), batch_size, transform), seed, processes)
    if isinstance(data, tuple | list) and all(isinstance(each, Tensor) for each in data):
        data = torch.utils.data.TensorDataset(*data)
    if isinstance(data, Dataset):
        shuffle = not isinstance(data, IterableDataset)
        if shuffle and len(data) == 0:  # type: ignore[arg-type]  # which is what a Dataset of rows has
            raise ValueError("train has no datapoints")
        data = DataLoader(data, batch_size, shuffle=shuffle)
    if not isinstance(data, DataLoader):
        raise TypeError(f"train is of type {type(data).__name__}; expected a tensor, a Dataset or a DataLoader")
    return Loaded(data, count, transform, device, seed, processes)


def _shared(loader: DataLoader[Any], processes: Processes) -> DataLoader[Any]:
    if processes.size == 1 or isinstance(loader.dataset, IterableDataset):
        return loader
    if loader.batch_sampler is None:
        raise ValueError("with several processes, a DataLoader needs a batch_size or a batch_sampler, to share batches")
    return DataLoader(
        loader.dataset,
        batch_sampler=_Share(loader.batch_sampler, processes.rank, processes.size),
        num_workers=loader.num_workers,
        collate_fn=_OrNone(loader.collate_fn),
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


class _Share(BatchSampler):
    def __init__(self, sampler: Any, rank: int, size: int) -> None:
        self._sampler, self._rank, self._size = sampler, rank, size

    def __iter__(self) -> Iterator[list[Any]]:
        for indices in self._sampler:
            yield list(indices)[self._rank :: self._size]

    def __len__(self) -> int:
        return len(self._sampler)


class _OrNone:
    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, items: list[Any]) -> Any:
        return self._collate(items) if items else None

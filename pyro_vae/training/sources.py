"""Batches to train on. The epoch determines their order, so that a run can be resumed within an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, StackDataset

from pyro_vae.checks import check_rows
from pyro_vae.data import Batches
from pyro_vae.processes import Processes
from pyro_vae.programs.arrays import arrays_as_tensors, collate
from pyro_vae.programs.batch_arguments import BatchArguments
from pyro_vae.programs.tensor_loader import by_indexing
from pyro_vae.system.randomness import get_generators, reseed, set_generators
from pyro_vae.system.trees import map_leaves

Transform = Callable[[Tensor], Tensor]


class Batch(NamedTuple):
    """The share of this process of the data of a step."""

    inputs: tuple[Tensor, ...]  #: The arguments of the programs, or the index of the rows.
    rows: int  #: The number of datapoints.
    gather: Transform | None = None  #: Maps the index to the argument of the programs.
    names: tuple[str, ...] = ()  #: Of the inputs, if they are keyword arguments.

    @property
    def kind(self) -> list[Any]:
        """Equal for batches that can use the same recorded step."""
        return [*([list(self.names)] if self.names else []), *([str(x.dtype), *x.shape] for x in self.inputs)]

    @property
    def arguments(self) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The arguments and keyword arguments of the programs."""
        if self.gather is not None:
            return (self.gather(self.inputs[0]),), {}
        return ((), dict(zip(self.names, self.inputs, strict=True))) if self.names else (self.inputs, {})

    @property
    def x(self) -> Tensor:
        """The data."""
        return self.inputs[0] if self.gather is None else self.gather(self.inputs[0])

    def gathered(self) -> Batch:
        """The same batch with the arguments of the programs as inputs."""
        return self if self.gather is None else Batch((self.x,), self.rows)

    def row(self) -> Batch:
        """The first datapoint alone, as a batch."""
        inputs = self.gathered().inputs
        first = tuple(each[:1] if each.ndim and len(each) == self.rows else each for each in inputs)
        return Batch(first, 1, names=self.names)

    @property
    def device(self) -> torch.device:
        """The device of the inputs."""
        return self.inputs[0].device


class Rows:
    """Batches of a tensor ``[n, *event]``, gathered where it is.

    Args:
        batches: The tensor, and the size of a batch over all processes.
        seed: With the number of the epoch, it determines the order.
        processes: Each has an equal share of every batch, up to one datapoint.
        drop_last: Whether to leave out a last batch that is smaller.
    """

    def __init__(self, batches: Batches, seed: int, processes: Processes, drop_last: bool = False) -> None:
        self._batches = batches
        self._seed = seed
        self._processes = processes
        self._num_batches = len(batches.x) // batches.batch_size if drop_last else len(batches)

    def __len__(self) -> int:
        return self._num_batches

    def sizes(self) -> set[int]:
        """The sizes of batches, over all processes."""
        return _sizes(len(self._batches.x), self._batches.batch_size, self._num_batches)

    def check(self, check: Callable[[Tensor], None]) -> None:
        """Calls a function with all data, after the transform."""
        for index in torch.arange(len(self._batches.x), device=self._batches.x.device).split(1000):
            check(self._batches.gather(index))

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch | None]:
        """The batches of an epoch after the first ``skip``; None if only other processes have a share of one."""
        generator = torch.Generator().manual_seed(self._seed + number)
        order = torch.randperm(len(self._batches.x), generator=generator).to(self._batches.x.device)
        for index in order.split(self._batches.batch_size)[skip : self._num_batches]:
            mine = index[self._processes.rank :: self._processes.size].contiguous()
            yield Batch((mine,), len(mine), self._batches.gather) if len(mine) else None


class Loaded:
    """Batches of a ``DataLoader``, moved to a device.

    Random numbers of the loader from torch's generators (the order, augmentations) depend only on the epoch. This does
    not hold for persistent workers, which torch seeds only once.

    Args:
        loader: Its batches are tensors, tuples that begin with the arguments of the programs, or dictionaries. Or any
            other collection of such batches.
        arguments: Picks the arguments of the programs from a batch.
        transform: Applied to the first of them.
        device: Where to move them.
        seed: With the number of the epoch, it determines the order.
        processes: Each loads its own share of every batch; an ``IterableDataset`` must divide its data itself.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        arguments: BatchArguments,
        transform: Transform | None,
        device: torch.device,
        seed: int,
        processes: Processes,
    ) -> None:
        is_loader = isinstance(loader, DataLoader)
        dataset = loader.dataset if isinstance(loader, DataLoader) else None
        self._data: Any = loader
        self._loader: Any = _shared(by_indexing(loader), processes) if isinstance(loader, DataLoader) else loader
        self._processes = processes
        self._is_uneven = processes.size > 1 and isinstance(dataset, IterableDataset)
        self._has_shares = processes.size > 1 and not is_loader  # each process takes its rows of every batch
        self._arguments = arguments
        self._transform = transform
        self._device = device
        self._seed = seed

    def __len__(self) -> int:
        return len(self._loader)

    def sizes(self) -> set[int]:
        """The sizes of batches, as far as they are known."""
        if isinstance(self._data, list):
            return {len((*args, *kwargs.values())[0]) for args, kwargs in map(self._arguments.of, self._data)}
        sampler = getattr(self._data, "batch_sampler", None)
        if type(sampler) is not BatchSampler or isinstance(self._data.dataset, IterableDataset):
            return set()
        return _sizes(len(sampler.sampler), sampler.batch_size, len(sampler))  # type: ignore[arg-type]  # it has a length

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch | None]:
        """The batches of an epoch after the first ``skip``, which are loaded too."""
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
        args, kwargs = self._arguments.of(loaded)
        rows = len(check_rows((*args, *kwargs.values())[0]))
        if self._has_shares:
            part = slice(self._processes.rank, None, self._processes.size)
            args, kwargs = map_leaves(
                lambda each: each[part] if each.ndim and len(each) == rows else each, (args, kwargs)
            )
        x, *others = (value.to(self._device, non_blocking=True) for value in (*args, *kwargs.values()))
        if not len(x):
            return None
        return Batch((x if self._transform is None else self._transform(x), *others), len(x), names=tuple(kwargs))


Source = Rows | Loaded


def as_source(
    data: Any,
    *,
    batch_size: int,
    arguments: BatchArguments,
    transform: Transform | None,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    processes: Processes,
    drop_last: bool = False,
    name: str = "train",
) -> Source:
    """Makes batches of data.

    Args:
        data: See :func:`~pyro_vae.fit`.
        batch_size: For data that are not batches yet.
        arguments: Picks the arguments of the programs from a batch.
        transform: Applied to the first of them.
        device: Where to move batches.
        dtype: The dtype of floats from NumPy.
        seed: Of the order.
        processes: Those that share each batch.
        drop_last: Whether to leave out a last batch that is smaller.
        name: The name of the data in messages.

    Raises:
        TypeError: If the data are of none of these types.
        ValueError: If they are empty, or of different lengths.
    """
    data = arrays_as_tensors(data, dtype, name)
    if isinstance(data, tuple):
        _check_tuple(data, arguments, name)
        if arguments.most == 1:
            data = data[0]
    if isinstance(data, Tensor):
        if len(arguments.required) > 1:
            arguments.of(data)  # which says what is missing
        batches = Batches(data.to(device), batch_size, transform, check=check_rows)
        if drop_last and len(batches.x) < batch_size:
            raise ValueError(f"{name} has {len(batches.x)} datapoints: drop_last leaves no batch of {batch_size}")
        return Rows(batches, seed, processes, drop_last)
    if isinstance(data, tuple):
        data = torch.utils.data.TensorDataset(*data)
    elif isinstance(data, Mapping):
        _check_lengths(f"{name} is a dictionary", data.values())
        data = StackDataset(**data)
    if isinstance(data, Dataset):
        shuffle = not isinstance(data, IterableDataset)
        if shuffle and len(data) == 0:  # type: ignore[arg-type]  # torch types no len, which it has
            raise ValueError(f"{name} has no datapoints")
        data = DataLoader(data, batch_size, shuffle=shuffle, drop_last=drop_last, collate_fn=collate)
        drop_last = False
    _check_batches(data, name)
    if drop_last:
        raise ValueError(f"{name} comes in batches, so that drop_last is a matter of what makes them")
    return Loaded(data, arguments, transform, device, seed, processes)


def _check_tuple(data: tuple[Any, ...], arguments: BatchArguments, name: str) -> None:
    """Checks that these are the arguments of the programs, or more.

    Raises:
        TypeError: If they are not tensors.
        ValueError: If they differ in the number of datapoints, or look like batches.
    """
    if not data or not all(isinstance(each, Tensor) for each in data):
        kinds = ", ".join(type(each).__name__ for each in data)
        raise TypeError(f"{name} is a tuple of {kinds or 'nothing'}; expected tensors, what the programs take")
    batches = "a tuple holds what the programs take, [n, ...] each; of batches make a list"
    _check_lengths(f"{name} is a tuple", data, f"; {batches}")
    first, *others = data
    surplus = [] if arguments.most is None else others[max(0, arguments.most - 1) :]
    if first.ndim > 1 and any((each.shape, each.dtype) == (first.shape, first.dtype) for each in surplus):
        raise ValueError(
            f"{name} is a tuple of {len(data)} tensors of which the programs take {arguments.most}, and what is left "
            f"is like the first; {batches}"
        )


def _check_lengths(what: str, tensors: Iterable[Any], more: str = "") -> None:
    """Checks that tensors have the same number of datapoints.

    Raises:
        ValueError: If not.
    """
    lengths = [len(each) if getattr(each, "ndim", 1) else 0 for each in tensors]
    if len(set(lengths)) > 1:
        raise ValueError(f"{what} of tensors of {', '.join(map(str, lengths))} datapoints{more}")


def _check_batches(data: Any, name: str) -> None:
    """Checks that these are batches that can be iterated over more than once.

    Raises:
        TypeError: If they are not.
        ValueError: If there are none.
    """
    expected = "expected a tensor, a Dataset or a DataLoader, a NumPy array, a tuple or dictionary of arrays, or a list"
    is_iterable = isinstance(data, Iterable) and not isinstance(data, str | bytes | Mapping | set)
    if isinstance(data, list) and not all(isinstance(each, Tensor | np.ndarray | tuple | list | dict) for each in data):
        is_iterable = False
    if not is_iterable:
        raise TypeError(f"{name} is of type {type(data).__name__}; {expected} of batches")
    if isinstance(data, Iterator):
        raise TypeError(
            f"{name} is of type {type(data).__name__}, which can be iterated over only once; {expected} of batches, or "
            "an IterableDataset"
        )
    if isinstance(data, list) and not data:
        raise ValueError(f"{name} has no datapoints")


def _sizes(n: int, batch_size: int, batches: int) -> set[int]:
    """The sizes of the first batches of n datapoints."""
    return {min(batch_size, n - i * batch_size) for i in (0, batches - 1) if i >= 0}


def _shared(loader: Any, processes: Processes) -> DataLoader[Any]:
    if processes.size == 1 or isinstance(loader.dataset, IterableDataset):
        return loader
    if loader.batch_sampler is None:
        raise ValueError("with several processes, a DataLoader needs a batch_size or a batch_sampler, to share batches")
    return DataLoader(
        loader.dataset,
        batch_sampler=_Share(loader.batch_sampler, processes.rank, processes.size),
        num_workers=loader.num_workers,
        collate_fn=partial(_or_none, loader.collate_fn),
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


def _or_none(collate: Callable[[Any], Any], items: Any) -> Any:
    return None if items is None or not len(items) else collate(items)

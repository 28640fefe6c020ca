"""Data of several tensors, such as x with a mask or labels: the programs are called with the index of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from pyro_vae.checks import check_rows
from pyro_vae.programs.arrays import arrays_as_tensors, collate
from pyro_vae.programs.batch_arguments import BatchArguments
from pyro_vae.programs.tensor_loader import by_indexing
from pyro_vae.system.randomness import generators_kept

LOADED_AT_ONCE = 1024  # rows of a Dataset


class ByRow:
    """A program that is called with the index ``[m]`` of rows instead of these rows of all of its arguments.

    Code for programs of one tensor, which splits x into blocks, repeats and gathers rows, then works for all programs.

    Args:
        program: Called with rows of every tensor.
        tensors: Each ``[n, ...]``.
        names: The names of the last tensors, which are passed as keywords.
    """

    def __init__(self, program: Any, tensors: tuple[Tensor, ...], names: tuple[str, ...] = ()) -> None:
        self.program, self.tensors, self.names = program, tensors, names

    def __call__(self, index: Tensor) -> Any:
        """Calls the program with the rows of this index."""
        rows = [tensor.index_select(0, index) for tensor in self.tensors]
        by_position = len(rows) - len(self.names)
        return self.program(*rows[:by_position], **dict(zip(self.names, rows[by_position:], strict=True)))


def by_row(model: Any, guide: Any, x: Any) -> tuple[Any, Any, Tensor]:
    """Turns programs of several tensors into programs of one.

    Args:
        model: A Pyro program, called with as many tensors as it has arguments.
        guide: A Pyro program with the same arguments.
        x: A tensor ``[n, *event]``; a tuple of tensors, each ``[n, ...]``; a dictionary of tensors with the names of
            the arguments; a list of batches, a ``Dataset`` or a ``DataLoader`` of these. NumPy arrays count as tensors.
            Surplus tensors, such as labels, are ignored. Batches are loaded into memory, in the order of the data set.
            A custom sampler is respected, a shuffled order is not.

    Returns:
        The programs, and the tensor that they are called with. For several tensors, it is the index of their rows.

    Raises:
        TypeError: If x is none of these.
        ValueError: If the tensors have different numbers of rows, or are on different devices.
    """
    if isinstance(x, Tensor):
        return model, guide, x
    tensors, names = _inputs(model, x)
    first, *others = tensors
    check_rows(first)
    for i, other in enumerate(others, start=1):
        if other.ndim == 0 or len(other) != len(first):
            raise ValueError(
                f"tensor {i} of x has shape {list(other.shape)}; expected {len(first)} rows, as tensor 0 has"
            )
        if other.device != first.device:
            raise ValueError(f"tensor {i} of x is on device {other.device}; expected {first.device}, as tensor 0 is")
    if not others and not names:
        return model, guide, first
    index = torch.arange(len(first), device=first.device)
    return ByRow(model, tensors, names), ByRow(guide, tensors, names), index


def as_tensors(model: Any, x: Any) -> tuple[Tensor, ...]:
    """The tensors that a model is called with by position, from data in one of the forms that :func:`by_row` takes.

    Raises:
        TypeError: If the data are of another type, or some of them must be passed as keywords.
    """
    tensors, names = _inputs(model, x)
    if names:
        raise TypeError(f"x has the keys {', '.join(names)}, which are no positional arguments in order; pass a tuple")
    return tensors


def x_alone(model: Any, x: Any) -> Tensor:
    """The one tensor of the data, for functions that draw x anew or fill it in, and need programs of x alone.

    Raises:
        TypeError: If the data are of another type, or the model takes more than one tensor of them.
    """
    tensors, names = _inputs(model, x)
    if len(tensors) > 1 or names:
        raise TypeError(
            f"x has {len(tensors)} tensors, but this function draws x anew or fills it in: expected programs of x "
            "alone (functools.partial(model, y=y) is one, and the same for the guide)"
        )
    return tensors[0]


def _inputs(model: Any, x: Any) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """The tensors that a model is called with, and the names of the last ones, which are passed as keywords."""
    if isinstance(x, Tensor):
        return (x,), ()
    device, dtype = device_and_dtype(model)
    x = x.tensors if isinstance(x, TensorDataset) else x
    is_in_place = isinstance(x, tuple) and all(isinstance(each, Tensor) for each in x)
    x = arrays_as_tensors(x, dtype, "x")
    arguments = BatchArguments(model)
    with generators_kept(device or torch.device("cpu")):
        batches = [_in_order_of_arguments(arguments, batch) for batch in _batches(x)]
    if not batches:
        raise ValueError("x has no datapoints")
    names = batches[0][1]
    if any(other != names or len(tensors) != len(batches[0][0]) for tensors, other in batches):
        raise TypeError("x has batches with different numbers of tensors or different keys; expected the same in each")
    columns = zip(*(tensors for tensors, _ in batches), strict=True)
    whole = tuple(column[0] if len(column) == 1 else torch.cat(column) for column in columns)
    return whole if is_in_place else tuple(each.to(device or each.device) for each in whole), names


def _batches(x: Any) -> Iterable[Any]:
    """The batches that data come in; data that are in memory are one batch."""
    if isinstance(x, tuple):
        if not x or not all(isinstance(each, Tensor) for each in x):
            kinds = " and ".join(dict.fromkeys(type(each).__name__ for each in x))
            raise TypeError(f"x is a tuple of {kinds or 'nothing'}; expected tensors")
        return [x]
    if isinstance(x, Tensor | Mapping):
        return [x]
    if isinstance(x, list):
        return x
    if isinstance(x, Dataset | DataLoader):
        return by_indexing(_in_order(x))
    raise TypeError(
        f"x is of type {type(x).__name__}; expected a tensor of shape [n, *event], a tuple or dictionary of tensors, "
        "a list of batches, a Dataset or a DataLoader"
    )


def _in_order_of_arguments(arguments: BatchArguments, batch: Any) -> tuple[tuple[Tensor, ...], tuple[str, ...]]:
    """The tensors of a batch, and the names of those that cannot be passed by position."""
    tensors, keywords = arguments.of(batch, "x")
    names = [name for name in arguments.positional if name in keywords]
    if names == arguments.positional[: len(names)]:
        tensors = (*tensors, *(keywords.pop(name) for name in names))
    return (*tensors, *keywords.values()), tuple(keywords)


def device_and_dtype(program: Any) -> tuple[torch.device | None, torch.dtype]:
    """The device of the module that the program belongs to, None without a module; and its floating-point dtype."""
    while isinstance(program, partial):
        program = program.func
    module = program if isinstance(program, nn.Module) else getattr(program, "__self__", None)
    tensors = [*module.parameters(), *module.buffers()] if isinstance(module, nn.Module) else []
    floats = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
    return tensors[0].device if tensors else None, next(floats, torch.get_default_dtype())


def _in_order(data: Dataset[Any] | DataLoader[Any]) -> DataLoader[Any]:
    """A loader of the whole data set in its order: not shuffled, and with the last, incomplete batch."""
    if not isinstance(data, DataLoader):
        return DataLoader(data, LOADED_AT_ONCE, collate_fn=collate)
    shuffled, is_usual = type(data.sampler) is RandomSampler, type(data.batch_sampler) is BatchSampler
    if isinstance(data.dataset, IterableDataset) or not is_usual:
        return data
    # A RandomSampler has a length, and so has its data set.
    whole = shuffled and not data.sampler.replacement and len(data.sampler) == len(data.dataset)  # type: ignore[arg-type,attr-defined]  # a random sampler
    return DataLoader(
        data.dataset,
        batch_size=data.batch_sampler.batch_size,  # type: ignore[union-attr]  # checked by is_usual
        sampler=None if whole else data.sampler,
        num_workers=data.num_workers,
        collate_fn=data.collate_fn,
        worker_init_fn=data.worker_init_fn,
        multiprocessing_context=data.multiprocessing_context,
    )

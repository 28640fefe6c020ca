"""Data of several tensors, such as x with a mask or labels: programs that are called with the index of their rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from pyro_vae.checks import check_rows
from pyro_vae.programs.arguments import most_tensors, parameters_of
from pyro_vae.system.randomness import generators_kept

__all__ = ["ByRow", "as_tensors", "by_row", "x_alone"]

LOADED_AT_ONCE = 1024  # rows of a Dataset


class ByRow:
    """A program that is called with the index ``[m]`` of rows, in the place of these rows of all of its arguments.

    So that code for programs of one tensor, which it divides into blocks, repeats and gathers, is code for all of them.

    Args:
        program: Called with rows of every tensor.
        tensors: Each ``[n, ...]``.
    """

    def __init__(self, program: Any, tensors: tuple[Tensor, ...]) -> None:
        self.program, self.tensors = program, tensors

    def __call__(self, index: Tensor) -> Any:
        """Calls the program with the rows of this index."""
        return self.program(*(tensor.index_select(0, index) for tensor in self.tensors))


def by_row(model: Any, guide: Any, x: Any) -> tuple[Any, Any, Tensor]:
    """Makes programs of one tensor of those of several.

    Args:
        model: A Pyro program, called with as many tensors as it has arguments.
        guide: Likewise.
        x: A tensor ``[n, *event]``; a tuple of tensors, each ``[n, ...]``; a list of batches, a ``Dataset`` or a
            ``DataLoader`` of what the model takes (of more, such as labels, the programs get the first). It is loaded
            into memory, in the order of the data set. A sampler of its own is respected, a shuffled order is not.

    Returns:
        The programs and the tensor that they are called with. For several tensors, that is the index of their rows.

    Raises:
        TypeError: If x is none of these.
        ValueError: If the tensors have different numbers of rows, or lie on different devices.
    """
    if isinstance(x, Tensor):
        return model, guide, x
    first, *others = tensors = as_tensors(model, x)
    check_rows(first)
    for i, other in enumerate(others, start=1):
        if other.ndim == 0 or len(other) != len(first):
            raise ValueError(
                f"tensor {i} of x has shape {list(other.shape)}; expected {len(first)} rows, as tensor 0 has"
            )
        if other.device != first.device:
            raise ValueError(f"tensor {i} of x is on device {other.device}; expected {first.device}, as tensor 0 is")
    if not others:
        return model, guide, first
    index = torch.arange(len(first), device=first.device)
    return ByRow(model, tensors), ByRow(guide, tensors), index


def as_tensors(model: Any, x: Any) -> tuple[Tensor, ...]:
    """The tensors that a model is called with, of data in one of the forms that :func:`by_row` takes.

    Raises:
        TypeError: If the data are of another type.
    """
    return (x,) if isinstance(x, Tensor) else _tensors(x, _num_arguments(model), _device(model))


def x_alone(model: Any, x: Any) -> Any:
    """The one tensor of the data, for what draws data anew or fills them in, and needs programs of x alone.

    Raises:
        TypeError: If the data are of another type, or the model takes more of them.
    """
    tensors = as_tensors(model, x)
    if len(tensors) > 1:
        raise TypeError(
            f"x has {len(tensors)} tensors, and what is asked for draws x anew or fills it in: expected programs of x "
            "alone (functools.partial(model, y=y) is one, and the same for the guide)"
        )
    return tensors[0]


def _num_arguments(program: Any) -> int | None:
    """How many tensors a program takes; None if any number, or if that cannot be told."""
    try:
        return most_tensors(parameters_of(program))
    except (TypeError, ValueError):
        return None


def _device(program: Any) -> torch.device | None:
    """Where the module is that the program belongs to; None if there is none."""
    module = program if isinstance(program, nn.Module) else getattr(program, "__self__", None)
    tensors = [*module.parameters(), *module.buffers()] if isinstance(module, nn.Module) else []
    return tensors[0].device if tensors else None


def _tensors(x: Any, count: int | None, device: torch.device | None) -> tuple[Tensor, ...]:
    """The first so many tensors of the data, on the device if they have to be loaded."""
    if isinstance(x, TensorDataset):
        x = x.tensors
    if isinstance(x, tuple):
        if not x or not all(isinstance(each, Tensor) for each in x):
            kinds = " and ".join(dict.fromkeys(type(each).__name__ for each in x))
            raise TypeError(f"x is a tuple of {kinds or 'nothing'}; expected tensors")
        return tuple(x[:count])
    if not isinstance(x, list | Dataset | DataLoader):
        raise TypeError(
            f"x is of type {type(x).__name__}; expected a tensor of shape [n, *event], a tuple of tensors, "
            "a list of batches, a Dataset or a DataLoader"
        )
    with generators_kept(device or torch.device("cpu")):
        batches = [_batch(batch)[:count] for batch in (x if isinstance(x, list) else _in_order(x))]
    if not batches:
        raise ValueError("x has no datapoints")
    return tuple(torch.cat(column).to(device or column[0].device) for column in zip(*batches, strict=True))


def _batch(batch: Any) -> list[Tensor]:
    values = list(batch) if isinstance(batch, tuple | list) else [batch]
    if not values or not all(isinstance(value, Tensor) for value in values):
        kinds = " and ".join(dict.fromkeys(type(value).__name__ for value in values))
        raise TypeError(f"x has batches of {kinds or 'nothing'}; expected tensors")
    return values


def _in_order(data: Dataset[Any] | DataLoader[Any]) -> DataLoader[Any]:
    """A loader in the order of the data set, of all of it: not shuffled, and no incomplete batch left out."""
    if not isinstance(data, DataLoader):
        return DataLoader(data, LOADED_AT_ONCE)
    shuffled, is_usual = type(data.sampler) is RandomSampler, type(data.batch_sampler) is BatchSampler
    if isinstance(data.dataset, IterableDataset) or not is_usual:
        return data
    whole = shuffled and not data.sampler.replacement and len(data.sampler) == len(data.dataset)  # type: ignore
    return DataLoader(
        data.dataset,
        batch_size=data.batch_sampler.batch_size,  # type: ignore[union-attr]
        sampler=None if whole else data.sampler,
        num_workers=data.num_workers,
        collate_fn=data.collate_fn,
        worker_init_fn=data.worker_init_fn,
        multiprocessing_context=data.multiprocessing_context,
    )

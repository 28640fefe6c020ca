"""Batches of one datapoint, which batch normalization cannot train on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.poutine import Trace
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyro_vae.system.randomness import generators_kept
from pyro_vae.training.sources import Batch
from pyro_vae.weights import trace_pair

__all__ = ["batch_of_one_explained", "has_a_part_of_one", "normalizes_batches", "rehearse"]


def normalizes_batches(vae: nn.Module) -> list[str]:
    """The names of the layers that take statistics of a batch."""
    return [name for name, module in vae.named_modules() if isinstance(module, _BatchNorm) and module.training]


def has_a_part_of_one(sizes: Iterable[int], processes: int, parts: int) -> bool:
    """Whether a batch of one of these sizes, shared by processes and cut in parts, has a part of one datapoint."""
    shares = {share for size in sizes for share in (size // processes, -(-size // processes)) if share}
    return any(share == 1 or share % -(-share // parts) == 1 or -(-share // parts) == 1 for share in shares)


@contextmanager
def batch_of_one_explained(vae: nn.Module, where: str) -> Iterator[None]:
    """Says what to do where batch normalization fails on one datapoint.

    Raises:
        ValueError: If it does; the message begins with where.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            f"{where} has 1 datapoint, of which batch normalization ({', '.join(normalizes_batches(vae))}) cannot take "
            "statistics; pass drop_last=True, or another batch_size"
        ) from error


@torch.no_grad()
def rehearse(vae: nn.Module, programs: Sequence[Callable[..., Any]], batch: Batch, validate: bool = False) -> Trace:
    """Runs the programs on a batch, with Pyro's validation or without; no generators or running statistics change.

    Returns:
        The trace of the model.
    """
    before = [(buffer, buffer.clone()) for buffer in vae.buffers()]
    args, kwargs = batch.arguments
    try:
        with generators_kept(batch.device), pyro.validation_enabled(validate):
            return trace_pair(programs[0], programs[1], *args, **kwargs)[0]
    finally:
        for buffer, value in before:
            buffer.copy_(value)

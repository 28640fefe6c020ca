"""Batches of one datapoint, which batch normalization cannot train on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyro
import torch
from pyro.poutine import Trace
from torch import nn

from pyro_vae.system.randomness import generators_kept
from pyro_vae.system.values import values_kept
from pyro_vae.training.sources import Batch
from pyro_vae.weights import trace_pair

_BATCH_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.LazyBatchNorm1d,
    nn.LazyBatchNorm2d,
    nn.LazyBatchNorm3d,
    nn.SyncBatchNorm,
)


def normalizes_batches(vae: nn.Module) -> list[str]:
    """The names of the batch normalization layers in training mode."""
    return [name for name, module in vae.named_modules() if isinstance(module, _BATCH_NORMS) and module.training]


def has_a_part_of_one(sizes: Iterable[int], processes: int, parts: int) -> bool:
    """Whether a batch of one of these sizes, divided among processes and into parts, has a part of one datapoint."""
    shares = {share for size in sizes for share in (size // processes, -(-size // processes)) if share}
    return any(share == 1 or share % -(-share // parts) == 1 or -(-share // parts) == 1 for share in shares)


def explain_batch_of_one(error: ValueError, vae: nn.Module, where: str) -> None:
    """Says what to do if batch normalization has failed on one datapoint.

    Args:
        error: What was raised.
        vae: The VAE.
        where: What the message begins with.

    Raises:
        ValueError: If that is what has failed.
    """
    if "more than 1 value per channel" in str(error):
        raise ValueError(
            f"{where} has 1 datapoint, of which batch normalization ({', '.join(normalizes_batches(vae))}) cannot take "
            "statistics; pass drop_last=True, or another batch_size"
        ) from error


@torch.no_grad()
def rehearse(vae: nn.Module, programs: Sequence[Callable[..., Any]], batch: Batch, validate: bool = False) -> Trace:
    """Runs the programs on a batch, with Pyro's validation or without. Generators and buffers stay as they are.

    Returns:
        The trace of the model.
    """
    args, kwargs = batch.arguments
    with generators_kept(batch.device), values_kept(vae.buffers()), pyro.validation_enabled(validate):
        return trace_pair(programs[0], programs[1], *args, **kwargs)[0]

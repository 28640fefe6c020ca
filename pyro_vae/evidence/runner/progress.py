"""Blocks computed one after the other, by several processes, and kept in a file now and then."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from pyro_vae.evidence.runner.resume_file import Kept, ResumeFile
from pyro_vae.processes import Processes, of_all
from pyro_vae.system.interrupts import Interrupted
from pyro_vae.system.randomness import reseed
from pyro_vae.system.warning import warn

Compute = Callable[[Tensor, int], dict[str, Tensor]]  #: A block and the index of its first row to columns by name.

SECONDS_BETWEEN_SAVES = 10.0


def block_seed(seed: int, first: int) -> int:
    """The seed of a block, a hash of the seed of its run and the index of its first datapoint."""
    return int.from_bytes(hashlib.sha256(f"{seed} {first}".encode()).digest()[:8], "little")


def interrupted(done: int, total: int, more: str = "", result: Any = None) -> Interrupted:
    """The exception for Ctrl-C after a number of datapoints of the total."""
    what = f"{done} of {total} datapoints were done" if done else f"none of {total} datapoints was done"
    return Interrupted(what + more, result)


def compute_rest(
    compute: Compute,
    blocks: Sequence[Tensor],
    kept: Kept,
    device: torch.device,
    show: Callable[[Sequence[Tensor]], Iterable[Any]],
    keeper: ResumeFile | None,
    processes: Processes | None,
) -> None:
    """Computes the blocks that are left, in order, one for each process at a time, so that the first are done first.

    The noise of a block depends only on the seed and on the index of its first datapoint, so it is the same whenever
    and wherever the block is computed.

    Args:
        compute: Called with a block and the index of its first datapoint; returns tensors ``[rows, ...]`` by name.
        blocks: The blocks of the data.
        kept: What is finished; it gets what is computed.
        device: The device of the data.
        show: Wraps the blocks left to do.
        keeper: The file for the finished blocks.
        processes: The processes that share the blocks.
    """
    todo, found = _without(blocks, kept.done), kept.done
    size, rank = (processes.size, processes.rank) if processes is not None else (1, 0)
    firsts = accumulate(map(len, todo), initial=kept.done)
    pairs = list(zip(firsts, todo, strict=False))
    rounds = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    watched: Iterable[Any] = show([group[0][1] for group in rounds]) if rounds and rank == 0 else rounds
    saved = time.monotonic()
    for group, _ in zip(rounds, watched, strict=True):

        def mine(group: Sequence[tuple[int, Tensor]] = group) -> dict[str, Tensor]:
            first, block = group[rank]
            reseed(block_seed(kept.seed, first), device)
            return {name: column.detach().cpu() for name, column in compute(block, first).items()}

        for part in of_all(mine if rank < len(group) else dict, processes)[: len(group)]:
            if keeper is not None and len(kept.parts) == 1:
                keeper.check_part(kept, part)
            kept.parts.append(part)
        if keeper is not None and time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
            _save_or_warn(keeper, kept)
            saved = time.monotonic()
    if keeper is not None and kept.done > found:
        _save_or_warn(keeper, kept)


def _without(blocks: Sequence[Tensor], count: int) -> Sequence[Tensor]:
    """The blocks without the first ``count`` datapoints."""
    left = []
    for block in blocks:
        if count < len(block):
            left.append(block[count:])
        count = max(0, count - len(block))
    return left


def _failure(keeper: ResumeFile, kept: Kept) -> str:
    """Saves; returns what went wrong, if anything."""
    try:
        keeper.save(kept)
    except OSError as error:
        return str(error)
    return ""


def kept_where(keeper: ResumeFile | None, kept: Kept) -> str:
    """Saves; returns where, for the message at Ctrl-C."""
    if keeper is None or not kept.done:
        return ""
    if failure := _failure(keeper, kept):
        return f", but are not kept: {failure}"
    return f" and are kept in {str(keeper.path)!r}: the same call goes on from there"


def _save_or_warn(keeper: ResumeFile, kept: Kept) -> None:
    if failure := _failure(keeper, kept):
        warn(f"{failure}: what was computed since the last save is not kept there")

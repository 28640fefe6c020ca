"""Long runs, block by block: a progress bar, results at Ctrl-C, resuming from a file, and several processes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

import pyro
import torch
from torch import Tensor

from pyro_vae.evidence.runner.resume_file import DAMAGED, Kept, ResumeFile
from pyro_vae.processes import Processes, of_all, of_the_first
from pyro_vae.system.interrupts import Interrupted
from pyro_vae.system.lock import locked
from pyro_vae.system.progress import Progress, shown
from pyro_vae.system.randomness import generators_kept, reseed
from pyro_vae.system.warning import warn

__all__ = ["Compute", "block_seed", "interrupted", "over_blocks"]

Compute = Callable[[Tensor, int], dict[str, Tensor]]  #: A block and the index of its first row to columns by name.
Result = TypeVar("Result")

SECONDS_BETWEEN_SAVES = 10.0


def block_seed(seed: int, first: int) -> int:
    """The seed of a block, a hash of the seed of its run and the index of its first datapoint."""
    return int.from_bytes(hashlib.sha256(f"{seed} {first}".encode()).digest()[:8], "little")


def interrupted(done: int, total: int, more: str = "", result: Any = None) -> Interrupted:
    """The exception for Ctrl-C after so many datapoints of the total."""
    what = f"{done} of {total} datapoints were done" if done else f"none of {total} datapoints was done"
    return Interrupted(what + more, result)


def over_blocks(
    compute: Compute,
    blocks: Callable[[], Sequence[Tensor]],
    finish: Callable[[dict[str, Tensor]], Result],
    *,
    n: int,
    device: torch.device,
    progress: Progress = True,
    description: str = "log p(x)",
    file: Callable[[], ResumeFile] | None = None,
    processes: Processes | None = None,
) -> Result:
    """Computes columns block by block, and makes the result from them.

    One number is drawn from torch's generator. The noise of a block depends only on that number and on the index of its
    first datapoint, so it is the same whenever and wherever the block is computed.

    Args:
        compute: Called with a block and the index of its first datapoint; returns tensors ``[rows, ...]`` by name.
        blocks: Makes the blocks of the data.
        finish: Makes the result from these tensors, concatenated over the blocks, on the CPU.
        n: The number of datapoints.
        device: The device of the data.
        progress: Whether to show a bar; or a function that wraps the blocks left to do.
        description: The text of the bar.
        file: Makes the file for the finished blocks. If it exists, the run resumes from it.
        processes: The processes that share the blocks. All make the same call, and get the whole result.

    Raises:
        Interrupted: At Ctrl-C, with the result for the finished datapoints; None if there are none.
        ValueError: If the file is damaged, or of another run.
        OSError: If the file cannot be written, or another run is using it.
    """
    kept = Kept(int(torch.randint(2**63 - 1, ())))
    keeper: ResumeFile | None = None  # only the first process reads and writes it
    with ExitStack() as stack:
        stack.enter_context(generators_kept(device))

        def begin() -> tuple[int, dict[str, Tensor]]:
            nonlocal keeper
            if file is None:
                return kept.seed, {}
            keeper = file()
            stack.enter_context(locked(keeper.path))
            found = keeper.load()
            if found is None:
                keeper.save(kept)  # fails now if the file cannot be written
            return (found or kept).seed, (found or kept).columns

        def result() -> Result:
            reseed(block_seed(kept.seed, n), device)
            return finish(kept.columns)

        try:
            kept = Kept(*of_the_first(begin, processes))
            found = kept.done
            show = partial(shown, progress, description=description)
            with pyro.validation_enabled(False):
                _compute_rest(compute, _without(blocks(), found), kept, device, show, keeper, processes)
            if keeper is not None and kept.done > found:
                _save_or_warn(keeper, kept)
        except KeyboardInterrupt as interrupt:
            where = _kept_where(keeper, kept)
            raise interrupted(kept.done, n, where, _unless_interrupted(result) if kept.done else None) from interrupt
        try:
            return result()
        except KeyboardInterrupt as interrupt:
            raise interrupted(n, n, _kept_where(keeper, kept)) from interrupt
        except (LookupError, TypeError, RuntimeError) as error:
            if keeper is None or kept.done > found:
                raise
            raise ValueError(f"{keeper.path} {DAMAGED}: {error}") from error


def _compute_rest(
    compute: Compute,
    todo: Sequence[Tensor],
    kept: Kept,
    device: torch.device,
    show: Callable[[Sequence[Tensor]], Iterable[Any]],
    keeper: ResumeFile | None,
    processes: Processes | None,
) -> None:
    """Computes the blocks in order, one for each process at a time, so that the first ones are finished first."""
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


def _kept_where(keeper: ResumeFile | None, kept: Kept) -> str:
    """Saves; returns where, for the message at Ctrl-C."""
    if keeper is None or not kept.done:
        return ""
    if failure := _failure(keeper, kept):
        return f", but are not kept: {failure}"
    return f" and are kept in {str(keeper.path)!r}: the same call goes on from there"


def _save_or_warn(keeper: ResumeFile, kept: Kept) -> None:
    if failure := _failure(keeper, kept):
        warn(f"{failure}: what was computed since the last save is not kept there")


def _unless_interrupted(function: Callable[[], Result]) -> Result | None:
    try:
        return function()
    except KeyboardInterrupt:  # a second Ctrl-C
        return None

"""Long runs: a progress bar, results that survive an interruption, and going on where a run stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple, TypeVar

import pyro
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from pyro_vae.evidence.proposals import Proposal
from pyro_vae.interrupted import Interrupted
from pyro_vae.processes import Processes
from pyro_vae.randomness import generators_kept, get_generators, reseed, set_generators
from pyro_vae.weights import Layout, Program, terms

__all__ = ["Progress", "bar", "fingerprint", "over_blocks"]

Progress = Callable[[Sequence[Tensor]], Iterable[Tensor]]  #: Wraps a sequence of blocks, as rich.progress.track does.
Result = TypeVar("Result")

SECONDS_BETWEEN_SAVES = 10.0
FORMAT = 1


def bar(blocks: Sequence[Tensor], description: str = "log p(x)") -> Iterable[Tensor]:
    """A progress bar on the standard error if that is a terminal or a notebook, which vanishes in the end."""
    console = Console(stderr=True)
    shown = console.is_terminal or console.is_jupyter
    return track(blocks, description, console=console, transient=True) if shown else blocks


def over_blocks(
    compute: Callable[[Tensor, int], dict[str, Tensor]],
    blocks: Sequence[Tensor],
    finish: Callable[[dict[str, Tensor]], Result],
    *,
    progress: Progress = bar,
    resume: str | Path | None = None,
    run: dict[str, Any] | None = None,
    fingerprint: Callable[[], Tensor] | None = None,
    processes: Processes | None = None,
) -> Result:
    """Computes what is wanted of each block of datapoints, and keeps it.

    Args:
        compute: Called with a block and the index of its first datapoint; returns tensors ``[rows, ...]`` by name.
        blocks: Blocks of the data.
        finish: Makes the result of these tensors, each concatenated over the blocks, on the CPU.
        progress: Wraps the blocks that are left to do.
        resume: A file that what is done is kept in. If there is one, the run goes on from it, to the same numbers as if
            it had never stopped.
        run: What tells this run from others, by name: the file of another is refused. Only for ``resume``.
        fingerprint: Makes numbers that tell programs and data from others. Only for ``resume``.
        processes: Those that share the blocks; all of them call this alike, and get the whole result.

    Raises:
        Interrupted: At Ctrl-C, with the result for the blocks that were done; without any, KeyboardInterrupt.
        ValueError: If the file is of another run, or is none of ours.
        OSError: If it cannot be written.
    """
    if processes is not None and processes.size > 1:
        if resume is not None:
            raise ValueError("resume is for one process; with several, nothing is kept")
        return finish(_together(compute, blocks, progress, processes))
    device, total = blocks[0].device, sum(map(len, blocks))
    kept = _Kept((), get_generators(device))
    path = None if resume is None else Path(resume)
    run = {**(run or {}), "fingerprint": fingerprint() if fingerprint is not None and path is not None else None}
    if path is not None and path.exists():
        kept = _load(path, run)
        set_generators(kept.generators, device)
    elif path is not None:
        _save(path, run, kept)  # to find out now if it cannot be written
    saved = time.monotonic()
    todo = _without(blocks, kept.done)
    try:
        for block in progress(todo) if todo else ():
            part = {name: column.cpu() for name, column in compute(block, kept.done).items()}
            kept = _Kept((*kept.parts, part), get_generators(device))
            if path is not None and time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                _save(path, run, kept)
                saved = time.monotonic()
    except KeyboardInterrupt as interrupt:
        set_generators(kept.generators, device)
        message = f"{kept.done} of {total} datapoints were done"
        if path is not None:
            _save(path, run, kept)
            message += f" and are kept in {str(path)!r}: the same call goes on from there"
        if not kept.parts:
            raise
        raise Interrupted(message, finish(kept.columns)) from interrupt
    if path is not None and todo:
        _save(path, run, kept)
    return finish(kept.columns)


def _together(
    compute: Callable[[Tensor, int], dict[str, Tensor]],
    blocks: Sequence[Tensor],
    progress: Progress,
    processes: Processes,
) -> dict[str, Tensor]:
    """The columns of all blocks, of which each process computes its share, with noise of its own."""
    reseed(processes.share(int(torch.randint(2**31, ()))) + processes.rank, processes.device)
    mine = range(processes.rank, len(blocks), processes.size)
    shown = progress([blocks[i] for i in mine]) if processes.is_first and len(mine) else [blocks[i] for i in mine]
    firsts = [0, *accumulate(map(len, blocks))]
    parts: dict[int, dict[str, Tensor]] = {}
    for i, block in zip(mine, shown, strict=True):
        parts[i] = {name: column.cpu() for name, column in compute(block, firsts[i]).items()}
    for others in processes.gather(parts):
        parts |= others
    return {name: torch.cat([parts[i][name] for i in range(len(blocks))]) for name in parts[0]}


class _Kept(NamedTuple):
    """What is done, and the generators as they were then."""

    parts: tuple[dict[str, Tensor], ...]
    generators: dict[str, Tensor]

    @property
    def done(self) -> int:
        return sum(len(next(iter(part.values()))) for part in self.parts)

    @property
    def columns(self) -> dict[str, Tensor]:
        return {name: torch.cat([part[name] for part in self.parts]) for name in self.parts[0]}


def _without(blocks: Sequence[Tensor], count: int) -> Sequence[Tensor]:
    """The blocks without their first so many datapoints."""
    left = []
    for block in blocks:
        if count < len(block):
            left.append(block[count:])
        count = max(0, count - len(block))
    return left


def _save(path: Path, run: dict[str, Any], kept: _Kept) -> None:
    """Writes a new file, then puts it in the place of the old one: there is a whole one at any moment."""
    new = path.with_name(path.name + ".new")
    columns = kept.columns if kept.parts else {}
    with new.open("wb") as file:
        torch.save({"format": FORMAT, "run": run, "columns": columns, "generators": kept.generators}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _load(path: Path, run: dict[str, Any]) -> _Kept:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, other = content["format"], content["run"]
        kept = _Kept((content["columns"],) if content["columns"] else (), content["generators"])
    except (RuntimeError, UnpicklingError, EOFError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a file that an evidence run was kept in, or is damaged") from error
    if version != FORMAT:
        raise ValueError(f"{path} has format {version}; expected {FORMAT}")
    for name, value in run.items():
        if not _same(other.get(name), value):
            detail = "" if isinstance(value, Tensor) else f": {name} is {other.get(name)!r} there and {value!r} here"
            what = "other data or programs" if isinstance(value, Tensor) else "another run"
            raise ValueError(f"{path} is of {what}{detail}; choose another file or delete it")
    return kept


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-3, equal_nan=True)
    return bool(a == b)


@torch.no_grad()
def fingerprint(model: Program, guide: Program, x: Tensor, layout: Layout, proposal: Proposal = terms) -> Tensor:
    """A few numbers that change with the data and with the programs: log-weights on fixed noise, ``[n]``."""
    with generators_kept(x.device), pyro.validation_enabled(False):
        reseed(0, x.device)
        return proposal(model, guide, x, 1, layout).log_weights[0].double().cpu()

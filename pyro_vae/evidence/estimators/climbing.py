"""What `estimate` does with a block of datapoints of one model, and the result that it makes from all blocks."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_vae.evidence.draws.arviz_draws import to_arviz
from pyro_vae.evidence.estimators.certificate import certified
from pyro_vae.evidence.ladder.ladder import Ladder
from pyro_vae.evidence.ladder.settings import Settings
from pyro_vae.evidence.results.certificate import Certificate
from pyro_vae.evidence.results.evidence import Evidence
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained.log_joint import FastDensities
from pyro_vae.infer.recording.compiled import compiled

ROWS = {"cpu": 1024, "cuda": 4096}  # datapoints that climb together
MOST_NUMBERS = 2**25  # of the matrices of a block
WORTH_COMPILING = 2000  # datapoints


class Climb:
    """`estimate` without global latents: what to do with a block, and what to make of all blocks.

    Args:
        programs: Model, guide and data.
        settings: The accuracy to aim at.
        fast: Makes the densities fast, once for all blocks.
    """

    def __init__(self, programs: Programs, settings: Settings, fast: FastDensities | None) -> None:
        self.programs, self.settings, self.fast = programs, settings, fast

    def columns(self, block: Tensor, first: int, clock: Clock, turn: int = 0, turns: int = 1) -> dict[str, Tensor]:
        """The estimates of a block, each ``[rows, ...]``.

        Args:
            block: The block.
            first: The index of its first datapoint.
            clock: Says when to stop.
            turn: Which estimate of this block it is.
            turns: The number of estimates of this block, which share its time.

        Raises:
            ValueError: If no method has a weight that is finite and positive for a datapoint.
        """
        share = len(block) / turns
        ladder = Ladder(self.programs, block, self.settings, clock.deadline(first + turn * share, share), self.fast)
        columns = ladder.estimates(range(first, first + len(block)))
        return {**columns, "late": torch.full((len(block),), ladder.block.late)}

    def result(self, columns: dict[str, Any]) -> Evidence:
        """The result, from the columns of all finished blocks."""
        programs, columns = self.programs, dict(columns)
        late, seconds = columns.pop("late"), columns.pop("seconds")
        return Evidence(
            **columns,
            samples="samples or chains",
            seconds_by_method=tuple(seconds.sum(0).tolist()),
            stopped_by_budget=int(late.sum()),
            draw=partial(to_arviz, programs.model, programs.guide, programs.x[: len(late)]),
        )

    def certificate(self, count: int) -> Certificate:
        """The result of the same procedure on this number of datapoints drawn from the model."""
        return certified(self.programs, self.settings, count, rows=block_rows(self.programs), fast=self.fast)


class Clock:
    """Divides a budget of seconds among n datapoints, from when the first block begins."""

    def __init__(self, budget: float | None, n: int) -> None:
        self.budget, self.n = budget, n
        self.start: tuple[float, float] | None = None

    def deadline(self, first: float, rows: float) -> float:
        """The time when the block of ``rows`` rows that begins at row ``first`` must be done."""
        if self.budget is None:
            return math.inf
        self.start = self.start or (time.monotonic(), first)
        began, begin = self.start
        return began + self.budget * (first + rows - begin) / (self.n - begin)


def fast_densities(compile: bool | str, x: Tensor, num_models: int = 1) -> FastDensities | None:  # noqa: A002
    """Compiled, recorded or plain densities: what ``compile`` of :func:`~pyro_vae.evidence.estimate` asks for."""
    if not compile:
        return None
    pays = x.device.type == "cpu" and len(x) >= WORTH_COMPILING and num_models == 1
    return FastDensities(compiled, sizes=(256,), after=0) if compile != "auto" or pays else FastDensities()


def block_rows(programs: Programs) -> int:
    """How many datapoints climb together.

    The noise depends on this number, so it is the same for all but small chunk sizes.
    """
    numbers = 4 * max(1, programs.latent_size) ** 2
    most = min(ROWS.get(programs.x.device.type, 4096), max(8, MOST_NUMBERS // numbers))
    return max(1, min(most, programs.chunk_size))

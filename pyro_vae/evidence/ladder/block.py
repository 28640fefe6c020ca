"""A block of datapoints, and the best estimate of each so far."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from pyro_vae.evidence.ladder.contradiction import Floor
from pyro_vae.evidence.ladder.settings import Settings
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.results.methods import METHODS
from pyro_vae.evidence.results.running_weights import RunningWeights, weigh
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained.log_joint import particles_at_once

PAIRS_AT_ONCE = 1024  # whose weights are computed at once, in blocks of few rows
ROUNDING = 8.0  # units in the last place of log p(x): the rounding error of its terms


class Block:
    """A block of datapoints, and what the methods have reported so far.

    Args:
        programs: Model and guide.
        x: The block, ``[n, *event]``.
        settings: The accuracy to aim at.
        deadline: When to stop, by ``time.monotonic``.

    Attributes:
        rows: The index of all datapoints, ``[n]``.
        columns: The best estimates so far, each ``[n]`` on the CPU, by the names of the fields of ``Evidence``; NaN
            where there is none.
        floor: What log p(x) is above.
        contradicted: Whether another estimate contradicts the last one of each datapoint, ``[n]``.
        late: Whether the deadline has stopped a method.
    """

    def __init__(self, programs: Programs, x: Tensor, settings: Settings, deadline: float = math.inf) -> None:
        self.programs, self.x, self.settings, self.deadline = programs, x, settings, deadline
        self.rows = torch.arange(len(x), device=x.device)
        nothing = {"log_prob": torch.nan, "error": torch.inf, "bias": torch.inf}
        self.columns = {name: torch.full((len(x),), value, dtype=torch.float64) for name, value in nothing.items()}
        self.columns["seconds"] = torch.zeros(len(x), len(METHODS), dtype=torch.float64)
        self.floor = Floor(len(x))
        self.contradicted = torch.zeros(len(x), dtype=torch.bool)
        self.late = False

    def weigh(self, proposal: Proposal, count: int) -> RunningWeights:
        """Weights of ``count`` draws for all rows."""
        n, chunk_size = len(self.x), self.programs.chunk_size
        # Of few rows there may be thousands of samples, and a run for few pairs takes as long as one for many.
        at_once = max(particles_at_once(chunk_size, n), min(PAIRS_AT_ONCE, chunk_size) // n)
        return weigh(partial(self.programs.log_weights, proposal), self.x, count, at_once * n)

    def report(
        self,
        method: int,
        rows: Tensor,
        weights: RunningWeights,
        pilot: RunningWeights | None = None,
        *,
        samples: int,
        num_temperatures: Tensor | None = None,
        acceptance: Tensor | None = None,
        doubtful: Tensor | None = None,
    ) -> None:
        """Keeps an estimate of rows ``[m]`` where it has a smaller error than the one so far, or that has none.

        Args:
            method: The method.
            rows: The rows.
            weights: The weights of the estimate.
            pilot: The weights of the pilot, which tell more about the error.
            samples: The number of samples.
            num_temperatures: The number of temperatures, ``[m]``.
            acceptance: The acceptance rate, ``[m]``.
            doubtful: Where the error is not known, whatever the weights say, ``[m]``.
        """
        usable = weights.log_sum.isfinite()
        if not usable.any():
            return
        weights, rows = weights.rows(usable), rows[usable].cpu()
        usable = usable.cpu()
        columns = weights.columns(pilot=None if pilot is None else pilot.moments().rows(usable))
        # A sample cannot know that it missed a mode, but another sample may have seen the mode.
        missed = self.floor.is_above(rows, columns["log_prob"], columns["error"])
        self.contradicted[rows] = missed
        if doubtful is not None:
            missed = missed | doubtful[usable]
        columns["error"] += ROUNDING * torch.finfo(self.programs.dtype).eps * (1 + columns["log_prob"].abs())
        columns["error"] = columns["error"].masked_fill(missed, torch.inf)
        columns["bias"] = columns["bias"].masked_fill(missed, torch.inf)
        nothing = torch.full_like(columns["error"], torch.nan)
        columns |= {
            "method": torch.full_like(rows, method),
            "num_samples": torch.full_like(rows, samples),
            "num_temperatures": torch.zeros_like(rows) if num_temperatures is None else num_temperatures[usable],
            "acceptance": nothing if acceptance is None else acceptance[usable],
        }
        known = self.columns["error"][rows]
        better = (columns["error"] < known) | known.isinf()
        for name, column in columns.items():
            empty = torch.nan if column.is_floating_point() else -1
            whole = self.columns.setdefault(name, column.new_full(self.rows.shape, empty))
            whole[rows[better]] = column[better]
        self.floor.raise_by(rows, weights)

    @property
    def unsettled(self) -> Tensor:
        """The rows that need a better estimate, ``[m]``."""
        return self.rows[self.is_unsettled(self.rows).to(self.rows.device)]

    def is_unsettled(self, rows: Tensor) -> Tensor:
        """Whether rows ``[m]`` have an infinite error, or a bias far above the tolerance; on the CPU.

        ``bias`` is a bound, about twice the bias. The limit is far above what the methods aim at, so that few fresh
        samples are refused: selecting samples by their own error is biased.
        """
        error, bias = (self.columns[name][rows.cpu()] for name in ("error", "bias"))
        return error.isinf() | ~(bias <= 2 * self.settings.tolerance)

    def is_late(self) -> bool:
        """Whether the deadline is over."""
        self.late = self.late or time.monotonic() > self.deadline
        return self.late

    @contextmanager
    def timed(self, method: int) -> Iterator[None]:
        """Adds the time to that of a method."""
        before = time.perf_counter()
        yield
        self.columns["seconds"][:, method] += (time.perf_counter() - before) / len(self.x)

"""Steps of SVI in all processes at once: gradients are summed, clipped and checked before the update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.infer.recording.call import Call
from pyro_vae.infer.svi import SVI, Computed
from pyro_vae.processes import Processes
from pyro_vae.system.private_apis import scale_in_place
from pyro_vae.system.randomness import generators_kept
from pyro_vae.system.values import values_kept
from pyro_vae.training.gradient_accumulation import GradientAccumulation
from pyro_vae.training.scales import Scales
from pyro_vae.training.settings import Settings
from pyro_vae.training.sharding import ShardedLoss, whole_and_shards
from pyro_vae.training.sources import Batch
from pyro_vae.training.train_state import TrainState

_SECONDS_TO_COMPILE = 8.0  # compiling takes about six, and what it saves is a rough estimate


class Requests(NamedTuple):
    """What a process asks for after a step, or what at least one of them asks for."""

    stop: bool = False
    save: bool = False


class Outcome(NamedTuple):
    """The outcome of a step, of all processes together."""

    loss: float  #: A sum over the datapoints of the batch.
    rows: int  #: The number of these datapoints.
    is_finite: bool  #: Whether loss and gradients are finite. If not, the parameters were not updated.
    requests: Requests  #: What at least one process asks for.


class Steps:
    """Takes steps, in all processes at once. There is no update if the loss or a gradient is not finite.

    Batches of the same kind as the first use a step that is recorded, tested and compiled before the first one is
    taken; other batches are steps as in Pyro. So what a step computes does not depend on the steps before it in this
    process.

    Losses are reported, and gradients clipped, per datapoint, whatever the scale of the programs. If batches are
    subsamples for the programs, so that each loss stands for all data, then parts of a batch and shares of processes
    are averaged, not summed.

    Args:
        programs: Model and guide.
        state: Has the optimizer; how steps are compiled, ``"auto"`` if that saves time in the steps ahead; and the kind
            of batches that are recorded, by default that of the first.
        settings: How to train: the clipping of gradients, their accumulation, and the precision.
        loss: An ELBO of Pyro, or a function of model, guide and their arguments.
        processes: Losses and gradients are summed over them.
        scales: Where the scales of the programs are noted.
        is_sharded: Whether parameters are spread over the processes; their gradients then are sums already.
    """

    def __init__(
        self,
        programs: tuple[Callable[..., Any], Callable[..., Any]],
        state: TrainState,
        settings: Settings,
        loss: Any,
        processes: Processes,
        scales: Scales,
        is_sharded: bool,
    ) -> None:
        self.compile = False if is_sharded else state.compile
        self.kind = state.kind
        self.is_prepared = False
        self._programs = programs
        self._optimizer = state.optimizer
        self._precision = settings.precision
        self._processes = processes
        self._clip_norm = settings.clip_norm
        self._scales = scales
        self._sharded_loss = ShardedLoss(loss, processes.size) if is_sharded else None
        parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
        self._loss = GradientAccumulation(
            self._sharded_loss or loss, settings.accumulate, parameters, scales, checks_gradients=not is_sharded
        )
        self._as_pyro = self._recorded = self._new_svi(False)
        self._previous: Batch | None = None
        self._last: SVI | None = None  # that of the last step; None if more than values of tensors may have changed

    def _new_svi(self, mode: bool | str) -> SVI:
        # For an ELBO of Pyro, SVI would take its own loss_and_grads.
        loss = self._loss
        return SVI(*self._programs, self._optimizer, loss, loss, compile=mode, precision=self._precision)

    def prepare(self, batch: Batch, steps: int | None, buffers: Sequence[Tensor]) -> None:
        """Records the step for batches of this kind, without taking one.

        Args:
            batch: One of them.
            steps: The number of steps ahead, if it is known.
            buffers: What the programs may write to.
        """
        self.kind, self.is_prepared = batch.kind, True
        if self.compile is False:
            return
        seconds_saved = self._record("graph" if self.compile == "auto" else self.compile, batch, buffers)
        if self.compile == "auto":
            self.compile = True if (steps or 0) * seconds_saved > _SECONDS_TO_COMPILE else "graph"
            if self.compile is True:
                self._record(True, batch, buffers)

    def _record(self, mode: bool | str, batch: Batch, buffers: Sequence[Tensor]) -> float:
        self._recorded = self._new_svi(mode)
        with generators_kept(batch.device), values_kept(buffers):
            return self._recorded._prepare(_call(batch))

    def look_again(self) -> None:
        """Lets the next step find out whether attributes or variables that the programs see have changed."""
        self._last = None

    def take(self, batch: Batch | None, requests: Requests) -> Outcome:
        """Takes a step.

        Args:
            batch: The share of this process; None if only other processes have one.
            requests: What this process asks for.
        """
        rows = 0 if batch is None else batch.rows
        if batch is None:  # so that gradients have the shapes that others send
            batch = self._previous
            if batch is None:
                raise ValueError(f"there is no data for process {self._processes.rank} of {self._processes.size}")
        self._previous = batch
        if self._sharded_loss is not None:
            self._sharded_loss.counts = rows > 0
        computed = self._compute(batch)
        outcome = self._sum(computed, rows, requests)
        if outcome.is_finite:
            computed.update()
        return outcome

    def _compute(self, batch: Batch) -> Computed:
        svi = self._recorded if batch.kind == self.kind else self._as_pyro
        in_a_row, self._last = svi is self._last, svi
        if batch.gather is None:
            return svi._gradients(_call(batch))
        return svi._gradients_on(batch.inputs[0], batch.gather, in_a_row)

    @torch.no_grad()
    def _sum(self, computed: Computed, rows: int, requests: Requests) -> Outcome:
        """Sums over the processes, and clips the gradients, in place."""
        loss = sum(torch.as_tensor(each).item() for each in computed.losses) if rows else 0.0
        whole, shards = list(computed.gradients), list[Tensor]()
        if self._sharded_loss is not None:
            whole, shards = whole_and_shards(computed.gradients)  # shards are sums over processes already
            loss /= self._processes.size
            for each in whole:
                each /= self._processes.size
        if not rows:
            for each in whole:
                each.zero_()
        # If batches are subsamples: the mean over processes, weighted by their rows, instead of the sum.
        is_mean = self._processes.size > 1 and self._scales.is_subsample
        weight = rows if is_mean else 1
        if is_mean:
            for each in whole:
                each *= weight
            for each in shards:
                each /= self._processes.size
        datapoints = 0.0 if self._clip_norm is None else self._loss.datapoints(rows) * weight
        numbers = loss, datapoints, rows, self._squared_norm(shards), *requests
        loss, datapoints, all_rows, squared_norm, *counts = self._processes.sum(whole, *numbers)
        if is_mean:
            datapoints /= all_rows
            for each in whole:
                each /= all_rows
        squared_norm += self._squared_norm(whole)
        if self._clip_norm is not None and squared_norm > 0:
            scale_in_place([*whole, *shards], min(1.0, self._clip_norm * datapoints / math.sqrt(squared_norm)))
        is_finite = math.isfinite(loss) and math.isfinite(squared_norm)
        return Outcome(loss, int(all_rows), is_finite, Requests(*(count > 0 for count in counts)))

    def _squared_norm(self, gradients: Sequence[Tensor]) -> float:
        """Needed to clip gradients, and to check those that the loss does not; otherwise 0."""
        if not gradients or (self._clip_norm is None and self._sharded_loss is None):
            return 0.0
        return torch.stack([torch.linalg.vector_norm(each) for each in gradients]).square().sum().item()


def _call(batch: Batch) -> Call:
    return Call(*batch.arguments) if batch.gather is None else Call(batch.inputs, {}, batch.gather)

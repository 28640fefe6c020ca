"""Steps of SVI, and what a long run looks at between the gradients of a step and its update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from pyro_vae.infer import SVI
from pyro_vae.processes import Processes
from pyro_vae.system.randomness import generators_kept
from pyro_vae.training.scales import Scales
from pyro_vae.training.sharding import ShardedLoss, whole_and_shards
from pyro_vae.training.sources import Batch

__all__ = ["InParts", "Steps"]

_LARGE = 10_000  # elements
_SECONDS_TO_COMPILE = 20.0  # it takes about ten, and how much it saves is known roughly


class Steps:
    """Takes steps, in all processes at once, and says what the loss was; none where it or a gradient is not finite.

    Batches of one kind, that of the first, are taken by a step that is recorded, tested and compiled before it is used;
    others as Pyro does. So what a step computes does not depend on which steps this process has taken before.

    Losses are reported, and gradients clipped, per datapoint, whatever the scale of the programs. Where batches are
    subsamples for them, so that each loss stands for all data, the parts of a batch and the shares of processes are
    averaged, rather than added up.

    Args:
        programs: Model and guide.
        optimizer: Steps the parameters.
        loss: An ELBO of Pyro, or a function of model, guide and their arguments.
        processes: Those that losses and gradients are added up over.
        scales: Where those of the programs are noted.
        clip_norm: What the norm of the gradient of the loss per datapoint is clipped to.
        accumulate: In how many parts the gradients of a batch are computed.
        precision: See :class:`~pyro_vae.SVI`.
        compile: Likewise; ``"auto"`` compiles where the steps ahead pay for it.
        is_sharded: Whether parameters are spread over the processes, and gradients are added up where they arise.
    """

    def __init__(
        self,
        programs: tuple[Callable[..., Any], Callable[..., Any]],
        optimizer: torch.optim.Optimizer,
        loss: Any,
        processes: Processes,
        scales: Scales,
        *,
        clip_norm: float | None,
        accumulate: int,
        precision: str,
        compile: bool | str,  # noqa: A002
        is_sharded: bool = False,
    ) -> None:
        self.compile = False if is_sharded else compile
        self._sharded_loss = ShardedLoss(loss, processes.size) if is_sharded else None
        loss = self._sharded_loss or loss
        self.kind: list[Any] | None = None  #: The kind of batches whose step is recorded.
        self.is_prepared = False
        self._processes = processes
        self._clip_norm = clip_norm
        # What a batch of this process counts for, and what all processes made of it.
        self._rows = 0
        self._scales = scales
        self._is_rehearsal = False
        self._outcome = 0.0, 0, True

        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._whole = InParts(loss, accumulate, parameters, self._scales, looks_at_gradients=not is_sharded)

        def new_svi(mode: bool | str) -> SVI:
            whole = self._whole
            return SVI(
                *programs,
                optimizer,
                whole,
                whole,  # Pyro would take an ELBO's own
                compile=mode,
                precision=precision,
                before_update=self._before_update,
            )

        self._new_svi = new_svi
        self._as_pyro = new_svi(False)
        self._recorded = self._as_pyro
        self._previous: Batch | None = None
        self._last: SVI | None = None
        self.is_in_a_row = False  #: Whether nothing but values of tensors can have changed since the last step.
        self.wishes = [False, False]  #: To stop, and to save: what one process wishes
        self.granted = [False, False]  #: is granted in all, after their next step.

    def prepare(self, batch: Batch, steps: int | None, buffers: Sequence[Tensor]) -> None:
        """Records the step for batches of this kind, without taking one.

        Args:
            batch: One of them.
            steps: How many there will be, if that is known.
            buffers: What the programs may write to.
        """
        self.kind, self.is_prepared = batch.kind, True
        if self.compile is False:
            return
        self._record("graph" if self.compile == "auto" else self.compile, batch, buffers)
        if self.compile == "auto":
            pays = (steps or 0) * self._recorded.seconds_saved() > _SECONDS_TO_COMPILE
            self.compile = True if pays else "graph"
            if pays:
                self._record(True, batch, buffers)

    def take(self, batch: Batch | None) -> tuple[float, int, bool]:
        """Takes a step on a batch; None where only other processes have one.

        Returns:
            The loss, as a sum over the datapoints of the batch, and their number, both of all processes, and whether
            all was finite; where it was not, the parameters are as before.
        """
        self._rows = batch.rows if batch is not None else 0
        if batch is None:  # for gradients to have the shapes that others send
            batch = self._previous
            if batch is None:
                raise ValueError(f"there is no data for process {self._processes.rank} of {self._processes.size}")
        self._previous = batch
        if self._sharded_loss is not None:
            self._sharded_loss.counts = self._rows > 0
        self._step(batch)
        return self._outcome

    def _step(self, batch: Batch) -> None:
        svi = self._recorded if batch.kind == self.kind else self._as_pyro
        if batch.gather is not None:
            svi.update_on(batch.inputs[0], batch.gather, in_a_row=self._last is svi and self.is_in_a_row)
            self._last = svi
        else:
            args, kwargs = batch.arguments
            svi.update(*args, **kwargs)
        self.is_in_a_row = True

    def _record(self, mode: bool | str, batch: Batch, buffers: Sequence[Tensor]) -> None:
        self._recorded = self._new_svi(mode)
        before = [buffer.clone() for buffer in buffers]
        self._is_rehearsal = True
        with generators_kept(batch.device):
            for _ in range(3):  # one as Pyro, one to record, one to test
                self._step(batch)
        self._is_rehearsal = False
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)

    @torch.no_grad()
    def _before_update(self, losses: Sequence[Tensor], gradients: Sequence[Tensor]) -> bool:
        if self._is_rehearsal:
            return False
        loss = sum(each.item() for each in losses) if self._rows else 0.0
        whole, shards = list(gradients), list[Tensor]()
        if self._sharded_loss is not None:
            whole, shards = whole_and_shards(gradients)  # shards are of the sum over processes already
            loss /= self._processes.size
            for each in whole:
                each /= self._processes.size
        if not self._rows:
            for each in whole:
                each.zero_()
        # The mean of what each process makes of its share, or the sum.
        is_mean = self._scales.is_subsample and self._processes.size > 1
        weight = self._rows if is_mean else 1
        for each in whole if is_mean else ():
            each *= weight
        for each in shards if is_mean else ():
            each /= self._processes.size
        numbers = loss, self._whole.datapoints(self._rows) * weight, self._rows, self._size(shards)
        loss, datapoints, rows, size, *wishes = self._processes.sum(whole, *numbers, *self.wishes)
        for each in whole if is_mean else ():
            each /= rows
        datapoints = datapoints / rows if is_mean else datapoints
        size += self._size(whole)
        self.granted = [count > 0 for count in wishes]
        if self._clip_norm is not None and size > 0:
            torch._foreach_mul_([*whole, *shards], min(1.0, self._clip_norm * datapoints / math.sqrt(size)))
        is_finite = math.isfinite(loss) and math.isfinite(size)
        self._outcome = loss, int(rows), is_finite
        return is_finite

    def _size(self, gradients: Sequence[Tensor]) -> float:
        """The square of their norm, if that is asked for: to clip it, or of shards, which nobody has looked at."""
        if not gradients or (self._clip_norm is None and self._sharded_loss is None):
            return 0.0
        return torch.stack([torch.linalg.vector_norm(each) for each in gradients]).square().sum().item()


class InParts:
    """The loss of a batch and its gradients, computed in parts one after the other: in less memory.

    Args:
        loss: An ELBO of Pyro, or a function of model, guide and their arguments: a sum over datapoints.
        parts: How many.
        parameters: Those that get gradients.
        scales: Says if losses are sums over all data: of the parts' ones the mean is taken, by their datapoints.
        looks_at_gradients: Whether the loss is NaN if a gradient is not finite.
    """

    def __init__(
        self,
        loss: Any,
        parts: int,
        parameters: Sequence[Tensor] = (),
        scales: Scales | None = None,
        *,
        looks_at_gradients: bool = True,
    ) -> None:
        self.loss: Any = loss
        self.parts = parts
        self.parameters = parameters
        self.scales = Scales() if scales is None else scales
        self.looks_at_gradients = looks_at_gradients

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Tensor, **kwargs: Tensor) -> Any:
        """Leaves gradients at the parameters. Returns the loss, as a sum over the datapoints of the batch."""
        total: Any = 0.0
        rows = len(next(iter((*args, *kwargs.values()))))
        start = 0
        for size in self._sizes(rows):
            part, keywords = args, kwargs
            if size < rows:
                part, keywords = tree_map(lambda each, i=start, n=size: each.narrow(0, i, n), (args, kwargs))
            start += size
            self._weigh(rows / size)
            self.scales.begin()
            loss = self._loss_and_gradients(model, guide, *part, **keywords)
            self.scales.end(size)
            self._weigh(size / rows)
            per_row = size / self.scales.of(size).datapoints
            total = total + (loss if per_row == 1 else per_row * loss)
        if not self.looks_at_gradients:
            return total
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        parts = [part.reshape(-1) for each in gradients for part in _enough_of(each)]
        return total + 0.0 * torch.cat(parts).sum() if parts else total

    def datapoints(self, rows: int) -> float:
        """How many datapoints the loss of a batch of so many is a sum over."""
        mean = self.scales.is_subsample
        return sum(self.scales.of(size).datapoints * (size / rows if mean else 1) for size in self._sizes(rows))

    def _sizes(self, rows: int) -> list[int]:
        """Of the parts."""
        most = max(1, -(-rows // self.parts))
        return [min(most, rows - start) for start in range(0, rows, most)]

    def _loss_and_gradients(self, *args: Any, **kwargs: Any) -> Any:
        if hasattr(self.loss, "loss_and_grads"):  # some are a tuple, of a loss for the model and one for the guide
            return sum(tree_leaves(self.loss.loss_and_grads(*args, **kwargs)))
        loss = self.loss(*args, **kwargs)
        loss.backward()
        return loss.detach()

    def _weigh(self, weight: float) -> None:
        """Multiplies the gradients that are there by the weight of a part, where the mean of the parts is taken."""
        for parameter in self.parameters if weight != 1 and self.scales.is_subsample else ():
            if parameter.grad is not None:
                parameter.grad = parameter.grad * weight


def _enough_of(gradient: Tensor) -> tuple[Tensor, ...]:
    """Parts of a gradient that are not finite if it is not, for less than it costs to read all of a large one.

    That of a weight is a sum of products of an output and an input: what is not finite among these makes a whole row of
    it so, or a whole column. (If a single product overflows, the next loss tells.)
    """
    if gradient.ndim < 2 or gradient.numel() < _LARGE:
        return (gradient,)
    return gradient[0], gradient[:, 0]

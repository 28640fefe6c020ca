"""The state of a training run in this process, and what is done to it: steps, ends of epochs, saves."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyro_vae.infer.kl_weight import WeightedLatents
from pyro_vae.infer.optimizers import fuse
from pyro_vae.processes import Processes
from pyro_vae.programs.batch_arguments import BatchArguments
from pyro_vae.system.randomness import generators_kept, get_generators, reseed, set_generators
from pyro_vae.system.warning import warn
from pyro_vae.training.batch_of_one import batch_of_one_explained, has_a_part_of_one, normalizes_batches, rehearse
from pyro_vae.training.checkpoint import pack
from pyro_vae.training.not_finite import NotFiniteError, find_cause
from pyro_vae.training.optimization import check_scheduler, make_optimizer, steps_by_loss
from pyro_vae.training.run import Run
from pyro_vae.training.run_folder import RunFolder
from pyro_vae.training.scales import Noted, Scales
from pyro_vae.training.settings import Settings
from pyro_vae.training.sharding import gathered, load_weights, shard, sharded_state
from pyro_vae.training.sources import Batch, Rows, Source, as_source
from pyro_vae.training.states import load_optimizer, load_scheduler
from pyro_vae.training.steps import Steps
from pyro_vae.training.support import Observed, observed, surely_inside
from pyro_vae.training.validation import validate

__all__ = ["Training"]

SKIPPED_IN_A_ROW = 20  # then nothing will become of it
VALIDATION_BATCH = 500


class Training:
    """A run of training.

    Args:
        vae: The VAE.
        train: The data; see :func:`~pyro_vae.fit`.
        valid: Likewise, or None.
        settings: How to train.
        out: The folder of the run, or None.
        resume: Whether to go on with the run that is there, if there is one; ``"weights"``: with other settings.
        save_every: Seconds between saves.
        is_sharded: Whether to spread parameters over the processes, if there are several.
    """

    def __init__(
        self,
        vae: nn.Module,
        train: Any,
        valid: Any,
        settings: Settings,
        out: str | Path | None,
        resume: bool | str,
        save_every: float,
        is_sharded: bool = False,
    ) -> None:
        if settings.patience is not None and valid is None:
            raise ValueError("patience needs validation data: pass valid")
        self._settings = settings
        self._device = next(vae.parameters()).device
        self._processes = Processes(self._device)
        self._is_sharded = is_sharded and self._processes.size > 1
        vae_: Any = vae  # whose attributes torch does not type
        self._programs = vae_.model, vae_.guide
        self._check = getattr(vae, "check", None)
        self.run = Run(vae, settings.epochs, None if out is None else Path(out))
        words = {**settings.in_words(), "train": _fingerprint(train), "valid": _fingerprint(valid)}
        self._folder = None if out is None else RunFolder.open(out, words, bool(resume), self._processes.is_first)
        if settings.seed is not None:
            reseed(settings.seed, self._device)
        self._begin(resume)
        self._train = self._source("train", train, settings.batch_size, settings.transform, settings.drop_last)
        self._valid = None
        if valid is not None:
            self._valid = self._source("valid", valid, max(settings.batch_size, VALIDATION_BATCH))
        # Each batch in the first epoch, or all of them before.
        self._is_looked_at = isinstance(self._train, Rows) and self._check is not None
        self._is_valid_looked_at = isinstance(self._valid, Rows) and self._check is not None
        self._observed: list[Observed] | None = None  # by programs that have no check
        self._validates = is_validation_enabled()
        self._check_smallest_batch()
        self._save_every = save_every
        self._now = self._saved = time.monotonic()
        self._is_saved = False
        self._skipped_in_a_row = 0
        self._form: Any = None  # of data that were looked at
        self._update_is_done()

    def _begin(self, resume: bool | str) -> None:
        """All that changes from step to step, as it is in the beginning, or where a run goes on."""
        settings, vae = self._settings, self.run.vae
        self._processes.share_tensors([*vae.parameters(), *vae.buffers()])
        self._seed = self._processes.share(int(torch.randint(2**31, ())))  # of the order of the data
        if not self._processes.is_first:
            reseed(self._seed + self._processes.rank, self._device)  # noise of its own
        self._new_optimizer()
        self._kl_weight = torch.ones((), device=self._device)
        self._best: dict[str, Tensor] | None = None
        self._compile, self._kind = settings.compile, None
        self._waits_from = 0  # the epoch that patience begins with
        goes_on = self._folder is not None and resume and self._folder.exists
        if self._folder is not None and goes_on and resume != "weights":
            self._best = self._folder.restore(self.run, self._load)
        elif self._folder is not None and goes_on:
            self._best = self._folder.restore(self.run, None)
            self._begin_again()
        elif self._folder is not None and self._processes.is_first:
            self._folder.describe(vae)
            pack("optimizer", self._optimizer.state_dict(), {})  # to find out now what cannot be saved
            if self._scheduler is not None:
                pack("scheduler", self._scheduler.state_dict(), {})
        if self._is_sharded:
            whole, scheduler = self._optimizer.state_dict(), self._scheduler
            shard(vae, self._processes)
            self._new_optimizer()
            self._optimizer.load_state_dict(sharded_state(self._optimizer, whole))
            if scheduler is not None:
                self._scheduler.load_state_dict(scheduler.state_dict())
        scales = Scales()
        programs: Any = tuple(Noted(program, scales) for program in self._programs)
        if settings.kl_weight is not None:
            programs = tuple(WeightedLatents(program, self._kl_weight) for program in programs)
        loss = getattr(vae, "default_loss", Trace_ELBO)() if settings.loss is None else settings.loss
        self._steps = Steps(
            programs,
            self._optimizer,
            loss,
            self._processes,
            scales,
            clip_norm=settings.clip_norm,
            accumulate=settings.accumulate,
            precision=settings.precision,
            compile=self._compile,
            is_sharded=self._is_sharded,
        )
        self._steps.kind = self._kind

    def _begin_again(self) -> None:
        """All that is new where a run goes on from its weights alone."""
        progress = self.run.progress
        progress.batch = progress.rows = 0
        progress.loss = progress.epoch_seconds = 0.0
        self._waits_from = progress.epoch
        self._seed = self._processes.share(self._seed + progress.step)  # not the order and the noise of the beginning
        reseed(self._seed + self._processes.rank, self._device)
        if self._processes.is_first and self._folder is not None:
            self._folder.describe(self.run.vae)

    def _new_optimizer(self) -> None:
        parameters = [parameter for parameter in self.run.vae.parameters() if parameter.requires_grad]
        settings = self._settings
        self._optimizer = make_optimizer(settings.optimizer, self.run.vae, parameters, settings.lr)
        if not self._is_sharded:
            fuse(self._optimizer)
        self._scheduler: Any = None if settings.scheduler is None else settings.scheduler(self._optimizer)
        if self._scheduler is not None:
            check_scheduler(self._scheduler, settings.scheduler_every)

    def _source(self, name: str, data: Any, batch_size: int, transform: Any = None, drop_last: bool = False) -> Source:
        floats = (parameter.dtype for parameter in self.run.vae.parameters() if parameter.is_floating_point())
        source = as_source(
            data,
            batch_size=batch_size,
            arguments=BatchArguments(self._programs[0]),
            transform=transform,
            device=self._device,
            dtype=next(floats, torch.get_default_dtype()),
            seed=self._seed,
            processes=self._processes,
            drop_last=drop_last,
            name=name,
        )
        if isinstance(source, Rows) and self._check is not None:
            with generators_kept(self._device):
                source.check(self._check)
        return source

    def _check_smallest_batch(self) -> None:
        """Checks that the last batch of an epoch is not too small for batch normalization.

        Raises:
            ValueError: If it is.
        """
        sizes, parts = self._train.sizes(), (self._processes.size, self._settings.accumulate)
        if not normalizes_batches(self.run.vae) or not has_a_part_of_one(sizes, *parts):
            return
        with generators_kept(self._device):
            first = next(iter(self._train.epoch(0)), None)
        if first is not None:
            where = "a part of a batch" if max(parts) > 1 else "the last batch of an epoch"
            with batch_of_one_explained(self.run.vae, where):
                rehearse(self.run.vae, self._programs, first.row())

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch has; of a stream, as many as the last one had, and None in the first."""
        try:
            return len(self._train)
        except TypeError:
            steps = [0, *(row["step"] for row in self.run.history[-2:])]
            return steps[-1] - steps[-2] if len(steps) > 1 else None

    @property
    def is_stopping(self) -> bool:
        """Whether a process wants to stop."""
        return self._steps.granted[0]

    def batches(self) -> Iterator[Batch | None]:
        """What is left of the epoch."""
        self._steps.is_in_a_row = False
        self._first_batch = self.run.progress.batch
        return self._train.epoch(self.run.progress.epoch, skip=self.run.progress.batch)

    def step(self, batch: Batch | None, wants_to_stop: bool) -> None:
        """Takes a step.

        Raises:
            NotFiniteError: If it cannot be taken, and is not to be skipped.
        """
        progress, steps = self.run.progress, self._steps
        if batch is not None and not self._is_looked_at:
            self._look_at(batch, f"batch {progress.batch + 1} of train")
        if batch is not None and not steps.is_prepared and steps.kind in (None, batch.kind):
            total = None if self.num_batches is None else self.num_batches * self.run.epochs
            steps.prepare(batch, total, list(self.run.vae.buffers()))
        self._weigh(progress.batch)
        self._is_saved = False
        steps.wishes = [wants_to_stop, time.monotonic() - self._saved > self._save_every]
        before = get_generators(self._device)
        with batch_of_one_explained(self.run.vae, f"a batch, or a part of one, at step {progress.step + 1},"):
            loss, rows, is_finite = steps.take(batch)
        progress.batch += 1
        progress.step += 1
        if is_finite:
            progress.loss += loss
            progress.rows += rows
            self._skipped_in_a_row = 0
            if self._scheduler is not None and self._settings.scheduler_every == "step":
                self._scheduler.step()
        else:
            self._not_finite(loss, batch, before)
        if steps.granted[1] and not steps.granted[0]:  # or it is saved on leaving
            self.save()

    def _look_at(self, batch: Batch | None, where: str) -> Batch | None:
        """Checks the data of a batch, if they can be checked. Returns the batch.

        Raises:
            TypeError: If the VAE cannot take them.
            ValueError: Likewise.
        """
        try:
            if batch is not None and self._check is not None:
                self._look_at_data(batch.x)
            elif batch is not None:
                self._look_at_observed(batch.gathered())
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{where}: {error}") from error
        return batch

    def _look_at_data(self, x: Tensor) -> None:
        """The same for a VAE that has a check, which is slow, where it need not be called."""
        form = x.shape[1:], x.dtype, x.device
        if form != self._form or not surely_inside(x, getattr(self.run.vae, "_support", None)):
            self._check(x)
            self._form = form

    def _look_at_observed(self, batch: Batch) -> None:
        """The same for programs that have no check of their own, unless Pyro's validation is off."""
        if self._observed is None:
            self._observed = []
            if self._validates:
                model_trace = rehearse(self.run.vae, self._programs, batch, validate=True)
                self._observed = observed(model_trace, batch.inputs)
        for each in self._observed:
            each.check(batch.inputs[each.argument])

    def _weigh(self, batch: int) -> None:
        """Sets what depends on how far the training is."""
        batches = self.num_batches
        epoch = self.run.progress.epoch + (min(1.0, batch / batches) if batches else 0.0)
        if self._settings.kl_weight is not None:
            self._kl_weight.fill_(self._settings.kl_weight(epoch))
        if hasattr(self._settings.loss, "at_epoch"):
            self._settings.loss.at_epoch(epoch)

    def _not_finite(self, loss: float, batch: Batch | None, generators: dict[str, Tensor]) -> None:
        progress = self.run.progress
        progress.skipped += 1
        self._skipped_in_a_row += 1
        if self._settings.on_nan == "skip" and self._skipped_in_a_row < SKIPPED_IN_A_ROW:
            return
        cause = "it is in another process"
        if batch is not None:
            set_generators(generators, self._device)  # for the same noise
            cause = find_cause(self.run.vae, self._programs, *batch.arguments)
        where = f"step {progress.step} (epoch {progress.epoch + 1}, batch {progress.batch})"
        message = f"at {where} the loss is {loss:g}: {cause}. The step was not taken"
        if self._settings.on_nan == "skip":
            message += f", nor the {SKIPPED_IN_A_ROW - 1} before it"
        if self._folder is not None and self._folder.exists:
            message += f"; what was saved last is kept in {str(self.run.out)!r}"
        raise NotFiniteError(message, progress.epoch + 1, progress.batch, progress.step)

    def end_epoch(self, wants_to_stop: bool) -> None:
        """Validates, notes what there is to note, and saves if it is time to.

        Raises:
            ValueError: If the epoch had no batches.
        """
        run, progress = self.run, self.run.progress
        if not progress.batch:
            raise ValueError("train has no batches")
        self._is_looked_at |= self._first_batch == 0
        self._weigh(progress.batch - 1)  # as it was last, if the run has gone on just now
        self._processes.share_tensors([*run.vae.buffers()])  # those that each process has counted by itself
        seconds = progress.epoch_seconds + time.monotonic() - self._now
        row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "train_loss": progress.loss / max(progress.rows, 1),
            "lr": self._optimizer.param_groups[0]["lr"],
            "kl_weight": self._kl_weight.item(),
            "skipped": progress.skipped,
            "datapoints_per_second": progress.rows / max(seconds, 1e-9),
        }
        if self._valid is not None:
            batches = self._valid.epoch(0)
            if not self._is_valid_looked_at:
                batches = (self._look_at(batch, f"batch {i} of valid") for i, batch in enumerate(batches, start=1))
                self._is_valid_looked_at = True
            terms = validate(run.vae, self._programs, batches, self._device, self._processes)
            row |= {f"valid_{name}": value for name, value in terms.items()}
            if terms["loss"] < progress.best_loss:
                progress.best_loss, progress.best_epoch = terms["loss"], progress.epoch + 1
                self._best = {name: tensor.detach().clone() for name, tensor in run.vae.state_dict().items()}
        if self._scheduler is not None and steps_by_loss(self._scheduler):
            self._scheduler.step(row.get("valid_loss", row["train_loss"]))
        elif self._scheduler is not None and self._settings.scheduler_every == "epoch":
            self._scheduler.step()
        self._count_seconds()
        row["seconds"] = progress.seconds
        run.history.append(row)
        progress.epoch += 1
        progress.batch = progress.rows = 0
        progress.loss = progress.epoch_seconds = 0.0
        self._update_is_done()
        is_due = time.monotonic() - self._saved > self._save_every
        wishes = self._processes.sum([], wants_to_stop, is_due or run.is_done)
        self._steps.granted = [count > 0 for count in wishes]
        if self._steps.granted[1]:
            self.save()

    def finish(self) -> None:
        """Does what is done once, at the end."""
        if not self._is_saved:
            self.save()
        self._processes.wait()  # for the files
        if self._settings.patience is not None and self._best is not None:
            load_weights(self.run.vae, self._best)

    def save(self) -> None:
        """Saves the run, if it has a folder.

        Raises:
            OSError: If it cannot be written; what was saved before is as it was. At the end of the run it is a warning.
            NotFiniteError: If a parameter is not finite; what was saved before is as it was.
        """
        self._count_seconds()
        self._saved, self._is_saved = time.monotonic(), True
        if self._folder is None:
            return
        mine = {"generators": get_generators(self._device), "kind": self._steps.kind}
        weights, optimizer, best = gathered((self.run.vae.state_dict(), self._optimizer.state_dict(), self._best))
        for name, _ in self.run.vae.named_parameters():
            if not weights[name].isfinite().all():  # what is saved is to be good
                progress = self.run.progress
                message = f"after step {progress.step} the parameter {name} is not finite, and is not saved"
                raise NotFiniteError(message, progress.epoch + 1, progress.batch, progress.step)
        state = {
            "optimizer": optimizer,
            "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
            "processes": self._processes.gather(mine),
            "seed": self._seed,
            "compile": self._steps.compile,
            "waits_from": self._waits_from,
        }
        if self._processes.is_first:
            try:
                self._folder.save(self.run, weights, state, best)
            except OSError as error:
                if not self.run.is_done:
                    raise
                warn(f"{error}: the run is done, but how it ended is not kept there")

    def _load(self, state: dict[str, Any]) -> None:
        """Takes what :meth:`save` has kept, with the progress loaded already, and the weights not yet.

        Raises:
            Exception: If it is none.
        """
        load_optimizer(self._optimizer, state["optimizer"])
        if self._scheduler is not None:
            load_scheduler(self._scheduler, state["scheduler"])
        self._seed, self._compile = state["seed"], state["compile"]
        self._waits_from = int(state.get("waits_from", 0))
        if type(self._seed) is not int or self._compile not in (False, True, "graph", "auto"):
            raise ValueError(f"it has seed {self._seed!r} and compile {self._compile!r}")
        if len(state["processes"]) == self._processes.size:
            mine = state["processes"][self._processes.rank]
            self._kind = mine["kind"]
            set_generators(mine["generators"], self._device)
        else:  # not the same bits, but noise that is as good
            reseed(self._seed + self.run.progress.step + self._processes.rank, self._device)

    def _update_is_done(self) -> None:
        progress, patience = self.run.progress, self._settings.patience
        waited = progress.epoch - max(progress.best_epoch, self._waits_from)
        self.run.is_done = progress.epoch >= self.run.epochs or (patience is not None and waited >= patience)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.run.progress.seconds += now - self._now
        self.run.progress.epoch_seconds += now - self._now
        self._now = now


def _fingerprint(data: Any) -> Any:
    """What tells data from others, as JSON can hold it: of tensors their shape and a checksum of some rows."""
    if isinstance(data, Tensor):
        rows = data.detach()[:: max(1, len(data) // 256)].cpu().contiguous() if data.ndim else data
        return [str(data.dtype), *data.shape, zlib.crc32(rows.reshape(-1).view(torch.uint8).numpy().data)]
    if isinstance(data, tuple | list):
        return [_fingerprint(each) for each in data]
    return None if data is None else type(data).__qualname__

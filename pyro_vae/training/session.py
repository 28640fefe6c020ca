"""A session of training: the part of a run between one call of ``fit`` and its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_vae.infer.kl_weight import WeightedLatents
from pyro_vae.processes import Processes
from pyro_vae.programs.batch_arguments import BatchArguments
from pyro_vae.system.randomness import generators_kept, get_generators, reseed, set_generators
from pyro_vae.system.warning import warn
from pyro_vae.training.batch_of_one import explain_batch_of_one, has_a_part_of_one, normalizes_batches, rehearse
from pyro_vae.training.data_check import DataCheck
from pyro_vae.training.fingerprint import fingerprint
from pyro_vae.training.not_finite import NotFiniteError, find_cause
from pyro_vae.training.optimization import steps_by_loss
from pyro_vae.training.run import Row, Run
from pyro_vae.training.run_folder import RunFolder
from pyro_vae.training.scales import Noted, Scales
from pyro_vae.training.settings import Settings
from pyro_vae.training.sharding import gathered, load_weights
from pyro_vae.training.sources import Batch, Rows, Source, as_source
from pyro_vae.training.steps import Requests, Steps
from pyro_vae.training.train_state import TrainState
from pyro_vae.training.validation import validate

SKIPPED_IN_A_ROW = 20  # then the run fails
VALIDATION_BATCH = 500


class Session:
    """A session of training: takes steps, ends epochs, and saves.

    Args:
        vae: The VAE.
        train: The data; see :func:`~pyro_vae.fit`.
        valid: Likewise, or None.
        settings: How to train.
        out: The folder of the run, or None.
        resume: Whether to resume the run in the folder, if there is one; ``"weights"``: with other settings.
        save_every: Seconds between saves.
        is_sharded: Whether to spread parameters over the processes, if there are several.

    Attributes:
        run: The run so far.
    """

    def __init__(
        self,
        vae: nn.Module,
        train: Any,
        valid: Any,
        settings: Settings,
        *,
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
        vae_: Any = vae  # torch does not type its attributes
        self._programs = vae_.model, vae_.guide
        self._check = DataCheck(vae, self._programs)
        words = {**settings.in_words(), "train": fingerprint(train), "valid": fingerprint(valid)}
        self.run = Run(vae, settings.epochs, None if out is None else Path(out))
        self.run.settings = {"epochs": settings.epochs, "patience": settings.patience, **words}
        self._folder = None if out is None else RunFolder.open(out, words, bool(resume), self._processes.is_first)
        if settings.seed is not None:
            reseed(settings.seed, self._device)
        self._state = self._first_state()
        if self._folder is not None:
            self._restore_or_describe(self._folder, resume)
        if self._is_sharded:
            self._state.shard(vae, settings, self._processes)
        self._kl_weight = torch.ones((), device=self._device)
        self._steps = self._new_steps()
        self._train = self._source("train", train, settings.batch_size, settings.transform, settings.drop_last)
        self._valid = None
        if valid is not None:
            self._valid = self._source("valid", valid, max(settings.batch_size, VALIDATION_BATCH))
        # Rows are checked by the VAE before the first step, other data batch by batch in the first epoch.
        self._train_is_checked = isinstance(self._train, Rows) and self._check.check is not None
        self._valid_is_checked = isinstance(self._valid, Rows) and self._check.check is not None
        self._check_smallest_batch()
        self._save_every = save_every
        self._now = self._saved = time.monotonic()
        self._is_saved = self._is_finished = False
        self._skipped_in_a_row = 0
        self._update_is_done()

    def _first_state(self) -> TrainState:
        """The state of a run that begins, with the same weights in all processes."""
        vae, processes = self.run.vae, self._processes
        processes.share_tensors([*vae.parameters(), *vae.buffers()])
        seed = processes.share(int(torch.randint(2**31, ())))
        if not processes.is_first:
            reseed(seed + processes.rank, self._device)  # noise of its own
        return TrainState.new(vae, self._settings, seed, self._is_sharded)

    def _restore_or_describe(self, folder: RunFolder, resume: bool | str) -> None:
        """Resumes the run in the folder, or makes the folder ready for a new one."""
        processes = self._processes

        def load(content: dict[str, Any]) -> None:
            self._state.load(content, self.run.progress.step, processes)

        if not (resume and folder.exists):
            if processes.is_first:
                folder.describe(self.run.vae)
                self._state.check_can_be_saved()
        elif resume != "weights":
            self._state.best = folder.restore(self.run, load)
            if self._state.average is not None:
                self._state.average.settle()
        else:
            self._state.best = folder.restore(self.run, None)
            if self._state.average is not None:
                self._state.average.begin()
            progress = self.run.progress
            progress.begin_epoch()
            self._state.patience_from = progress.epoch
            self._state.seed = processes.share(self._state.seed + progress.step)  # else the first epochs come again
            reseed(self._state.seed + processes.rank, self._device)
            if processes.is_first:
                folder.describe(self.run.vae)

    def _new_steps(self) -> Steps:
        settings, vae, scales = self._settings, self.run.vae, Scales()
        programs: Any = tuple(Noted(program, scales) for program in self._programs)
        if settings.kl_weight is not None:
            programs = tuple(WeightedLatents(program, self._kl_weight) for program in programs)
        loss = getattr(vae, "default_loss", Trace_ELBO)() if settings.loss is None else settings.loss
        return Steps(programs, self._state, settings, loss, self._processes, scales, self._is_sharded)

    def _source(self, name: str, data: Any, batch_size: int, transform: Any = None, drop_last: bool = False) -> Source:
        floats = (parameter.dtype for parameter in self.run.vae.parameters() if parameter.is_floating_point())
        source = as_source(
            data,
            batch_size=batch_size,
            arguments=BatchArguments(self._programs[0]),
            transform=transform,
            device=self._device,
            dtype=next(floats, torch.get_default_dtype()),
            seed=self._state.seed,
            processes=self._processes,
            drop_last=drop_last,
            name=name,
        )
        if isinstance(source, Rows) and self._check.check is not None:
            with generators_kept(self._device):
                source.check(self._check.check)
        return source

    def _check_smallest_batch(self) -> None:
        """Checks that the last batch of an epoch is not too small for batch normalization.

        Raises:
            ValueError: If it is.
        """
        vae, sizes = self.run.vae, self._train.sizes()
        divisors = self._processes.size, self._settings.accumulate
        if not normalizes_batches(vae) or not has_a_part_of_one(sizes, *divisors):
            return
        with generators_kept(self._device):
            first = next(iter(self._train.epoch(0)), None)
        if first is not None:
            try:
                rehearse(vae, self._programs, first.row())
            except ValueError as error:
                explain_batch_of_one(
                    error, vae, "a part of a batch" if max(divisors) > 1 else "the last batch of an epoch"
                )
                raise

    @property
    def num_batches(self) -> int | None:
        """The number of batches in an epoch; for a stream that of the last epoch, and None in the first."""
        try:
            return len(self._train)
        except TypeError:
            steps = [0, *(row["step"] for row in self.run.history[-2:])]
            return steps[-1] - steps[-2] if len(steps) > 1 else None

    def batches(self) -> Iterator[Batch | None]:
        """The batches of this epoch that are left; None if only other processes have a share of one."""
        self._steps.look_again()
        self._first_batch = self.run.progress.batch
        return self._train.epoch(self.run.progress.epoch, skip=self.run.progress.batch)

    def step(self, batch: Batch | None, *, stop: bool) -> bool:
        """Takes a step, and saves if it is time to.

        Args:
            batch: The share of this process; None if it has none.
            stop: Whether this process asks all to stop after the step.

        Returns:
            Whether some process asks to stop.

        Raises:
            NotFiniteError: If loss or gradients are not finite, and such steps are not to be skipped.
        """
        progress, steps = self.run.progress, self._steps
        if batch is not None and not self._train_is_checked:
            self._check(batch, f"batch {progress.batch + 1} of train")
        if batch is not None and not steps.is_prepared and steps.kind in (None, batch.kind):
            total = None if self.num_batches is None else self.num_batches * self.run.epochs
            steps.prepare(batch, total, list(self.run.vae.buffers()))
        self._set_weights(progress.batch)
        self._is_saved = False
        before = get_generators(self._device)
        try:
            outcome = steps.take(batch, Requests(stop, save=time.monotonic() - self._saved > self._save_every))
        except ValueError as error:
            explain_batch_of_one(error, self.run.vae, f"a batch, or a part of one, at step {progress.step + 1},")
            raise
        progress.batch += 1
        progress.step += 1
        if outcome.is_finite:
            progress.loss += outcome.loss
            progress.rows += outcome.rows
            if self._state.average is not None:
                self._state.average.add()
            self._skipped_in_a_row = 0
            if self._state.scheduler is not None and self._settings.scheduler_every == "step":
                self._state.scheduler.step()
        else:
            self._skip(outcome.loss, batch, before)
        if outcome.requests.save and not outcome.requests.stop:  # else it is saved on leaving
            self.save()
        return outcome.requests.stop

    def _set_weights(self, batch: int) -> None:
        """Sets the weights in the loss that depend on how far the training is."""
        kl_weight, loss = self._settings.kl_weight, self._settings.loss
        if kl_weight is None and not hasattr(loss, "at_epoch"):
            return
        batches = self.num_batches
        epoch = self.run.progress.epoch + (min(1.0, batch / batches) if batches else 0.0)
        if kl_weight is not None:
            self._kl_weight.fill_(kl_weight(epoch))
        if hasattr(loss, "at_epoch"):
            loss.at_epoch(epoch)

    def _skip(self, loss: float, batch: Batch | None, generators: dict[str, Tensor]) -> None:
        """Notes a step that was not taken.

        Raises:
            NotFiniteError: If such steps are not to be skipped, or there are too many in a row.
        """
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

    def end_epoch(self, *, stop: bool) -> bool:
        """Validates, adds a row to the history, and saves if it is time to.

        Args:
            stop: Whether this process asks all to stop.

        Returns:
            Whether some process asks to stop.

        Raises:
            ValueError: If the epoch had no batches.
        """
        run, progress = self.run, self.run.progress
        if not progress.batch:
            raise ValueError("train has no batches")
        self._train_is_checked |= self._first_batch == 0
        self._set_weights(progress.batch - 1)  # those of the last step, if the run was resumed after it
        self._processes.share_tensors([*run.vae.buffers()])  # each process has computed its own
        seconds = progress.epoch_seconds + time.monotonic() - self._now
        row: Row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "train_loss": progress.loss / max(progress.rows, 1),
            "lr": self._state.optimizer.param_groups[0]["lr"],
            "kl_weight": self._kl_weight.item(),
            "skipped": progress.skipped,
            "datapoints_per_second": progress.rows / max(seconds, 1e-9),
        }
        if self._valid is not None:
            with self.averaged():
                row |= self._validate(self._valid)
        self._step_scheduler(row)
        self._count_seconds()
        row["seconds"] = progress.seconds
        run.history.append(row)
        progress.epoch += 1
        progress.begin_epoch()
        self._update_is_done()
        save = run.is_done or time.monotonic() - self._saved > self._save_every
        requests = Requests(*(count > 0 for count in self._processes.sum([], *Requests(stop, save))))
        if requests.save:
            self.save()
        return requests.stop

    def averaged(self) -> AbstractContextManager[None]:
        """The VAE has the averages of the weights in this context, if there are any, until the run is finished."""
        average = self._state.average
        return nullcontext() if average is None or self._is_finished else average.shown()

    def show_averages(self) -> None:
        """Gives the VAE the averages of the weights, if there are any, when no further step is taken."""
        self._is_finished = True
        if self._state.average is not None:
            self._state.average.show()

    def _validate(self, valid: Source) -> Row:
        """The validation losses; the weights are kept if they are the best so far."""
        run, progress = self.run, self.run.progress
        batches = valid.epoch(0)
        if not self._valid_is_checked:
            batches = (self._check(batch, f"batch {i} of valid") for i, batch in enumerate(batches, start=1))
            self._valid_is_checked = True
        terms = validate(run.vae, self._programs, batches, self._device, self._processes)
        if terms["loss"] < progress.best_loss:
            progress.best_loss, progress.best_epoch = terms["loss"], progress.epoch + 1
            self._state.best = {name: tensor.detach().clone() for name, tensor in run.vae.state_dict().items()}
        return {f"valid_{name}": value for name, value in terms.items()}

    def _step_scheduler(self, row: Row) -> None:
        """Steps the scheduler at the end of an epoch."""
        scheduler = self._state.scheduler
        if scheduler is not None and steps_by_loss(scheduler):
            scheduler.step(row.get("valid_loss", row["train_loss"]))
        elif scheduler is not None and self._settings.scheduler_every == "epoch":
            scheduler.step()

    def finish(self) -> None:
        """Saves at the end of the run, and gives the VAE the averages, or the best weights if there is patience."""
        if not self._is_saved:
            self.save()
        self._processes.wait()  # for the files
        self.show_averages()
        if self._settings.patience is not None and self._state.best is not None:
            load_weights(self.run.vae, self._state.best)

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
        run, state = self.run, self._state
        with self.averaged():
            weights, best = gathered((run.vae.state_dict(), state.best))
            if state.average is not None:
                weights = {name: tensor.clone() for name, tensor in weights.items()}
        for name, _ in run.vae.named_parameters():
            if not weights[name].isfinite().all():
                message = f"after step {run.progress.step} the parameter {name} is not finite, and is not saved"
                raise NotFiniteError(message, run.progress.epoch + 1, run.progress.batch, run.progress.step)
        state.compile, state.kind = self._steps.compile, self._steps.kind
        content = state.content(self._processes)
        if self._processes.is_first:
            try:
                self._folder.save(run, weights, content, best)
            except OSError as error:
                if not run.is_done:
                    raise
                warn(f"{error}: the run is done, but how it ended is not kept there")

    def _update_is_done(self) -> None:
        progress, patience = self.run.progress, self._settings.patience
        waited = progress.epoch - max(progress.best_epoch, self._state.patience_from)
        self.run.is_done = progress.epoch >= self.run.epochs or (patience is not None and waited >= patience)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.run.progress.seconds += now - self._now
        self.run.progress.epoch_seconds += now - self._now
        self._now = now

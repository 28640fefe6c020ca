"""The training loop: epochs of SVI that can be stopped and resumed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyro
import torch
from torch import nn

from pyro_vae.checks import check_choice, check_count
from pyro_vae.processes import STRATEGIES, Processes, join, launch
from pyro_vae.system.interrupts import Interrupted, interruptible
from pyro_vae.system.progress import Progress
from pyro_vae.system.signals import signals_noted
from pyro_vae.system.threads import in_turn
from pyro_vae.training.programs import as_module
from pyro_vae.training.progress_bar import epochs_left, progress_bar
from pyro_vae.training.run import Callback, Run
from pyro_vae.training.run_folder import kept_to_itself
from pyro_vae.training.session import Session
from pyro_vae.training.settings import Settings
from pyro_vae.training.sources import Transform


@interruptible
def fit(
    vae: Any,
    train: Any,
    valid: Any = None,
    *,
    epochs: int,
    batch_size: int = 128,
    drop_last: bool = False,
    lr: float = 1e-3,
    loss: Any = None,
    transform: Transform | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    scheduler_every: str = "epoch",
    kl_weight: Callable[[float], float] | None = None,
    average: Callable[[int], float] | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    patience: int | None = None,
    on_nan: str = "stop",
    precision: str = "float32",
    compile: bool | str = "auto",  # noqa: A002
    seed: int | None = None,
    devices: int = 1,
    strategy: str = "ddp",
    out: str | Path | None = None,
    resume: bool | str = False,
    save_every: float = 30.0,
    callbacks: Sequence[Callback] = (),
    progress: Progress = True,
) -> Run:
    """Trains a VAE by stochastic variational inference, with the steps of :class:`~pyro_vae.SVI`.

    With ``out``, a run can be stopped at any moment, by Ctrl-C, SIGTERM or SIGKILL, and the same call with
    ``resume=True`` resumes it. On a CPU it ends with the same bits as a run that was never stopped. All randomness
    comes from torch's generators, which are saved too.

    Args:
        vae: The VAE, on the device to train on: a module with the programs ``model`` and ``guide``. Or a pair of
            programs: they are run once to find their parameters, and become a module, ``vae`` of the result.
        train: A tensor ``[n, *event]``, which is moved to the device; a tuple of tensors, the arguments of the programs
            (further tensors, such as labels, are left out); a dictionary of tensors, the keyword arguments of the
            programs. Or a ``Dataset`` of such datapoints, or a ``DataLoader``, a list or another collection of such
            batches. NumPy arrays are taken like tensors; their floats become floats of the precision of the parameters,
            except in batches.
        valid: Likewise. With it, each epoch ends with the ELBO of these data.
        epochs: Passes over the data, in total. A run that is resumed may get more of them.
        batch_size: Datapoints in a step, over all processes. Data that come in batches keep theirs.
        drop_last: Whether to leave out the last batch of an epoch if it is smaller. (Each epoch leaves out others.)
        lr: The learning rate.
        loss: An ELBO of Pyro, or a function of model, guide and data, in nats, summed over datapoints, such as those of
            ``pyro_vae.infer.losses``. By default ``TraceMeanField_ELBO`` for a ``VAE`` or ``ConditionalVAE``, else
            ``Trace_ELBO``. If it has a method ``at_epoch``, this is called before every step with the number of epochs
            done, with a fraction within an epoch. For a stream without length the number is 0 in the first epoch, and
            then uses the length of the epoch before.
        transform: Applied to every batch of training data at every visit, for example ``data.binarize.dynamic``.
        optimizer: Called with the parameters and ``lr``.
        scheduler: Makes a scheduler of ``torch.optim.lr_scheduler`` for an optimizer.
        scheduler_every: ``"epoch"`` or ``"step"``: when the scheduler steps. ``ReduceLROnPlateau`` uses the validation
            loss (without validation, the loss of the epoch).
        kl_weight: The weight of the KL term in the loss, as a function of the number of epochs done, with a fraction
            within an epoch (0 in the first epoch of a stream without length): ``linear_warm_up(10)``. Validation has a
            weight of 1.
        average: An average of the weights over the steps: ``ema(0.999)``. Or a function of the number of a step, from
            1, that returns the factor of the average so far: ``lambda step: 1 - 1 / step`` counts all steps alike.
            Validation and callbacks see the averages, and the run has them in the end and in its files. The steps
            themselves do not change.
        clip_norm: The largest norm of the gradient of the mean loss per datapoint; larger gradients are scaled down.
        accumulate: The number of parts in which the gradients of a batch are computed; more take less memory.
        patience: The number of epochs without a better validation loss after which training stops. The weights are then
            those of the best epoch.
        on_nan: ``"stop"`` raises an error at a loss or gradient that is NaN or infinite, ``"skip"`` skips the step. In
            both cases the parameters stay as they are.
        precision: ``"bfloat16"`` for matrix products; see :class:`~pyro_vae.SVI`.
        compile: See :class:`~pyro_vae.SVI`; ``"auto"`` compiles if that saves time in the steps ahead. A run that is
            resumed keeps what was decided.
        seed: The seed of torch's generators; by default they are not seeded.
        devices: The number of processes of this machine that train together, on GPUs if the VAE is on one. Ignored
            under ``torchrun`` or SLURM, which have started the processes.
        strategy: How to start them: ``"ddp"``, ``"ddp_spawn"`` or ``"ddp_fork"``; :func:`pyro_vae.processes.launch`.
            ``"fsdp"`` is ``"ddp"`` with parameters, gradients and moments sharded over the processes, for models that
            do not fit on one device. Steps then run as in Pyro, and the VAE stays sharded: ``load(out)`` has all of it.
        out: A folder for checkpoints, ``history.csv`` and ``run.json``; :func:`~pyro_vae.load` reads it.
        resume: Whether to resume the run in the folder, if there is one. ``"weights"`` takes its weights and history,
            and everything else from this call: another learning rate, optimizer, loss, batch size or other data.
        save_every: Seconds between saves. The end of a run is always saved.
        callbacks: Called with the run after every epoch; if one returns True, the run ends. If a callback has a method
            ``during``, this is called with the run and returns a context manager, inside which ``fit`` trains.
        progress: True shows a bar, on a terminal or in a notebook; if the standard error is a file, a line for each
            epoch. False shows nothing. A function wraps the remaining epochs, such as ``tqdm.tqdm``.

    Returns:
        The run, with its ``history``. Losses are in nats per datapoint, also if a plate with ``subsample`` or
        ``poutine.scale`` multiplies those of the programs, and so is the gradient that is clipped. The VAE has the
        weights of the last epoch; with ``patience``, those of the best. With ``average`` they are averages.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If an argument is invalid, or the VAE cannot take the data.
        FileExistsError: If the folder has a run, and ``resume`` is False.
        CheckpointError: If the folder's run cannot be resumed.
        OSError: If the folder cannot be written to, or another run is in it. If only the last save fails, there is a
            warning, and the run is returned.
        NotFiniteError: If a loss or a gradient is not finite; it says where that began.
        Interrupted: At Ctrl-C, with the run so far, after saving it.
        SystemExit: At SIGTERM, likewise.

    Example:
        >>> run = fit(vae, x[:6], x[6:], epochs=2, batch_size=3, seed=0, progress=False)
        >>> [(row["epoch"], row["step"]) for row in run.history]
        [(1, 2), (2, 4)]
    """
    vae = as_module(vae, train, batch_size, seed)
    if not isinstance(vae, nn.Module) or not hasattr(vae, "model") or not hasattr(vae, "guide"):
        raise TypeError(f"vae is of type {type(vae).__name__}; expected a module with the programs model and guide")
    if resume not in (True, False, "weights"):
        raise ValueError(f"resume is {resume!r}; expected True, False or 'weights'")
    if not any(parameter.requires_grad for parameter in vae.parameters()):
        raise ValueError("vae has no parameters to train")
    if not isinstance(progress, bool) and not callable(progress):
        raise TypeError(f"progress is {progress!r}; expected True, False or a function that wraps an iterable")
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        loss=loss,
        transform=transform,
        optimizer=optimizer,
        scheduler=scheduler,
        scheduler_every=scheduler_every,
        kl_weight=kl_weight,
        clip_norm=clip_norm,
        accumulate=accumulate,
        patience=patience,
        on_nan=on_nan,
        precision=precision,
        compile=compile,
        seed=seed,
        drop_last=drop_last,
        average=average,
    )
    check_count("devices", devices)
    check_choice("strategy", strategy, STRATEGIES)
    out = None if out is None else Path(out).expanduser()
    begin = partial(
        Session,
        train=train,
        valid=valid,
        settings=settings,
        out=out,
        resume=resume,
        save_every=save_every,
        is_sharded=strategy == "fsdp",
    )
    train_on = partial(_train_on, vae=vae, begin=begin, out=out, callbacks=callbacks, progress=progress)
    device = next(vae.parameters()).device
    processes = join(device.type)
    if processes.size > 1:
        return train_on(processes.device)
    if devices == 1:
        return train_on(device)
    run = launch(train_on, device, devices, strategy)
    if run.vae is not vae:  # it was trained in another process
        vae.load_state_dict(run.vae.state_dict())
        run.vae = vae
    return run


def _train_on(
    device: torch.device,
    vae: nn.Module,
    begin: Callable[[nn.Module], Session],
    out: Path | None,
    callbacks: Sequence[Callback],
    progress: Progress,
) -> Run:
    """Trains in this process, on its device."""
    with kept_to_itself(out, Processes(device)):
        with in_turn():
            session = begin(vae.to(device))
        try:
            with ExitStack() as stack:
                for callback in callbacks:
                    if hasattr(callback, "during"):
                        stack.enter_context(callback.during(session.run))
                return _loop(session, callbacks, progress)
        except Interrupted:
            raise
        except KeyboardInterrupt as interrupt:  # the second one: the first waits for the step to end
            run = session.run
            message = f"stopped at once in epoch {run.progress.epoch + 1}, after {run.progress.step} steps"
            raise Interrupted(f"{message}; what was done since the last save is not kept", run) from interrupt


def _loop(session: Session, callbacks: Sequence[Callback], progress: Progress) -> Run:
    run = session.run
    signals: list[int] = []
    with signals_noted(signals.append), progress_bar(run, lambda: session.num_batches, progress) as show:
        for _ in epochs_left(run, progress):
            for batch in session.batches():
                with in_turn(), pyro.validation_enabled(False):  # session checks data and losses
                    is_stopping = session.step(batch, stop=bool(signals))
                show()
                if is_stopping:
                    _leave(session, signals)
            with in_turn():
                is_stopping = session.end_epoch(stop=bool(signals))
                if run.is_done:
                    session.finish()
            show()
            with session.averaged():
                answers = [callback(run) for callback in callbacks]
            run.is_done |= any(isinstance(answer, bool | np.bool_) and bool(answer) for answer in answers)
            if run.is_done:
                break
            if is_stopping:
                _leave(session, signals)
    session.finish()
    if signals:  # when there was nothing left to stop
        signal.raise_signal(signals[0])
    return run


def _leave(session: Session, signals: list[int]) -> NoReturn:
    """Saves the run and stops it, to be resumed later."""
    run = session.run
    message = f"stopped in epoch {run.progress.epoch + 1}, after {run.progress.step} steps"
    try:
        session.save()
    except OSError as error:
        message += f"; what was done since the last save is not kept: {error}"
    else:
        if run.out is not None:
            message += (
                f"; the run is saved in {str(run.out)!r}; pass resume=True (on the command line: --resume) to resume it"
            )
    session.show_averages()
    if signals and signals[0] == signal.SIGINT:
        raise Interrupted(message, run)
    print(message, file=sys.stderr)
    raise SystemExit(128 + signal.SIGTERM)

"""Training: epochs of SVI, with all that a long run needs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import nn

from pyro_vae.checks import check_choice, check_count
from pyro_vae.processes import STRATEGIES, Processes, join, launch
from pyro_vae.programs.batch_arguments import BatchArguments
from pyro_vae.system.interrupts import Interrupted, interruptible
from pyro_vae.system.randomness import generators_kept, reseed
from pyro_vae.system.signals import signals_noted
from pyro_vae.system.threads import in_turn
from pyro_vae.training.programs import Programs, device_of
from pyro_vae.training.progress_bar import progress_bar
from pyro_vae.training.run import Callback, Run
from pyro_vae.training.run_folder import kept_to_itself
from pyro_vae.training.session import Training
from pyro_vae.training.settings import Settings
from pyro_vae.training.sources import Transform, as_source

__all__ = ["fit"]


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
    progress: bool = True,
) -> Run:
    """Trains a VAE by stochastic variational inference, with the steps of :class:`~pyro_vae.SVI`.

    With ``out``, a run can be stopped at any moment, by Ctrl-C, SIGTERM or SIGKILL, and the same call with
    ``resume=True`` goes on; on a CPU it ends with the same bits as a run that was never stopped. What is random depends
    on torch's generators, which are kept too.

    Args:
        vae: The VAE, on the device to train on: a module with the programs ``model`` and ``guide``. Or a pair of
            programs; they are run once, to find their parameters, and become a module, which the result has as ``vae``.
        train: A tensor ``[n, *event]``, which is moved to the device; a tuple of tensors, what the programs take (of
            more, such as labels, they get the first); a dictionary of tensors, which they get as keywords. Or a
            ``Dataset`` of such datapoints, or a ``DataLoader``, a list or another collection of such batches. NumPy's
            arrays are as good as tensors; floats get the precision of the parameters where they are no batches yet.
        valid: Likewise; with it, each epoch ends with the ELBO of these data.
        epochs: Passes over the data, in total: more of them may be asked for when a run goes on.
        batch_size: Datapoints in a step, over all processes. Batches stay as they are.
        drop_last: Whether to leave out the last batch of an epoch where it is smaller. (Each epoch leaves out others.)
        lr: The learning rate.
        loss: An ELBO of Pyro, or a function of model, guide and data, in nats, summed over datapoints, such as those of
            ``pyro_vae.infer.losses``. By default ``TraceMeanField_ELBO`` for a ``VAE`` or ``ConditionalVAE``, else
            ``Trace_ELBO``. If it has a method ``at_epoch``, that is called before every step with the number of epochs
            done, which is no integer in between; for a stream without length, it is 0 in the first epoch, and then
            goes by the length of the epoch before.
        transform: Applied to every batch of training data at every visit: ``data.binarize.dynamic``, for one.
        optimizer: Called with the parameters and ``lr``.
        scheduler: Makes a scheduler of ``torch.optim.lr_scheduler`` for an optimizer.
        scheduler_every: ``"epoch"`` or ``"step"``: when the scheduler steps. ``ReduceLROnPlateau`` goes by the
            validation loss (without validation, the loss of the epoch).
        kl_weight: The weight of the KL term in the loss, as a function of the number of epochs done, which is no
            integer in between (in the first epoch of a stream without length it is 0): ``linear_warm_up(10)``.
            Validation has a weight of 1.
        clip_norm: Clips the norm of the gradient of the mean loss per datapoint.
        accumulate: Computes the gradients of a batch in so many parts, which takes less memory.
        patience: Stops after so many epochs without a better ELBO of the validation data, and goes back to the weights
            of the best epoch.
        on_nan: ``"stop"`` raises at a loss or gradient that is NaN or infinite, ``"skip"`` takes no such step. In
            both cases the parameters stay as they are.
        precision: ``"bfloat16"`` for matrix products; see :class:`~pyro_vae.SVI`.
        compile: See :class:`~pyro_vae.SVI`; ``"auto"`` compiles where the steps ahead pay for it. A run that goes on
            does as it did.
        seed: Seeds torch's generators first.
        devices: How many processes of this machine train together, on GPUs if the VAE is on one. Under ``torchrun`` or
            SLURM it is those that were started, whatever is said here.
        strategy: How to start them: ``"ddp"``, ``"ddp_spawn"`` or ``"ddp_fork"``; :func:`pyro_vae.processes.launch`.
            ``"fsdp"`` is ``"ddp"`` with parameters, gradients and moments spread over the processes, for what does not
            fit on one. Steps are then run as in Pyro, and the VAE stays spread: ``load(out)`` has it whole.
        out: A folder for checkpoints, ``history.csv`` and ``run.json``; :func:`~pyro_vae.load` reads it.
        resume: Whether to go on with the run in the folder, if there is one. ``"weights"`` takes its weights and its
            history, and all else from this call: another learning rate, optimizer, loss, batch size or other data.
        save_every: Saves at the next step, if a save is so many seconds ago; and at the end.
        callbacks: Called with the run after every epoch; if one returns True, the run ends.
        progress: Whether to show a bar, on a terminal or in a notebook; where the standard error is a file, a line for
            each epoch.

    Returns:
        The run, with its ``history``: losses are in nats per datapoint, also where a plate with ``subsample`` or
        ``poutine.scale`` multiplies those of the programs, and so is the gradient that is clipped. The VAE has the
        weights of the last epoch; with ``patience``, of the best.

    Raises:
        TypeError: If an argument is of a type that cannot be taken.
        ValueError: If an argument has a value that cannot be, or the data are not what the VAE takes.
        FileExistsError: If the folder has a run, and ``resume`` is False.
        CheckpointError: If the folder's run cannot be gone on with.
        OSError: If the folder cannot be written to, or another run is in it. If nothing but the last save fails, there
            is a warning, and the run is returned.
        NotFiniteError: If a loss or a gradient is not finite; it says where that began.
        Interrupted: At Ctrl-C, with the run so far, after saving it.
        SystemExit: At SIGTERM, likewise.
    """
    vae = _as_module(vae, train, batch_size, seed)
    if not isinstance(vae, nn.Module) or not hasattr(vae, "model") or not hasattr(vae, "guide"):
        raise TypeError(f"vae is of type {type(vae).__name__}; expected a module with the programs model and guide")
    if resume not in (True, False, "weights"):
        raise ValueError(f"resume is {resume!r}; expected True, False or 'weights'")
    if not any(parameter.requires_grad for parameter in vae.parameters()):
        raise ValueError("vae has no parameters to train")
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
    )
    check_count("devices", devices)
    check_choice("strategy", strategy, STRATEGIES)
    begin = partial(
        Training,
        train=train,
        valid=valid,
        settings=settings,
        out=out,
        resume=resume,
        save_every=save_every,
        is_sharded=strategy == "fsdp",
    )
    here = partial(_fit, vae, begin, callbacks, progress, out)
    device = next(vae.parameters()).device
    processes = join(device.type)
    if processes.size > 1:
        return here(processes.device)
    if devices == 1:
        return here(device)
    run = launch(here, device, devices, strategy)
    if run.vae is not vae:  # it was trained elsewhere
        vae.load_state_dict(run.vae.state_dict())
        run.vae = vae
    return run


def _as_module(vae: Any, train: Any, batch_size: int, seed: int | None) -> Any:
    """A pair of programs as a module; all else as it is."""
    if not isinstance(vae, tuple) or len(vae) != 2 or not all(map(callable, vae)):
        return vae
    owner: Any = getattr(vae[0], "__self__", None)
    if isinstance(owner, nn.Module) and (getattr(owner, "model", None), getattr(owner, "guide", None)) == vae:
        return owner
    check_count("batch_size", batch_size)
    device = device_of(vae, train)
    if seed is not None:
        reseed(seed, device)  # for the parameters that come into being
    source = as_source(
        train,
        batch_size=batch_size,
        arguments=BatchArguments(vae[0]),
        transform=None,
        device=device,
        dtype=torch.get_default_dtype(),
        seed=0,
        processes=Processes(device),
    )
    with generators_kept(device):
        batch = next(iter(source.epoch(0)), None)
    if batch is None:
        raise ValueError("train has no batches")
    args, kwargs = batch.arguments
    return Programs(*vae, args, kwargs)


def _fit(
    vae: nn.Module,
    begin: Callable[[nn.Module], Training],
    callbacks: Sequence[Callback],
    progress: bool,
    out: str | Path | None,
    device: torch.device,
) -> Run:
    with kept_to_itself(out, Processes(device)):
        with in_turn():
            training = begin(vae.to(device))
        try:
            return _run(training, callbacks, progress)
        except Interrupted:
            raise
        except KeyboardInterrupt as interrupt:  # the second one: the first waits for the step to end
            run = training.run
            message = f"stopped at once in epoch {run.progress.epoch + 1}, after {run.progress.step} steps"
            raise Interrupted(f"{message}; what was done since the last save is not kept", run) from interrupt


def _run(training: Training, callbacks: Sequence[Callback], progress: bool) -> Run:
    run = training.run
    received: list[int] = []
    with signals_noted(received.append), progress_bar(run, lambda: training.num_batches, progress) as show:
        while not run.is_done:
            for batch in training.batches():
                with in_turn(), pyro.validation_enabled(False):  # data were looked at, and losses are
                    training.step(batch, wants_to_stop=bool(received))
                show()
                if training.is_stopping:
                    break
            if not training.is_stopping:
                with in_turn():
                    training.end_epoch(wants_to_stop=bool(received))
                    if run.is_done:
                        training.finish()
                show()
                answers = [callback(run) for callback in callbacks]
                run.is_done |= any(answer is True for answer in answers)
            if training.is_stopping and not run.is_done:
                _leave(training, received)
    training.finish()
    if received:  # when there was nothing left to stop
        signal.raise_signal(received[0])
    return run


def _leave(training: Training, received: list[int]) -> None:
    """Ends a run that is to go on later."""
    run = training.run
    message = f"stopped in epoch {run.progress.epoch + 1}, after {run.progress.step} steps"
    try:
        training.save()
    except OSError as error:
        message += f"; what was done since the last save is not kept: {error}"
    else:
        if run.out is not None:
            message += f"; the run is kept in {str(run.out)!r}, and goes on from there with resume=True"
    if received and received[0] == signal.SIGINT:
        raise Interrupted(message, run)
    print(message, file=sys.stderr)
    raise SystemExit(128 + signal.SIGTERM)

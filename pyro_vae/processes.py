"""Groups of processes that work together: their ranks, and communication between them."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import replace

__all__ = ["Processes", "join", "launch"]

# A thread of gloo may still hold the tensor of the last message. To release it, it needs Python's lock, which the end
# of the group holds while it waits for that thread: with torch 2.7, some processes never ended.
_SECONDS_TO_RELEASE = 0.2
STRATEGIES = ("ddp", "ddp_spawn", "ddp_fork", "fsdp")

Result = TypeVar("Result")


class Processes:
    """This process and its group; a group of one if ``torch.distributed`` is not initialized.

    Args:
        device: The device of this process.

    Attributes:
        rank: The number of this process, from 0.
        size: The number of processes.
        device: The device of this process.

    Example:
        >>> processes = pyro_vae.processes.Processes(torch.device("cpu"))
        >>> processes.rank, processes.size, processes.is_first
        (0, 1, True)
    """

    def __init__(self, device: torch.device) -> None:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if together else 0
        self.size = torch.distributed.get_world_size() if together else 1
        self.device = device

    @property
    def is_first(self) -> bool:
        """Whether this is the process with rank 0, which prints and writes files."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor], *numbers: float) -> list[float]:
        """Sums tensors over the processes in place, and returns the sums of numbers, by one message."""
        if self.size == 1:
            return list(numbers)
        parts = [torch.tensor(numbers, dtype=torch.float64), *tensors]
        dtype = torch.float64 if any(each.dtype == torch.float64 for each in tensors) else torch.float32
        message = torch.cat([part.reshape(-1).to(self.device, dtype) for part in parts])
        torch.distributed.all_reduce(message)
        sums = message.split([part.numel() for part in parts])
        for tensor, total in zip(tensors, sums[1:], strict=True):
            tensor.copy_(total.view_as(tensor))
        return sums[0].tolist()

    def share(self, value: Any) -> Any:
        """The value of the first process, in all processes."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in all processes."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Waits until all processes call it."""
        if self.size > 1:
            torch.distributed.barrier()

    def share_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Copies the tensors of the first process to all processes, in place."""
        if self.size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.detach(), 0)


def is_first_process() -> bool:
    """Whether this is the first process of its group, or the only one."""
    return Processes(torch.device("cpu")).is_first


def of_the_first(function: Callable[[], Any], processes: Processes | None) -> Any:
    """Calls the function in the first process; returns or raises its outcome in all processes."""
    if processes is None or processes.size == 1:
        return function()
    return _or_raise(processes.share(_outcome(function) if processes.is_first else None))


def of_all(function: Callable[[], Any], processes: Processes | None) -> list[Any]:
    """Calls the function in every process; returns all results, or raises an error in all if one process failed."""
    if processes is None or processes.size == 1:
        return [function()]
    return [_or_raise(outcome) for outcome in processes.gather(_outcome(function))]


def _outcome(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:  # raised again, in every process
        return error


def _or_raise(outcome: Any) -> Any:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def join(device: str | None = None) -> Processes:
    """Joins the group of processes started by ``torchrun`` or SLURM; without these, a group of one.

    Args:
        device: ``"cpu"``, or ``"cuda"`` for one GPU for each process; by default GPUs if there are any.

    Raises:
        ValueError: If the device does not exist.

    Example:
        >>> pyro_vae.processes.join("cpu").size  # in a process that was started without torchrun
        1
    """
    if not _is_launched() or torch.distributed.is_initialized():
        return Processes(choose_device(device))
    kind = choose_device(device).type
    on_this_node = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", "1")))
    total = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))
    fabric = _fabric(kind, on_this_node, "ddp", total // on_this_node)
    fabric.launch()
    atexit.register(_leave)
    return Processes(fabric.device)


def launch(function: Callable[[torch.device], Result], device: torch.device, devices: int, strategy: str) -> Result:
    """Calls a function in several processes on this machine, each with its own device.

    Args:
        function: The function, called with the device.
        device: A device of the type to use.
        devices: The number of processes.
        strategy: ``"ddp"`` and ``"fsdp"`` run the whole script again in each other process, up to this call;
            ``"ddp_spawn"`` and ``"ddp_fork"`` (not with GPUs) call only the function there, which must be picklable.

    Returns:
        The result in this process; with ``"ddp_spawn"`` and ``"ddp_fork"``, the result in the first process.

    Example:
        >>> pyro_vae.processes.launch(train, torch.device("cuda"), devices=4, strategy="ddp")  # doctest: +SKIP
    """
    by_script = strategy in ("ddp", "fsdp")
    fabric = _fabric(device.type, devices, "ddp" if by_script else strategy, 1)
    if by_script:
        return fabric.launch(_call, function)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        fabric.launch(_call_copy, pickle.dumps(function), result)
        return pickle.loads(result.read_bytes())


def _call(fabric: Any, function: Callable[[torch.device], Result]) -> Result:
    atexit.register(_leave)
    return function(fabric.device)


def _call_copy(fabric: Any, function: bytes, path: Path) -> None:
    """Calls a pickled function, and writes its result to a file.

    The function is pickled to bytes, since tensors would be sent as shared memory, and each process writes to its own
    parameters. The result goes through a file, since Fabric reads results only after the processes have ended, and a
    result larger than the buffer of the pipe would keep them from ending.
    """
    result = _call(fabric, pickle.loads(function))
    if fabric.is_global_zero:
        replace(path, pickle.dumps(result))


def _leave() -> None:
    """Ends the threads of the process group, which would abort the process at exit."""
    if torch.distributed.is_initialized():
        time.sleep(_SECONDS_TO_RELEASE)
        torch.distributed.destroy_process_group()
        gc.collect()  # the threads end when nothing refers to the group


def _fabric(kind: str, devices: int, strategy: str, num_nodes: int) -> Any:
    from lightning_fabric import Fabric  # the import takes a second

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric(accelerator=kind, devices=devices, strategy=strategy, num_nodes=num_nodes)


def is_started_first() -> bool:
    """Whether this is the only process, or the first of those started by ``torchrun``, SLURM or ``launch``."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def _is_launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1

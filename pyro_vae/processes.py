"""The processes that train together: which of them this one is, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

__all__ = ["Processes"]


class Processes:
    """This process and the others of its group; the only one, if ``torch.distributed`` has not been initialized.

    Args:
        device: Where this one computes.

    Attributes:
        rank: The number of this process, from 0.
        size: The number of processes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if together else 0
        self.size = torch.distributed.get_world_size() if together else 1

    def sum(self, tensors: Sequence[Tensor], *numbers: float) -> list[float]:
        """Adds up tensors over the processes, in place, and numbers, by one message."""
        if self.size == 1:
            return list(numbers)
        parts = [torch.tensor(numbers, dtype=torch.float64), *tensors]
        dtype = torch.float64 if any(each.dtype == torch.float64 for each in tensors) else torch.float32
        message = torch.cat([part.reshape(-1).to(self._device, dtype) for part in parts])
        torch.distributed.all_reduce(message)
        sums = message.split([part.numel() for part in parts])
        for tensor, total in zip(tensors, sums[1:], strict=True):
            tensor.copy_(total.view_as(tensor))
        return sums[0].tolist()

    def share(self, value: Any) -> Any:
        """What the first process has."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """What each process has, in all of them."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def share_weights(self, module: nn.Module, *, buffers_only: bool = False) -> None:
        """Gives all processes the parameters and buffers that the first one has."""
        if self.size > 1:
            parameters = [] if buffers_only else [parameter.detach() for parameter in module.parameters()]
            for tensor in (*parameters, *module.buffers()):
                torch.distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            torch.distributed.barrier()


def launched() -> bool:
    """Whether this process was started as one of several, by torchrun or by SLURM."""
    return "TORCHELASTIC_RUN_ID" in os.environ or "LOCAL_RANK" in os.environ

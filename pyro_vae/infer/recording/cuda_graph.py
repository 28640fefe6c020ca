"""Many kernels on a GPU that are started at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["CudaGraph"]


class CudaGraph:
    """What a function of tensors starts on a GPU, captured to be started again at the cost of one call.

    Capturing does not compute anything. Random numbers come from torch's generator of the device, new ones each time.

    Args:
        function: It must have run before, so that libraries are loaded; it must not wait for the GPU.
        inputs: What it is called with. They are copied, and further inputs into the copies.

    Raises:
        RuntimeError: If the function cannot be captured.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> None:
        self._inputs = [each.clone() for each in inputs]
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph):
            self._outputs = list(function(*self._inputs))

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Computes the outputs anew, without waiting for them."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return [each.clone() for each in self._outputs]

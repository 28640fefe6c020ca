"""Many kernels on a GPU, launched by one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class CudaGraph:
    """The kernels that a function of tensors launches on a GPU, captured to be launched again by one call.

    Capturing computes nothing. Random numbers come from torch's generator of the device, new ones at each call.

    Args:
        function: It must have run before, so that libraries are loaded; it must not wait for the GPU.
        inputs: Its arguments. They are copied; later inputs are written into the copies.

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
        """Computes the outputs again, without waiting for them."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return [each.clone() for each in self._outputs]

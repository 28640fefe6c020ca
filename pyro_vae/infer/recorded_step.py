"""A step of stochastic variational inference as a graph of operations, and the update that follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._pytree import TreeSpec, tree_unflatten

from pyro_vae.infer.optimizers import FusedAdam, step_by
from pyro_vae.infer.pyro_step import BeforeUpdate
from pyro_vae.infer.recording.bfloat16 import products_in_bfloat16
from pyro_vae.infer.recording.cuda_graph import CudaGraph
from pyro_vae.infer.recording.inductor import inductor, seconds_saved
from pyro_vae.infer.recording.simplify import written_attributes
from pyro_vae.system.randomness import get_generators, set_generators
from pyro_vae.system.warning import warn

__all__ = ["RecordedStep"]


class RecordedStep:
    """The loss, the gradients and the update of a step, without the Python of the programs.

    Args:
        graph: Returns the leaves of the loss, then the gradients.
        form: The loss as a tree of its leaves; mostly it is one leaf.
        parameters: The parameters that the programs met, by the names of their sites.
        leaves: Those that the gradients are of.
        optim: What updates them.
        compile_later: Whether to have the graph compiled once the steps up to then have lost more time without than
            compiling takes; unless the graph then proves to be clearly faster, or cannot be compiled.
        before_update: See :class:`~pyro_vae.infer.svi.SVI`.
    """

    def __init__(
        self,
        graph: GraphModule,
        form: TreeSpec,
        parameters: dict[str, Tensor],
        leaves: list[Tensor],
        optim: PyroOptim,
        compile_later: bool,
        before_update: BeforeUpdate | None = None,
    ) -> None:
        self.parameters = parameters
        self.follows_store = True  #: Whether these are what Pyro's store has under their names.
        self.is_tested = False  #: Whether the step was seen to agree with Pyro's.
        self._leaves = leaves
        self._device = leaves[0].device if leaves else torch.device("cpu")
        self._form = form
        self._optim = optim
        self._graph = graph
        self._written = written_attributes(graph)
        self._run: Callable[..., Sequence[Tensor]] = graph
        self._tolerance = 1e4  # times the precision of the numbers
        self._compile_later = compile_later
        self._before_update = before_update
        self.seconds_saved = seconds_saved(graph)  #: About how much time Inductor would save at each step.
        self._seconds_lost = 0.0
        self._fused: FusedAdam | None = None
        self._captured: CudaGraph | None = None
        self._places: list[int] = []
        self._can_capture = True

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        """Updates the parameters. Returns the loss that they had before, without waiting for the device."""
        if self._fused is not None and not self._fused.is_current():
            self._fused = self._captured = None
        if self._fused is None and (fused := self._fuse()) is not None:
            self._fused, self._captured = fused, None
        if self._compile_later:
            self._compile_if_it_pays(inputs)
        step = self._on_the_device if self._device.type != "cuda" else self._capture(inputs)
        losses, gradients = self._split(step(*inputs))
        if self._before_update is not None and not self._before_update(losses, gradients):
            return tree_unflatten(losses, self._form)
        if self._fused is None:
            step_by(self._optim, self._leaves, gradients)
        elif self._before_update is not None:
            self._fused(gradients)
        return tree_unflatten(losses, self._form)

    def _capture(self, inputs: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
        """The part on the device as a CUDA graph, which knows parameters by where they are in memory."""
        if not self._can_capture:
            return self._on_the_device
        places = [leaf.data_ptr() for leaf in self._leaves]
        if self._captured is None or self._places != places:
            if self._fused is not None:
                self._fused.rehearse()
            try:
                self._captured, self._places = CudaGraph(self._on_the_device, inputs), places
            except RuntimeError as error:
                self._can_capture = False
                warn(f"the step cannot be captured in a CUDA graph, and is slower ({error})")
                return self._on_the_device
        return self._captured

    def _on_the_device(self, *inputs: Tensor) -> Sequence[Tensor]:
        """All of the step that is tensor operations: with the update if that is, which uses up the gradients."""
        results = self._run(*inputs)
        if self._fused is None or self._before_update is not None:
            return results
        losses, gradients = self._split(results)
        self._fused(gradients)
        return losses

    def _split(self, results: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        return results[: self._form.num_leaves], results[self._form.num_leaves :]

    def _fuse(self) -> FusedAdam | None:
        try:
            return FusedAdam(self._optim, self._leaves)
        except NotImplementedError:
            return None

    def is_of(self, store: dict[str, Tensor]) -> bool:
        """Whether the parameters are those of the store."""
        return all(store.get(name) is leaf for name, leaf in self.parameters.items())

    @torch.no_grad()
    def rehearse(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The losses and gradients, with no effect: neither on generators nor on running statistics."""
        generators = get_generators(self._device)
        written = [(tensor, tensor.clone()) for tensor in self._written]
        results = self._run(*inputs)
        for tensor, before in written:
            tensor.copy_(before)
        set_generators(generators, self._device)
        return results

    def agrees(self, results: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
        """Whether two rehearsals of the same step differ by rounding only."""
        if [tensor.shape for tensor in results] != [tensor.shape for tensor in expected]:
            return False
        losses, gradients = self._split([_largest(tensor) for tensor in expected])
        least = 1e-2 * max(gradients, default=0.0)  # a gradient may be zero but for rounding
        scales = [*losses, *(max(gradient, least) for gradient in gradients)]
        for result, tensor, scale in zip(results, expected, scales, strict=True):
            tolerance = self._tolerance * torch.finfo(tensor.dtype).eps * scale
            if not torch.allclose(result.to(tensor), tensor, rtol=0.0, atol=tolerance, equal_nan=True):
                return False
        return True

    def use_bfloat16(self) -> bool:
        """From now on, products take bfloat16; False if the device cannot do it."""
        if self._device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        products_in_bfloat16(self._graph)
        self.seconds_saved = seconds_saved(self._graph)
        self._tolerance = 1e6  # of numbers rounded to 8 bits, in one order and another
        return True

    def compile(self, *inputs: Tensor) -> None:
        """From now on, runs what Inductor makes of the graph.

        Raises:
            Exception: If Inductor cannot compile the graph, or makes something else of it.
        """
        self._compile_later = False
        compiled, expected = inductor(self._graph, *inputs), self.rehearse(*inputs)
        self._run = compiled
        if not self.agrees(self.rehearse(*inputs), expected):
            self._run = self._graph
            raise ValueError("compiled, it gives other results")
        self._captured = None

    def _compile_if_it_pays(self, inputs: Sequence[Tensor]) -> None:
        self._seconds_lost += self.seconds_saved
        if self._seconds_lost < _SECONDS_TO_COMPILE:
            return
        try:
            self.compile(*inputs)
        except Exception:
            return
        ways: list[Any] = [self._run, self._graph]
        seconds = [min(self._seconds(way, inputs) for _ in range(5)) for way in ways]
        self._run = ways[1] if seconds[1] < 0.9 * seconds[0] else ways[0]

    def _seconds(self, way: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> float:
        self._run = way
        start = time.perf_counter()
        _largest(self.rehearse(*inputs)[0])  # waits for the device
        return time.perf_counter() - start


_SECONDS_TO_COMPILE = 10.0


def _largest(tensor: Tensor) -> float:
    finite = tensor.detach().abs().nan_to_num(nan=0.0, posinf=0.0)
    return finite.max().item() if tensor.numel() else 0.0

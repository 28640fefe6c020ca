"""A step of stochastic variational inference as a graph of operations, and the update that follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor
from torch.fx import GraphModule

from pyro_vae.infer.optimizers import FusedAdam, step_by
from pyro_vae.infer.recording.bfloat16 import products_in_bfloat16
from pyro_vae.infer.recording.cuda_graph import CudaGraph
from pyro_vae.infer.recording.inductor import inductor, seconds_saved
from pyro_vae.infer.recording.simplify import written_attributes
from pyro_vae.system.private_apis import has_bfloat16
from pyro_vae.system.randomness import get_generators, set_generators
from pyro_vae.system.trees import TreeSpec, unflatten
from pyro_vae.system.values import values_kept
from pyro_vae.system.warning import warn

_Function = Callable[..., Sequence[Tensor]]


class RecordedStep:
    """The loss, the gradients and the update of a step, without the Python code of the programs.

    Args:
        graph: Returns the leaves of the loss, then the gradients.
        treespec: The structure of the loss; most losses are a single leaf.
        parameters: The parameters that the programs used, by the names of their sites.
        leaves: The parameters of the gradients.
        optim: Updates them.
        compile_later: Whether to compile the graph once the steps without Inductor have lost as much time as compiling
            takes. The graph stays as it is if compiling fails or does not make it clearly faster.

    Attributes:
        follows_store: Whether the parameters are those that Pyro's store has under their names.
        is_tested: Whether the step was compared with Pyro's.
        seconds_saved: About how much time Inductor would save at each step.
    """

    def __init__(
        self,
        graph: GraphModule,
        treespec: TreeSpec,
        parameters: dict[str, Tensor],
        leaves: list[Tensor],
        optim: PyroOptim,
        compile_later: bool,
    ) -> None:
        self.parameters = parameters
        self.follows_store = True
        self.is_tested = False
        self._leaves = leaves
        self._device = leaves[0].device if leaves else torch.device("cpu")
        self.treespec = treespec
        self._num_losses = treespec.num_leaves
        self._optim = optim
        self._graph = graph
        self._written = written_attributes(graph)
        self._run: _Function = graph
        self._tolerance = 1e4  # times the precision of the numbers
        self._compile_later = compile_later
        self.seconds_saved = seconds_saved(graph)
        self._seconds_lost = 0.0
        self._fused: FusedAdam | None = None
        self._captured: CudaGraph | None = None
        self._captured_for: Any = None
        self._can_capture = True

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        """Updates the parameters. Returns the loss before the update, without waiting for the device."""
        fused = self._fuse() if self._device.type == "cuda" else None
        if fused is not None:
            losses: Sequence[Any] = self._replay(self._with_update, inputs, fused)
        else:
            losses, gradients = self.gradients(*inputs)
            self.update(gradients)
        return unflatten(losses, self.treespec)

    @torch.no_grad()
    def gradients(self, *inputs: Tensor) -> tuple[Sequence[Any], Sequence[Any]]:
        """The leaves of the loss and the gradients, without waiting for the device."""
        return self._split(self._replay(self._without_update, inputs))

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor]) -> None:
        """Updates the parameters."""
        fused = self._fuse()
        if fused is None:
            step_by(self._optim, self._leaves, gradients)
        else:
            fused(gradients)

    def _replay(
        self, function: _Function, inputs: Sequence[Tensor], fused: FusedAdam | None = None
    ) -> Sequence[Tensor]:
        """The results of a function, which on a GPU is captured once as a CUDA graph."""
        if self._compile_later:
            self._compile_if_it_pays(inputs)
        return (function if self._device.type != "cuda" else self._capture(function, inputs, fused))(*inputs)

    def _capture(self, function: _Function, inputs: Sequence[Tensor], fused: FusedAdam | None) -> _Function:
        if not self._can_capture:
            return function
        # A CUDA graph knows parameters by where they are in memory.
        wanted = function, fused, [leaf.data_ptr() for leaf in self._leaves]
        if self._captured is None or self._captured_for != wanted:
            if fused is not None:
                fused.rehearse()
            try:
                self._captured, self._captured_for = CudaGraph(function, inputs), wanted
            except RuntimeError as error:
                self._can_capture = False
                warn(f"the step cannot be captured in a CUDA graph, and is slower ({error})")
                return function
        return self._captured

    def _without_update(self, *inputs: Tensor) -> Sequence[Tensor]:
        return self._run(*inputs)

    def _with_update(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The same and the update, which uses up the gradients. Returns the leaves of the loss."""
        losses, gradients = self._split(self._run(*inputs))
        self.update(gradients)
        return losses

    def _split(self, results: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        return results[: self._num_losses], results[self._num_losses :]

    def _fuse(self) -> FusedAdam | None:
        """Updates all parameters by one kernel, if the optimizer's present settings allow that."""
        if self._fused is None or not self._fused.is_current():
            try:
                self._fused = FusedAdam(self._optim, self._leaves)
            except NotImplementedError:
                self._fused = None
        return self._fused

    def is_of(self, store: dict[str, Tensor]) -> bool:
        """Whether the store has the same parameters."""
        return all(store.get(name) is leaf for name, leaf in self.parameters.items())

    @torch.no_grad()
    def rehearse(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The losses and gradients. Generators and running statistics stay as they are."""
        generators = get_generators(self._device)
        with values_kept(self._written):
            results = self._run(*inputs)
        set_generators(generators, self._device)
        return results

    def agrees(self, results: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
        """Whether two rehearsals of the same step differ only by rounding."""
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
        """From now on, products take bfloat16. Returns False if the device cannot do it."""
        if self._device.type == "cpu" and not has_bfloat16():
            return False
        products_in_bfloat16(self._graph)
        self.seconds_saved = seconds_saved(self._graph)
        self._tolerance = 1e6  # sums of numbers with 8 bits, in different orders
        return True

    def compile(self, *inputs: Tensor) -> None:
        """From now on, runs the graph as compiled by Inductor.

        Raises:
            Exception: If Inductor cannot compile the graph, or the result differs from the graph.
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

    def _seconds(self, way: _Function, inputs: Sequence[Tensor]) -> float:
        self._run = way
        start = time.perf_counter()
        _largest(self.rehearse(*inputs)[0])  # waits for the device
        return time.perf_counter() - start


_SECONDS_TO_COMPILE = 5.0


def _largest(tensor: Tensor) -> float:
    finite = tensor.detach().abs().nan_to_num(nan=0.0, posinf=0.0)
    return finite.max().item() if tensor.numel() else 0.0

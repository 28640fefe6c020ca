"""A step as Pyro takes it, in two halves: gradients, then the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyro import poutine
from pyro.infer.util import zero_grads
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

__all__ = ["PyroStep"]


class PyroStep:
    """Runs the programs as Pyro does, and remembers what they are made of.

    Args:
        loss_and_grads: Called with the arguments of the programs.
        optim: Steps the parameters.
    """

    def __init__(self, loss_and_grads: Callable[..., Any], optim: PyroOptim) -> None:
        self.parameters: dict[str, Tensor] = {}  #: The leaves that the last run met, by the names of their sites.
        self._loss_and_grads = loss_and_grads
        self._optim = optim
        self._modules: dict[nn.Module, None] = {}  # that the programs have called
        self._module_parameters: list[nn.Parameter] = []

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the programs, and leaves gradients at the parameters that they meet. Returns the loss."""
        with poutine.trace(param_only=True) as capture, self._modules_noted():
            loss = self._loss_and_grads(*args, **kwargs)
        sites: dict[str, Any] = dict(capture.trace.nodes)
        self.parameters = {name: site["value"].unconstrained() for name, site in sites.items()}
        return loss

    def gradients_by_leaf(self) -> dict[Tensor, Tensor]:
        """The gradients that the last run has left, without the parameters that have none."""
        return {leaf: leaf.grad for leaf in self.parameters.values() if leaf.grad is not None}

    def update(self) -> None:
        """Steps these parameters by their gradients."""
        leaves = list(dict.fromkeys(self.parameters.values()))
        self._optim(leaves)
        zero_grads(leaves)

    def forget_gradients(self) -> None:
        """Leaves no gradients to add to."""
        for leaf in self.parameters.values():
            leaf.grad = None

    def flags(self) -> tuple[bool, ...]:
        """What is set on the modules that changes what they do."""
        training = [module.training for module in self._modules]
        return (*training, *[parameter.requires_grad for parameter in self._module_parameters])

    @contextmanager
    def _modules_noted(self) -> Iterator[None]:
        known = len(self._modules)
        hook = register_module_forward_pre_hook(lambda module, _: self._modules.setdefault(module))
        try:
            yield
        finally:
            hook.remove()
        if len(self._modules) > known:
            parameters = (each for module in self._modules for each in module.parameters(recurse=False))
            self._module_parameters = list(dict.fromkeys(parameters))

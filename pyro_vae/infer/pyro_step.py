"""A step as Pyro takes it, in two halves: gradients, then the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_flatten, tree_unflatten

from pyro_vae.infer.optimizers import TorchOptimizer
from pyro_vae.infer.recording.guards import Surroundings
from pyro_vae.infer.reparameterized import reparameterized

__all__ = ["BeforeUpdate", "PyroStep"]

BeforeUpdate = Callable[[Sequence[Tensor], Sequence[Tensor]], bool]


class PyroStep:
    """Runs the programs as Pyro does, and remembers what they are made of.

    Args:
        model: The model.
        guide: The guide.
        loss_and_grads: Called with both, and with their arguments.
        optim: Steps the parameters.
        before_update: See :class:`~pyro_vae.infer.svi.SVI`.
        through_draws: Whether the gradients go through the draws of the guide, which then must have some.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        loss_and_grads: Callable[..., Any],
        optim: PyroOptim,
        before_update: BeforeUpdate | None = None,
        *,
        through_draws: bool = False,
    ) -> None:
        self.parameters: dict[str, Tensor] = {}  #: The leaves that the last run met, by the names of their sites.
        self.not_stepped: list[str] = []  #: Sites of the last run whose module's own parameters got gradients in vain.
        checked = reparameterized(guide) if through_draws else guide
        self._run = lambda *args, **kwargs: loss_and_grads(model, checked, *args, **kwargs)
        self._optim = optim
        self._before_update = before_update
        self._surroundings = Surroundings(model, guide)
        self._leaves: dict[Tensor, None] = {}  # the parameters that are stepped
        self._moved: dict[Tensor, None] = {}  # those that have had a gradient

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the programs, and leaves gradients at the parameters that they meet. Returns the loss."""
        try:
            with poutine.trace(param_only=True) as capture, self._modules_noted():
                loss = self._run(*args, **kwargs)
        except BaseException:  # Ctrl-C too
            self.forget_gradients()
            raise
        sites: dict[str, Any] = dict(capture.trace.nodes)
        self.parameters = {name: site["value"].unconstrained() for name, site in sites.items()}
        self._leaves = dict.fromkeys(self.parameters.values())
        if isinstance(self._optim, TorchOptimizer):  # which needs no statement of Pyro to know a parameter
            self._leaves.update(dict.fromkeys(self._optim.parameters()))
        self.not_stepped = [name for name, site in sites.items() if self._is_anothers(name, site)]
        return loss

    def _is_anothers(self, name: str, site: Any) -> bool:
        """Whether a module was used whose parameter no update reaches, since the store has another of that name."""
        if "$$$" not in name or len(site["args"]) < 2:  # the first is what pyro.module puts between its names
            return False
        given = site["args"][1]
        return isinstance(given, nn.Parameter) and given not in self._leaves and given.grad is not None

    def gradients(self) -> dict[Tensor, Tensor]:
        """What the last run has left, by parameter.

        A parameter without gradient is left out until it has had one; from then on it has zero, as in Pyro.
        """
        return {
            leaf: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            for leaf in self._leaves
            if leaf.grad is not None or leaf in self._moved
        }

    def update(self, loss: Any) -> Any:
        """Steps the parameters by what the last run has left, of which nothing stays. Returns its loss."""
        try:
            gradients = self.gradients()
            for leaf, gradient in gradients.items():
                leaf.grad = gradient
                self._moved[leaf] = None
            if self._before_update is None:
                self._optim(list(self._leaves))
                return loss
            losses, form = tree_flatten(loss)
            losses = [torch.as_tensor(each) for each in losses]
            if self._before_update(losses, list(gradients.values())):
                self._optim(list(self._leaves))
            return tree_unflatten(losses, form)
        finally:
            self.forget_gradients()

    def forget_gradients(self) -> None:
        """Drops what a run has left."""
        for leaf in self._leaves:
            leaf.grad = None

    def state(self) -> tuple[Any, ...]:
        """What further steps depend on, besides arguments and the values of tensors."""
        return *self._surroundings.values(), len(self._moved)

    def is_watched(self) -> bool:
        """Whether somebody wants to be told of gradients, or has left some to be added to."""
        return any(leaf._backward_hooks or leaf.grad is not None for leaf in self._leaves)  # type: ignore[attr-defined]

    @contextmanager
    def _modules_noted(self) -> Iterator[None]:
        called: dict[nn.Module, None] = {}
        hook = register_module_forward_pre_hook(lambda module, _: called.setdefault(module))
        try:
            yield
        finally:
            hook.remove()
        self._surroundings.add(called)

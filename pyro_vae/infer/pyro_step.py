"""A step as Pyro takes it, in two halves: gradients, then the update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_vae.infer.optimizers import TorchOptimizer
from pyro_vae.infer.recording.guards import Guards
from pyro_vae.infer.reparameterized import Reparameterized
from pyro_vae.programs.called_modules import called_modules
from pyro_vae.system.grad_mode import gradients_enabled
from pyro_vae.system.private_apis import has_gradient_hooks


class PyroStep:
    """Runs the programs as Pyro does, and notes their parameters and what they depend on.

    Args:
        model: The model.
        guide: The guide.
        loss_and_grads: Called with both, and with their arguments.
        optim: Updates the parameters.
        through_draws: Whether gradients go through the draws of the guide, which must then be reparameterized.

    Attributes:
        parameters: The unconstrained parameters of the last run, by the names of their sites.
        not_stepped: Sites of the last run with a parameter that gets gradients but no update.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        loss_and_grads: Callable[..., Any],
        optim: PyroOptim,
        *,
        through_draws: bool = False,
    ) -> None:
        self.parameters: dict[str, Tensor] = {}
        self.not_stepped: list[str] = []
        checked = Reparameterized()(guide) if through_draws else guide
        self._run = lambda *args, **kwargs: loss_and_grads(model, checked, *args, **kwargs)
        self._optim = optim
        self._guards = Guards(model, guide)
        self._leaves: dict[Tensor, None] = {}  # the parameters that are updated
        self._had_gradient: dict[Tensor, None] = {}

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[Tensor, Tensor]]:
        """Runs the programs.

        Returns:
            The loss, and the gradients by parameter; none stay at the parameters. A parameter without gradient is left
            out until it has had one; from then on its gradient is zero, as in Pyro.
        """
        try:
            with poutine.trace(param_only=True) as capture, called_modules() as called:
                loss = self._run(*args, **kwargs)
            self._guards.add(called)
            sites: dict[str, Any] = dict(capture.trace.nodes)
            self.parameters = {name: site["value"].unconstrained() for name, site in sites.items()}
            self._leaves = dict.fromkeys(self.parameters.values())
            if isinstance(self._optim, TorchOptimizer):  # it has its parameters without a statement of Pyro
                self._leaves.update(dict.fromkeys(self._optim.parameters()))
            self.not_stepped = [name for name, site in sites.items() if self._has_no_update(name, site)]
            return loss, self._gradients()
        finally:  # at Ctrl-C too
            self._clear_gradients()

    def _has_no_update(self, name: str, site: Any) -> bool:
        """Whether a module was called whose parameter is not updated, since the store has another one of that name."""
        if "$$$" not in name or len(site["args"]) < 2:  # pyro.module puts "$$$" between its names
            return False
        given = site["args"][1]
        return isinstance(given, nn.Parameter) and given not in self._leaves and given.grad is not None

    def _gradients(self) -> dict[Tensor, Tensor]:
        self._had_gradient.update(dict.fromkeys(leaf for leaf in self._leaves if leaf.grad is not None))
        return {
            leaf: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            for leaf in self._leaves
            if leaf in self._had_gradient
        }

    @gradients_enabled()
    def update(self, gradients: dict[Tensor, Tensor]) -> None:
        """Updates the parameters by gradients that :meth:`run` has returned."""
        try:
            for leaf, gradient in gradients.items():
                leaf.grad = gradient
            self._optim(list(self._leaves))
        finally:
            self._clear_gradients()

    def _clear_gradients(self) -> None:
        for leaf in self._leaves:
            leaf.grad = None

    def state(self) -> tuple[Any, ...]:
        """What further steps depend on, besides arguments and the values of tensors."""
        return *self._guards.values(), len(self._had_gradient)

    def is_watched(self) -> bool:
        """Whether a parameter has hooks on its gradient, or a gradient that the next one would be added to."""
        return any(has_gradient_hooks(leaf) or leaf.grad is not None for leaf in self._leaves)

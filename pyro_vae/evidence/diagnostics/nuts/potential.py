"""The potential energy that NUTS moves in, without the Python code of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.infer.recording.compiled import recorded

Potential = Callable[[dict[str, Tensor]], Tensor]  # of unconstrained latents, by site; a scalar


def fast_potential(potential: Potential, start: dict[str, Tensor]) -> Potential:
    """The same potential with its gradient, both recorded once if that can be done.

    Args:
        potential: Minus log p(x, z), from Pyro.
        start: Latents to record it at.

    Returns:
        A function with the same values and the same gradient, which cannot be differentiated twice.
    """
    names = list(start)

    @torch.enable_grad()
    def value_and_gradients(*values: Tensor) -> tuple[Tensor, ...]:
        values = tuple(value.detach().requires_grad_() for value in values)
        energy = potential(dict(zip(names, values, strict=True)))
        return energy.detach(), *torch.autograd.grad(energy, values)

    here = tuple(start.values())
    both = recorded(value_and_gradients, here, tuple(value + 0.1 for value in here))

    class Energy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *values: Tensor) -> Tensor:
            energy, *gradients = both(*values)
            ctx.save_for_backward(*gradients)
            return energy

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
            return tuple(grad_outputs[0] * gradient for gradient in ctx.saved_tensors)

    return lambda latents: Energy.apply(*(latents[name] for name in names))

"""Optimizers and schedulers for ``fit``, checked before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from inspect import Parameter, signature
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_vae.infer.optimizers import check_steps_by_gradients

_EXAMPLES = {
    "optimizer": "a class of torch.optim, with lr of fit: optimizer=torch.optim.Adam",
    "scheduler": "a class of torch.optim.lr_scheduler: scheduler=partial(ExponentialLR, gamma=0.9)",
}


def check_maker(name: str, maker: Any) -> None:
    """Checks a function that makes an optimizer or a scheduler, without calling it.

    Raises:
        TypeError: If it is of Pyro, an optimizer or scheduler itself, or no function.
        ValueError: If its optimizers need more than gradients.
    """
    kind = maker.func if isinstance(maker, partial) else maker
    module = getattr(kind, "__module__", None) or ""
    of_pyro = isinstance(kind, PyroOptim) or module.startswith("pyro.optim")
    if of_pyro:
        found = f"pyro.optim's {getattr(kind, '__name__', type(kind).__name__)}"
    elif isinstance(kind, torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler):
        found = f"a {type(kind).__name__} that is made already"
    elif not callable(kind):
        found = f"of type {type(kind).__name__}"
    else:
        check_steps_by_gradients(kind)
        return
    raise TypeError(f"{name} is {found}; expected a function that makes it, such as {_EXAMPLES[name]}")


def make_optimizer(maker: Any, vae: nn.Module, parameters: Sequence[Tensor], lr: float) -> torch.optim.Optimizer:
    """Makes the optimizer.

    Raises:
        TypeError: If the result is not an optimizer of torch.
        ValueError: If it cannot train the parameters.
    """
    optimizer = maker(parameters, lr=lr)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer makes a {type(optimizer).__name__}; expected an optimizer of torch.optim")
    check_steps_by_gradients(type(optimizer))
    is_sparse = any(getattr(module, "sparse", False) for module in vae.modules())
    if isinstance(optimizer, torch.optim.SparseAdam) and not is_sparse:
        raise ValueError("the optimizer SparseAdam takes sparse gradients, which no module has; expected Adam")
    mine = {id(parameter) for parameter in parameters}
    if not any(id(each) in mine for group in optimizer.param_groups for each in group["params"]):
        raise ValueError("the optimizer has none of the parameters that it was called with")
    return optimizer


def check_scheduler(scheduler: Any, every: str) -> None:
    """Checks a scheduler.

    Raises:
        TypeError: If it is not a scheduler.
        ValueError: If it cannot step after every step of the optimizer, but is asked to.
    """
    if not callable(getattr(scheduler, "step", None)) or not callable(getattr(scheduler, "state_dict", None)):
        raise TypeError(f"scheduler makes a {type(scheduler).__name__}; expected one of torch.optim.lr_scheduler")
    if every == "step" and steps_by_loss(scheduler):
        raise ValueError(
            f"the scheduler {type(scheduler).__name__} needs the validation loss, known only after an epoch; "
            "expected scheduler_every='epoch'"
        )


def steps_by_loss(scheduler: Any) -> bool:
    """Whether its step needs a loss, as that of ReduceLROnPlateau does."""
    metrics = signature(scheduler.step).parameters.get("metrics")
    return metrics is not None and metrics.default is Parameter.empty

"""States of torch's optimizers and schedulers: torch loads any state, and fails at a later step if it is invalid."""

from __future__ import annotations

import copy
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyro_vae.system.private_apis import mark_as_stepped


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Loads a ``state_dict``.

    Raises:
        Exception: If its structure differs from the state of this optimizer after a step.
    """
    expected = _after_a_step(optimizer)
    # torch gives a parameter the state under the number that is saved for it. If a number is there twice, this is the
    # state of a parameter of another size, and a fused step would write past the end of it.
    saved, own = ([group["params"] for group in each["param_groups"]] for each in (state, expected))
    if saved != own:
        raise ValueError(f"the optimizer's state numbers the parameters {saved!r}; expected {own!r}")
    optimizer.load_state_dict(state)
    mark_as_stepped(optimizer)
    loaded = optimizer.state_dict()
    # Parameters without gradients up to then have no state.
    expected["state"] = {key: value for key, value in expected["state"].items() if key in loaded["state"]}
    _check("the optimizer's state", loaded, expected)
    _lay_out(optimizer)


def _lay_out(optimizer: Optimizer) -> None:
    """Gives moments the memory format of their parameters: a fused step goes through both in the order of memory."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items() if isinstance(parameter, Tensor) else ():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def load_scheduler(scheduler: Any, state: dict[str, Any]) -> None:
    """Loads a ``state_dict``.

    Raises:
        Exception: If its structure differs from the state of this scheduler.
    """
    expected = copy.deepcopy(scheduler.state_dict())
    scheduler.load_state_dict(state)
    _check("the scheduler's state", scheduler.state_dict(), expected)


def _after_a_step(optimizer: Optimizer) -> dict[str, Any]:
    try:
        rehearsal = copy.deepcopy(optimizer)  # this copies the parameters too
        for group in rehearsal.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        rehearsal.step()
    except Exception:  # it cannot be copied, or a step needs more than gradients
        return copy.deepcopy(optimizer.state_dict())
    return rehearsal.state_dict()


def _check(name: str, value: Any, expected: Any) -> None:
    """Raises an error if two trees differ in more than numbers. More entries are allowed, and any value for None."""
    if isinstance(expected, Tensor):
        if not isinstance(value, Tensor) or (value.shape, value.dtype) != (expected.shape, expected.dtype):
            raise ValueError(f"{name} is not a tensor {list(expected.shape)} of {expected.dtype}")
    elif isinstance(expected, dict):
        for key, each in expected.items():
            _check(f"{name}[{key!r}]", value[key], each)
    elif isinstance(expected, list | tuple):
        if type(value) is not type(expected):
            raise TypeError(f"{name} is {value!r}, and was {expected!r} at first")
        for i, each in enumerate(expected):
            _check(f"{name}[{i}]", value[i], each)
    elif expected is not None and not isinstance(value, _kind(expected)):
        raise TypeError(f"{name} is {value!r}, and was {expected!r} at first")


def _kind(value: Any) -> Any:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return int | float if is_number else type(value)

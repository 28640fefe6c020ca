"""Updates of all parameters at once, by optimizers of Pyro or torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from pyro_vae.system.private_apis import has_step_hooks, mark_as_stepped


class TorchOptimizer(PyroOptim):
    """An optimizer of torch with the interface of Pyro's. It updates the parameters that it was created with."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Takes a step."""
        self.optimizer.step(*args, **kwargs)

    def parameters(self) -> list[Tensor]:
        """The parameters that it updates."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def get_state(self) -> dict[str, Any]:
        """The optimizer's ``state_dict``."""
        return self.optimizer.state_dict()

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Loads the optimizer's ``state_dict``."""
        self.optimizer.load_state_dict(state_dict)


def as_pyro_optim(optim: PyroOptim | Optimizer) -> PyroOptim:
    """Returns an optimizer of Pyro as it is, and wraps one of torch.

    Raises:
        TypeError: If it is neither.
        ValueError: If it needs more than gradients, as LBFGS does.
    """
    if isinstance(optim, Optimizer):
        check_steps_by_gradients(type(optim))
        return TorchOptimizer(optim)
    if not isinstance(optim, PyroOptim):
        found = f"the class {optim.__name__}" if isinstance(optim, type) else f"of type {type(optim).__name__}"
        raise TypeError(f"optim is {found}; expected an optimizer of pyro.optim or torch.optim")
    check_steps_by_gradients(getattr(optim, "pt_optim_constructor", None))
    return optim


def check_steps_by_gradients(kind: Any) -> None:
    """Checks that an optimizer of this kind takes a step without computing the loss again.

    Raises:
        ValueError: If it does not.
    """
    step = getattr(kind, "step", None)
    closure = signature(step).parameters.get("closure") if callable(step) else None
    if closure is not None and closure.default is Parameter.empty:
        raise ValueError(
            f"the optimizer {kind.__name__} computes the loss again within a step, and gets other noise; expected one "
            "that steps by gradients, such as Adam"
        )


def fuse(optimizer: Optimizer) -> None:
    """Lets Adam and AdamW use the same kernel as recorded steps, so that all steps round alike."""
    for group in optimizer.param_groups:
        if type(optimizer) in _STEPS and not (group["differentiable"] or group["capturable"]):
            group["fused"], group["foreach"] = True, False


def step_by(optim: PyroOptim, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Updates the parameters as Pyro does, by their ``grad``, which is None afterwards."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optim(list(parameters))
    for parameter in parameters:
        parameter.grad = None


class FusedAdam:
    """The updates of Adam or AdamW for all parameters by one kernel, on the states of their optimizers.

    Pyro has one optimizer per parameter. These still hold the moments and the learning rates, so that schedulers,
    ``get_state`` and ``set_state`` work as usual.

    Args:
        optim: The optimizer. It must have updated every parameter once.
        parameters: The parameters, in the order of the gradients.

    Raises:
        NotImplementedError: If the optimizer is neither Adam nor AdamW, or does more (such as clipping).
    """

    def __init__(self, optim: PyroOptim, parameters: Sequence[Tensor]) -> None:
        self._optim = optim
        self._parameters = parameters
        self._owners = [_owner(optim, parameter) for parameter in parameters]
        self._states = [optimizer.state for optimizer, _ in self._owners]
        self._settings = self._read(_SETTINGS)
        self._rates = self._read(["lr"])
        self._calls = self._calls_of_equal_settings()

    def is_current(self) -> bool:
        """Takes over changed learning rates. Returns False if states or other settings have changed."""
        if self._read(_SETTINGS) != self._settings:
            return False
        for parameter, (optimizer, _), state in zip(self._parameters, self._owners, self._states, strict=True):
            if _optimizer(self._optim, parameter) is not optimizer or optimizer.state is not state:
                return False
        rates = self._read(["lr"])
        if rates != self._rates:
            for indices, _, _, options in self._calls:
                different = {rates[i] for i in indices}
                if len(different) > 1:
                    return False
                ((rate,),) = different
                if isinstance(options["lr"], Tensor):
                    options["lr"].fill_(rate)
                else:
                    options["lr"] = rate
            self._rates = rates
        return True

    def __call__(self, gradients: Sequence[Tensor]) -> None:
        """Updates the parameters."""
        for indices, step, (parameters, *states), options in self._calls:
            step(parameters, [gradients[i] for i in indices], *states, fused=True, **options)

    def rehearse(self) -> None:
        """Updates copies, so that the kernels are loaded."""
        for _, step, tensors, options in self._calls:
            parameters, *states = [[each.clone() for each in some] for some in tensors]
            step(parameters, [torch.zeros_like(each) for each in parameters], *states, fused=True, **options)

    def _read(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        return [tuple([group[name] for name in names]) for _, group in self._owners]

    def _calls_of_equal_settings(self) -> list[tuple[list[int], Any, list[list[Tensor]], dict[str, Any]]]:
        alike = defaultdict(list)
        for i, (optimizer, group) in enumerate(self._owners):
            alike[type(optimizer), self._settings[i], group["lr"]].append(i)
        calls = []
        for (kind, settings, rate), indices in alike.items():
            options = dict(zip(_SETTINGS, settings, strict=True))
            options["beta1"], options["beta2"] = options.pop("betas")
            device = self._parameters[indices[0]].device
            if device.type == "cuda":  # in a CUDA graph only tensors can change
                rate = torch.tensor(float(rate), dtype=torch.float32, device=device)
            options["lr"] = rate
            calls.append((indices, _STEPS[kind], self._tensors(indices), options))
        return calls

    def _tensors(self, indices: list[int]) -> list[list[Tensor]]:
        parameters = [self._parameters[i] for i in indices]
        states = [self._states[i][self._parameters[i]] for i in indices]
        for state, parameter in zip(states, parameters, strict=True):
            state["step"] = state["step"].to(parameter.device)  # fused kernels need it there
        return [
            parameters,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states if "max_exp_avg_sq" in state],
            [state["step"] for state in states],
        ]


_STEPS = {Adam: adam, AdamW: adamw}
_SETTINGS = ("betas", "eps", "weight_decay", "amsgrad", "maximize")


def _owner(optim: PyroOptim, parameter: Tensor) -> tuple[Optimizer, dict[str, Any]]:
    """The torch optimizer that updates the parameter, and its parameter group."""
    optimizer = _optimizer(optim, parameter)
    if type(optimizer) not in _STEPS or has_step_hooks(optimizer):
        raise NotImplementedError
    if parameter.device.type not in ("cpu", "cuda") or "exp_avg" not in optimizer.state.get(parameter, {}):
        raise NotImplementedError
    group = next(group for group in optimizer.param_groups if any(parameter is each for each in group["params"]))
    if group["differentiable"]:
        raise NotImplementedError
    mark_as_stepped(optimizer)
    if parameter.device.type == "cuda":
        group["fused"] = True  # so that its own steps can use the state on the GPU
    return optimizer, group


def _optimizer(optim: PyroOptim, parameter: Tensor) -> Any:
    """The torch optimizer that updates the parameter; None if there is none, or if Pyro does more than that."""
    if isinstance(optim, TorchOptimizer):
        return optim.optimizer
    if type(optim) not in (PyroOptim, PyroLRScheduler) or optim.grad_clip.get(parameter) is not None:
        return None
    optimizer = optim.optim_objs.get(parameter)
    return getattr(optimizer, "optimizer", optimizer)  # of a scheduler

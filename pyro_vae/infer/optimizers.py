"""Updates of all parameters at once, by optimizers of Pyro or torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any, NamedTuple

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from pyro_vae.system.private_apis import has_step_hooks, import_dynamo_late, mark_as_stepped, update_by_adam

import_dynamo_late()


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
        if type(optimizer) in (Adam, AdamW) and not (group["differentiable"] or group["capturable"]):
            group["fused"], group["foreach"] = True, False


def step_by(optim: PyroOptim, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Updates the parameters as Pyro does, by their ``grad``, which is None afterwards."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optim(list(parameters))
    for parameter in parameters:
        parameter.grad = None


class _Group(NamedTuple):
    """A parameter group of an optimizer."""

    optimizer: Optimizer
    state: Any  #: That of the optimizer.
    settings: dict[str, Any]
    indices: list[int]  #: Of its parameters.


class _Call(NamedTuple):
    """An update of parameters of one device and dtype, with equal settings."""

    kind: type[Optimizer]
    groups: list[int]  #: Where they are from.
    indices: list[int]  #: Of the parameters.
    tensors: list[list[Tensor]]  #: The parameters, first and second moments, the largest of these, numbers of steps.
    options: dict[str, Any]


class FusedAdam:
    """The updates of Adam or AdamW for all parameters by one kernel, on the states of their optimizers.

    Pyro has one optimizer per parameter. These still hold the moments and the learning rates, so that schedulers,
    ``get_state`` and ``set_state`` work as usual.

    Args:
        optim: The optimizer. It must have updated every parameter once, unless it is one of torch, and fused.
        parameters: The parameters, in the order of the gradients.

    Raises:
        NotImplementedError: If the optimizer is neither Adam nor AdamW, or does more (such as clipping).
    """

    def __init__(self, optim: PyroOptim, parameters: Sequence[Tensor]) -> None:
        self._optim = optim
        self._parameters = parameters
        self._groups = self._find_groups()
        self._settings = self._read(_SETTINGS)
        self._rates = self._read(("lr",))
        self._calls = self._calls_of_equal_settings()

    def is_current(self) -> bool:
        """Takes over changed learning rates. Returns False if states or other settings have changed."""
        if self._read(_SETTINGS) != self._settings:
            return False
        for optimizer, state, _, indices in self._groups:
            if _optimizer(self._optim, self._parameters[indices[0]]) is not optimizer or optimizer.state is not state:
                return False
        rates = self._read(("lr",))
        if rates != self._rates:
            for call in self._calls:
                different = {rates[i] for i in call.groups}
                if len(different) > 1:
                    return False
                ((rate,),) = different
                if isinstance(call.options["lr"], Tensor):
                    call.options["lr"].fill_(rate)
                else:
                    call.options["lr"] = rate
            self._rates = rates
        return True

    def __call__(self, gradients: Sequence[Tensor]) -> None:
        """Updates the parameters."""
        for kind, _, indices, (parameters, *states), options in self._calls:
            update_by_adam(kind, parameters, [gradients[i] for i in indices], *states, **options)
            if parameters[0].device.type == "cpu" and int(states[-1][0]) % _STEPS_BETWEEN == 0:
                _drop_tiny(states[0])

    def rehearse(self) -> None:
        """Updates copies, so that the kernels are loaded."""
        for kind, _, _, tensors, options in self._calls:
            parameters, *states = [[each.clone() for each in some] for some in tensors]
            update_by_adam(kind, parameters, [torch.zeros_like(each) for each in parameters], *states, **options)

    def _find_groups(self) -> list[_Group]:
        groups: dict[int, _Group] = {}
        for i, parameter in enumerate(self._parameters):
            optimizer, settings = _owner(self._optim, parameter)
            groups.setdefault(id(settings), _Group(optimizer, optimizer.state, settings, [])).indices.append(i)
        return list(groups.values())

    def _read(self, names: Sequence[str]) -> list[tuple[Any, ...]]:
        return [tuple([group.settings[name] for name in names]) for group in self._groups]

    def _calls_of_equal_settings(self) -> list[_Call]:
        alike = defaultdict(list)
        for i, (group, settings, (rate,)) in enumerate(zip(self._groups, self._settings, self._rates, strict=True)):
            for index in group.indices:
                parameter = self._parameters[index]
                key = type(group.optimizer), settings, rate, parameter.device, parameter.dtype
                alike[key].append((i, index))
        calls = []
        for (kind, settings, rate, device, _), found in alike.items():
            options = dict(zip(_SETTINGS, settings, strict=True))
            options["beta1"], options["beta2"] = options.pop("betas")
            if device.type == "cuda":  # in a CUDA graph only tensors can change
                rate = torch.tensor(float(rate), dtype=torch.float32, device=device)
            options["lr"] = rate
            groups, indices = map(list, zip(*found, strict=True))
            states = [self._groups[i].state[self._parameters[index]] for i, index in found]
            calls.append(_Call(kind, groups, indices, self._tensors(indices, states), options))
        return calls

    def _tensors(self, indices: list[int], states: list[dict[str, Tensor]]) -> list[list[Tensor]]:
        parameters = [self._parameters[i] for i in indices]
        for state, parameter in zip(states, parameters, strict=True):
            state["step"] = state["step"].to(parameter.device)  # fused kernels need it there
        return [
            parameters,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states if "max_exp_avg_sq" in state],
            [state["step"] for state in states],
        ]


_STEPS_BETWEEN = 64  # by the optimizer's own count, so that a resumed run does the same
_SETTINGS = ("betas", "eps", "weight_decay", "amsgrad", "maximize")


def _drop_tiny(moments: Sequence[Tensor]) -> None:
    """Sets first moments to zero that are too small to change a parameter.

    Where a gradient is zero for hundreds of steps (that of a pixel that is seldom on), they decay until they are
    subnormal numbers, with which CPUs compute many times more slowly. This comes before: 0.9 ** 64 is 1e-3.
    """
    for each in moments:
        if each.dtype in (torch.float32, torch.float64):
            torch.hardshrink(each, 1e8 * torch.finfo(each.dtype).tiny, out=each)


def _owner(optim: PyroOptim, parameter: Tensor) -> tuple[Optimizer, dict[str, Any]]:
    """The torch optimizer that updates the parameter, and its parameter group."""
    optimizer = _optimizer(optim, parameter)
    if type(optimizer) not in (Adam, AdamW) or has_step_hooks(optimizer):
        raise NotImplementedError
    if parameter.device.type not in ("cpu", "cuda"):
        raise NotImplementedError
    groups = [group for group in optimizer.param_groups if any(parameter is each for each in group["params"])]
    if not groups or groups[0]["differentiable"] or any(isinstance(beta, Tensor) for beta in groups[0]["betas"]):
        raise NotImplementedError
    group = groups[0]
    if "exp_avg" not in optimizer.state.get(parameter, {}):
        if not group["fused"] or optimizer.state.get(parameter):
            raise NotImplementedError
        optimizer.state[parameter].update(_first_state(parameter, group["amsgrad"]))
    mark_as_stepped(optimizer)
    if parameter.device.type == "cuda":
        group["fused"] = True  # so that its own steps can use the state on the GPU
    return optimizer, group


def _first_state(parameter: Tensor, amsgrad: bool) -> dict[str, Tensor]:
    """The state that a fused optimizer of torch begins with, whose own first step would import TorchDynamo."""
    names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")[: 3 if amsgrad else 2]
    moments = {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in names}
    return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device), **moments}


def _optimizer(optim: PyroOptim, parameter: Tensor) -> Any:
    """The torch optimizer that updates the parameter; None if there is none, or if Pyro does more than that."""
    if isinstance(optim, TorchOptimizer):
        return optim.optimizer
    if type(optim) not in (PyroOptim, PyroLRScheduler) or optim.grad_clip.get(parameter) is not None:
        return None
    optimizer = optim.optim_objs.get(parameter)
    return getattr(optimizer, "optimizer", optimizer)  # of a scheduler

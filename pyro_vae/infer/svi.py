"""Pyro's SVI without its Python: a step is recorded once, as operations on tensors, and then replayed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_vae.checks import check_choice
from pyro_vae.data import Batches
from pyro_vae.infer.optimizers import as_pyro_optim
from pyro_vae.infer.pyro_step import PyroStep
from pyro_vae.infer.recorded_step import RecordedStep
from pyro_vae.infer.recording.call import Call, split_numbers
from pyro_vae.infer.recording.record import record, why
from pyro_vae.infer.reparameterized import goes_through_draws
from pyro_vae.programs.batch_arguments import BatchArguments
from pyro_vae.programs.tensor_loader import by_indexing
from pyro_vae.system.grad_mode import gradients_enabled
from pyro_vae.system.memory import keep_freed_memory
from pyro_vae.system.private_apis import handlers_are_active
from pyro_vae.system.randomness import get_generators, set_generators
from pyro_vae.system.threads import in_turn, one_thread_at_a_time
from pyro_vae.system.trees import flatten, leaves_of, map_leaves, unflatten
from pyro_vae.system.warning import warn

_OFTEN = 30  # steps, not in a row, before one is recorded, which takes as long as a hundred
_MOST = 32  # recorded steps that are kept
_DIFFERENT = 20  # calls that differ only in numbers, before a warning
_MANY = 1000  # kinds of calls that are counted


class Computed(NamedTuple):
    """What a step computes before its update."""

    losses: Sequence[Any]  #: The leaves of the loss: tensors or numbers.
    gradients: Sequence[Tensor]  #: They may be changed in place.
    update: Callable[[], None]  #: Updates the parameters by the gradients.


class SVI(pyro.infer.SVI):
    """Stochastic variational inference, as ``pyro.infer.SVI``: the same losses, gradients and updates, but faster.

    Pyro spends more time on effect handlers, validation and its parameter store than on arithmetic. Here the first
    step on inputs of some shape runs as in Pyro, and creates lazy parameters. The second step is recorded while it
    runs, backward pass included. The third runs as in Pyro again, to check that the recording gives the same loss and
    the same gradients. All further steps replay the recording. Random numbers come from torch's generators: with the
    same seed a run is the same as Pyro's, except for rounding.

    This works for programs of static structure, whatever they are made of. If a program decides by the values of its
    inputs, or draws numbers that are not torch's, there is one warning, and all steps run as in Pyro. So do steps on
    rare shapes, such as a smaller last batch. Decisions in Python (``if``, an attribute that is a number) are made when
    the step is recorded, and again when an argument that is not a tensor changes, or ``training``, ``requires_grad`` or
    another attribute of the modules that are called. Use a tensor for what changes at every step. Steps that are
    replayed do not validate: check all data once (``vae.check(x)``). A loss that is NaN warns, as in Pyro.

    Pyro's handlers and its validation belong to the whole process: steps in several threads wait for each other, and
    for the functions of ``pyro_vae.evidence``. All other Pyro programs must run in the same thread.

    Args:
        model: The model.
        guide: The guide.
        optim: An optimizer of ``pyro.optim``, or one of ``torch.optim`` over the parameters. Adam and AdamW update all
            parameters by one kernel.
        loss: An ELBO of Pyro, or a function of model, guide and their arguments.
        loss_and_grads: As in Pyro.
        compile: False runs every step as in Pyro. ``"graph"`` replays the operations as they were recorded. True
            compiles them with Inductor, which takes seconds (on two cores about six the first time, then two) and
            a C++ compiler. ``"auto"`` begins with ``"graph"``, and compiles once that would have paid for itself in the
            steps done; it keeps the compiled step if it is faster.
        precision: ``"bfloat16"`` computes convolutions and matrix products of replayed steps in bfloat16, everything
            else in float32. On a CPU, small products stay in float32 too, which is faster. If the CPU has no
            instructions for it, there is a warning, and float32 is used.
        before_update: Called at each step with the losses (mostly one) and the gradients, which it may change in place.
            If it returns False, the parameters are not updated. Use it to clip, to look for NaN, or to add up gradients
            over processes.

    Raises:
        TypeError: If ``optim`` is not an optimizer.
        ValueError: If ``compile`` or ``precision`` is none of these.

    Example:
        >>> svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.TraceMeanField_ELBO())
        >>> history = [svi.step(x) / len(x) for _ in range(100)]  # nats per datapoint
        >>> history[-1] < history[0]
        True
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: PyroOptim | torch.optim.Optimizer,
        loss: Any,
        loss_and_grads: Callable[..., Any] | None = None,
        *,
        compile: bool | str = "auto",  # noqa: A002
        precision: str = "float32",
        before_update: Callable[[Sequence[Tensor], Sequence[Tensor]], bool] | None = None,
    ) -> None:
        check_choice("compile", compile, (True, False, "graph", "auto"))
        check_choice("precision", precision, ("float32", "bfloat16"))
        if not (isinstance(loss, ELBO) or callable(loss)):
            raise TypeError(f"loss is {loss!r}; expected an ELBO of Pyro or a function of model and guide")
        super().__init__(model, guide, as_pyro_optim(optim), loss, loss_and_grads)
        keep_freed_memory()
        self._compile = compile
        self._bfloat16 = precision == "bfloat16"
        self._before_update = before_update
        self._begin()

    def _begin(self) -> None:
        # Of a function Pyro makes one that computes gradients; an ELBO has a method for that.
        loss = self.loss_and_grads if hasattr(self.loss_and_grads, "__self__") else self.loss
        self._pyro = PyroStep(
            self.model,
            self.guide,
            self.loss_and_grads,
            self.optim,
            through_draws=goes_through_draws(loss),
        )
        self._has_warned_of_names = False
        self._replays = self._compile is not False
        self._steps: dict[Any, RecordedStep] = {}
        self._visits: Counter[Any] = Counter()  # by kind of call, where there is no recorded step
        self._different: defaultdict[Any, set[Any]] = defaultdict(set)  # numbers and guards, by the rest of the call
        self._previous: Any = None  # the kind of the last call
        self._replayed: RecordedStep | None = None  # the step that the last call replayed

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, as_pyro_optim(value) if name == "optim" else value)
        if name in ("model", "guide", "optim", "loss_and_grads") and "_pyro" in vars(self):
            self._begin()

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Takes a gradient step, and waits for it.

        Args:
            args: What model and guide are called with.
            kwargs: Likewise.

        Returns:
            The loss before the step, a float; or a tuple of them, if the loss is one.
        """
        loss = self._advance(Call(args, kwargs))
        return type(loss)(map(_number, loss)) if isinstance(loss, tuple) else _number(loss)

    @one_thread_at_a_time
    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss, as in Pyro, without a step."""
        return super().evaluate_loss(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Takes a step as :meth:`step` does, but does not wait for it: the loss is a tensor on the device."""
        return map_leaves(torch.as_tensor, self._advance(Call(args, kwargs)))

    def epoch(self, batches: Batches | Iterable[Any]) -> float:
        """Takes a step on each batch.

        Args:
            batches: ``data.Batches``, whose gathering and transform become part of the recorded step. Or a
                ``DataLoader`` or another collection of batches, on the device of the programs: each a tensor, a tuple
                that begins with the arguments of the programs, or a dictionary of their keyword arguments.

        Returns:
            The sum of the losses.

        Raises:
            TypeError: If these are not batches.
        """
        losses: list[Any] = []
        if isinstance(batches, Batches):
            shape = None
            for index in batches.indices():
                losses.append(self._advance_on(index, batches.gather, in_a_row=index.shape == shape))
                shape = index.shape
        elif isinstance(batches, Iterable) and not isinstance(batches, Tensor | tuple | Mapping | str):
            arguments = BatchArguments(self.model)
            batches = by_indexing(batches) if isinstance(batches, DataLoader) else batches
            losses += [self._advance(Call(*arguments.of(batch))) for batch in batches]
        else:
            raise TypeError(f"batches is of type {type(batches).__name__}; expected data.Batches or a DataLoader")
        losses = leaves_of(losses)  # some are tuples
        on_device = [loss for loss in losses if isinstance(loss, Tensor)]
        total = sum(loss for loss in losses if not isinstance(loss, Tensor))
        return total + _number(torch.stack(on_device).double().sum()) if on_device else total

    def _advance_on(self, index: Tensor, gather: Callable[[Tensor], Tensor], in_a_row: bool) -> Any:
        with in_turn():
            if in_a_row and self._replayed is not None:
                return self._replay(self._replayed, (index,))
            return self._advance(Call((index,), {}, gather))

    @one_thread_at_a_time
    def _advance(self, call: Call) -> Any:
        """Takes a step in the fastest way there is. Returns the loss, as numbers or as tensors on the device."""
        key = self._key(call)
        step = self._find(key)
        if step is not None:
            return self._replay(step, call.tensors)
        loss, gradients = self._run(call, key)
        self._update_if_wanted(_computed_by(self._pyro, loss, gradients))
        return loss

    def _replay(self, step: RecordedStep, inputs: Sequence[Tensor]) -> Any:
        if self._before_update is None:
            return step(*inputs)
        computed = _computed_again(step, inputs)
        self._update_if_wanted(computed)
        return unflatten(computed.losses, step.treespec)

    def _update_if_wanted(self, computed: Computed) -> None:
        losses = [torch.as_tensor(each) for each in computed.losses]
        if self._before_update is None or self._before_update(losses, computed.gradients):
            computed.update()

    def _gradients(self, call: Call) -> Computed:
        """The first half of a step, for a caller that decides on the update. It must be the only thread with Pyro."""
        key = self._key(call)
        step = self._find(key)
        if step is not None:
            return _computed_again(step, call.tensors)
        return _computed_by(self._pyro, *self._run(call, key))

    def _gradients_on(self, index: Tensor, gather: Callable[[Tensor], Tensor], in_a_row: bool) -> Computed:
        """The same as ``_gradients`` of ``gather(index)``, where gathering is part of what is recorded.

        Args:
            index: Which datapoints, ``[batch_size]``.
            gather: Makes of it what the programs are called with.
            in_a_row: Promises that the last step was on an index of this shape with the same ``gather``, and that only
                values of tensors and settings of the optimizer have changed since. Then nothing is compared.
        """
        if in_a_row and self._replayed is not None:
            return _computed_again(self._replayed, (index,))
        return self._gradients(Call((index,), {}, gather))

    @gradients_enabled()
    def _prepare(self, call: Call) -> float:
        """Records, tests and compiles the step for calls of this kind, without taking one.

        The programs run three times; the caller keeps generators and what the programs write to.

        Returns:
            About how many seconds Inductor would save at each step; 0 if the step cannot be recorded.
        """
        self._as_pyro(call)  # parameters may be created by the first run
        key = self._key(call)
        if key is None:
            return 0.0
        self._record(key, call)
        if key not in self._steps:
            return 0.0
        self._test(self._steps[key], call)
        return self._steps[key].seconds_saved if key in self._steps else 0.0

    def _key(self, call: Call) -> Any | None:
        """Equal for calls that one recorded step will do for; None if no recorded step will."""
        self._replayed = None
        if not self._replays or handlers_are_active() or self._pyro.is_watched():
            return None
        signature = call.signature()
        return None if signature is None else (signature, self._pyro.state())

    def _find(self, key: Any | None) -> RecordedStep | None:
        """The recorded step for calls with this key, if it can be replayed as it is."""
        step = None if key is None else self._steps.get(key)
        if step is None or not step.is_tested:
            return None
        if step.follows_store and not step.is_of(dict(pyro.get_param_store().named_parameters())):
            return None
        self._previous, self._replayed = key, step
        return step

    @gradients_enabled()
    def _run(self, call: Call, key: Any | None) -> _LossAndGradients:
        """Runs the programs, and records them or tests their recording if that is due."""
        if key is None:
            return self._as_pyro(call)
        step = self._steps.get(key)
        if step is not None:
            self._previous = key
            return self._look_again(step, call) if step.is_tested else self._test(step, call)
        if (key == self._previous or self._visits[key] >= _OFTEN) and len(self._steps) < _MOST:
            return self._record(key, call)
        result = self._as_pyro(call)
        self._count((key[0], self._pyro.state()))
        return result

    def _as_pyro(self, call: Call) -> _LossAndGradients:
        result = self._pyro.run(*call.arguments())
        if self._pyro.not_stepped and not self._has_warned_of_names:
            self._has_warned_of_names = True
            module = self._pyro.not_stepped[0].partition("$$$")[0]
            warn(
                f"pyro.module({module!r}, ...) was called with a module that is not trained: Pyro's store has the "
                "parameters of another one of this name. Call pyro.clear_param_store() before you make a new model, or "
                "give its modules other names"
            )
        return result

    def _record(self, key: Any, call: Call) -> _LossAndGradients:
        """Runs the programs and records them."""
        loss: Any = None
        gradients: dict[Tensor, Tensor] = {}

        def losses_and_gradients(*tensors: Tensor) -> list[Tensor]:
            nonlocal loss, gradients
            loss, gradients = self._pyro.run(*call.arguments(tensors))
            return _flat(loss, gradients)

        generators = get_generators(call.device)
        try:
            graph = record(losses_and_gradients, *call.tensors)
        except Exception as error:
            set_generators(generators, call.device)
            result = self._as_pyro(call)  # if the programs have an error, this raises it
            self._give_up(error)
            return result
        self._steps[key] = RecordedStep(
            graph, flatten(loss)[1], self._pyro.parameters, list(gradients), self.optim, self._compile == "auto"
        )
        return loss, gradients

    def _test(self, step: RecordedStep, call: Call) -> _LossAndGradients:
        """Runs the programs and compares with their recording, which is then compiled if that is asked for."""
        rehearsed = step.rehearse(*call.tensors)
        loss, gradients = self._pyro.run(*call.arguments())
        if not step.agrees(rehearsed, _flat(loss, gradients)):
            self._give_up(ValueError("recorded once, they give other results than when they are run again"))
            return loss, gradients
        step.is_tested = True
        if self._bfloat16 and not step.use_bfloat16():
            warn("precision is 'bfloat16', but this CPU has no instructions for it; float32 is used")
        if self._compile is True:
            try:
                step.compile(*call.tensors)
            except Exception as error:
                warn(f"the step cannot be compiled, and is replayed as it was recorded ({why(error)})")
        return loss, gradients

    def _look_again(self, step: RecordedStep, call: Call) -> _LossAndGradients:
        """Runs the programs, since Pyro's store has other parameters than when the step was recorded."""
        result = self._as_pyro(call)
        if step.is_of(self._pyro.parameters):
            step.follows_store = False  # they belong to a module, whatever the store has
        else:
            self._steps.clear()
            self._visits.clear()
        return result

    def _count(self, key: Any) -> None:
        self._previous = key
        self._warn_of_what_changes(key)
        self._visits[key] += 1
        if len(self._visits) == _MANY and not self._steps:
            warn(
                f"SVI was called in {_MANY} different ways (shapes, or values of arguments), and ran as in Pyro; "
                "make arguments that change at every step tensors"
            )
        if len(self._visits) > _MANY:
            del self._visits[next(iter(self._visits))]

    def _warn_of_what_changes(self, key: Any) -> None:
        """Warns once if a number, or what the programs see, changes at every step: then no step is like one before."""
        (signature, numbers), seen = split_numbers(key[0]), key[1]
        different = self._different[signature]
        if len(different) == _DIFFERENT:
            return
        different.add((numbers, seen))
        if len(different) == _DIFFERENT:
            if len({numbers for numbers, _ in different}) > _DIFFERENT // 2:
                what = f"a number among the arguments of SVI ({', '.join(map(repr, numbers))} now)"
            else:
                what = "an attribute or a variable that the programs see"
            warn(
                f"{what} changes at every step, so that no recorded step can be used again; steps run as in Pyro. Make "
                "it a tensor: an argument, torch.tensor(beta), or one that is changed by fill_"
            )

    def _give_up(self, error: Exception) -> None:
        self._replays = False
        self._steps.clear()
        warn(f"the programs cannot be recorded, and run as they are ({why(error)})")


_LossAndGradients = tuple[Any, dict[Tensor, Tensor]]


def _flat(loss: Any, gradients: dict[Tensor, Tensor]) -> list[Tensor]:
    """What a graph of the step returns."""
    return [*map(torch.as_tensor, leaves_of(loss)), *gradients.values()]


def _computed_by(step: PyroStep, loss: Any, gradients: dict[Tensor, Tensor]) -> Computed:
    return Computed(leaves_of(loss), list(gradients.values()), partial(step.update, gradients))


def _computed_again(step: RecordedStep, inputs: Sequence[Tensor]) -> Computed:
    losses, gradients = step.gradients(*inputs)
    return Computed(losses, gradients, partial(step.update, gradients))


def _number(loss: Any) -> Any:
    if not isinstance(loss, Tensor):
        return loss  # Pyro has seen it
    number = loss.item()
    if math.isnan(number):
        warn("Encountered NaN: loss")
    return number

"""Pyro's SVI without its Python: a step is recorded once, as operations on tensors, and then replayed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from pyro.optim import PyroOptim
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

from pyro_vae.checks import check_choice
from pyro_vae.data import Batches
from pyro_vae.infer.optimizers import as_pyro_optim
from pyro_vae.infer.pyro_step import BeforeUpdate, PyroStep
from pyro_vae.infer.recorded_step import RecordedStep
from pyro_vae.infer.recording.call import Call, split_numbers
from pyro_vae.infer.recording.record import record, why
from pyro_vae.infer.reparameterized import goes_through_draws
from pyro_vae.programs.batch_arguments import BatchArguments
from pyro_vae.system.grad_mode import gradients_enabled
from pyro_vae.system.memory import keep_freed_memory
from pyro_vae.system.randomness import get_generators, set_generators
from pyro_vae.system.threads import in_turn, one_thread_at_a_time
from pyro_vae.system.warning import warn

__all__ = ["SVI"]

_OFTEN = 30  # steps, not in a row, before one is recorded, which takes as long as a hundred
_MOST = 32  # recorded steps that are kept
_DIFFERENT = 20  # ways to call it, by numbers alone
_MANY = 1000  # kinds of calls that are told apart


class SVI(pyro.infer.SVI):
    """Stochastic variational inference, as ``pyro.infer.SVI``: the same losses, gradients and updates, sooner.

    Pyro spends more time on effect handlers, validation and its parameter store than on arithmetic. Here the first
    step on inputs of some shape runs as it does in Pyro, and makes parameters that are created lazily; the second is
    recorded while it runs, backward pass included; the third runs as in Pyro again, to see that the recording gives the
    same loss and the same gradients; further ones replay the recording. The random numbers are those of torch's
    generators: with the same seed a run is the same as Pyro's, but for rounding.

    That works for programs of static structure, whatever they are made of. If a program decides by the values of its
    inputs, or draws numbers that are not torch's, a warning says so once, and all steps run as in Pyro. So do steps on
    shapes that come rarely, like a smaller last batch. What Python decides (``if``, an attribute that is a number) is
    decided when the step is recorded, and anew when an argument that is no tensor changes, or ``training``,
    ``requires_grad`` or another attribute of the modules called. Let what changes at every step be a tensor. Steps that
    are replayed do not validate: look at all data once (``vae.check(x)``); a loss that is NaN warns, as in Pyro.

    Pyro's handlers and its validation belong to the whole process: steps in several threads wait for each other, and
    for the functions of ``pyro_vae.evidence``. Whatever else runs Pyro programs has to be in the same thread.

    Args:
        model: The model.
        guide: The guide.
        optim: An optimizer of ``pyro.optim``, or one of ``torch.optim`` over the parameters. Adam and AdamW are stepped
            by one kernel for all parameters.
        loss: An ELBO of Pyro, or a function of model, guide and their arguments.
        loss_and_grads: As in Pyro.
        compile: False runs every step as in Pyro. ``"graph"`` replays the operations as they were recorded. True has
            Inductor make machine code of them, which takes seconds (on two cores about ten the first time, and a C++
            compiler). ``"auto"`` begins with ``"graph"``, and turns to Inductor as soon as that would have paid for
            itself in the steps done, if it proves to be faster.
        precision: ``"bfloat16"`` does matrix products and convolutions of replayed steps in bfloat16, all else in
            float32. Where the CPU has no instructions for it, a warning says so, and float32 stays.
        before_update: Called at each step with the losses (mostly one) and the gradients, which it may change in place;
            if it returns False, the parameters are not updated. It can clip, look for NaN, or add up over processes.

    Raises:
        TypeError: If ``optim`` is no optimizer.
        ValueError: If ``compile`` or ``precision`` is none of these.
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
        before_update: BeforeUpdate | None = None,
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
            self._before_update,
            through_draws=goes_through_draws(loss),
        )
        self._has_warned_of_names = False
        self._replays = self._compile is not False
        self._steps: dict[Any, RecordedStep] = {}
        self._visits: Counter[Any] = Counter()  # by kind of call, where there is no recorded step
        self._different: defaultdict[Any, set[Any]] = defaultdict(set)  # numbers, and what programs saw, by all else
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
        """The same as :meth:`step`, but leaves the loss on the device, as a tensor, and does not wait for it."""
        return tree_map(torch.as_tensor, self._advance(Call(args, kwargs)))

    def update_on(self, index: Tensor, gather: Callable[[Tensor], Tensor], *, in_a_row: bool = False) -> Any:
        """The same as ``update(gather(index))``, where gathering is part of what is recorded (``Batches.gather``).

        Args:
            index: Which datapoints, ``[batch_size]``.
            gather: Makes of it what the programs are called with.
            in_a_row: Promises that since the last step, which was on an index of this shape with the same ``gather``,
                nothing has changed but the values of tensors, and settings of the optimizer: one need not look.
        """
        return tree_map(torch.as_tensor, self._advance_on(index, gather, in_a_row))

    def seconds_saved(self) -> float:
        """About how much time Inductor would save at a step of the kind that was recorded last; 0 if none was."""
        return next((step.seconds_saved for step in reversed(self._steps.values())), 0.0)

    def epoch(self, batches: Batches | Iterable[Any]) -> float:
        """Takes a step on each batch.

        Args:
            batches: ``data.Batches``, of which gathering and transforming are part of what is replayed. Or a
                ``DataLoader`` or another collection of batches, on the device of the programs, each a tensor, a tuple
                that begins with what the programs take, or a dictionary of their keywords.

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
            losses += [self._advance(Call(*arguments.of(batch))) for batch in batches]
        else:
            raise TypeError(f"batches is of type {type(batches).__name__}; expected data.Batches or a DataLoader")
        losses = tree_leaves(losses)  # some are tuples
        on_device = [loss for loss in losses if isinstance(loss, Tensor)]
        total = sum(loss for loss in losses if not isinstance(loss, Tensor))
        return total + _number(torch.stack(on_device).double().sum()) if on_device else total

    def _advance_on(self, index: Tensor, gather: Callable[[Tensor], Tensor], in_a_row: bool) -> Any:
        with in_turn():
            if in_a_row and self._replayed is not None:
                return self._replayed(index)
            return self._advance(Call((index,), {}, gather))

    @one_thread_at_a_time
    def _advance(self, call: Call) -> Any:
        """A step in the quickest way there is. Returns the loss: numbers, or tensors that need not be there yet."""
        self._replayed = None
        signature = call.signature() if self._replays and not _PYRO_STACK and not self._pyro.is_watched() else None
        if signature is None:
            return self._as_pyro(call)
        key = signature, self._pyro.state()
        step = self._steps.get(key)
        if step is None:
            if (key == self._previous or self._visits[key] >= _OFTEN) and len(self._steps) < _MOST:
                return self._record(key, call)
            loss = self._as_pyro(call)
            self._count((signature, self._pyro.state()))
            return loss
        self._previous = key
        if not step.is_tested:
            return self._test(step, call)
        if step.follows_store and not step.is_of(dict(pyro.get_param_store().named_parameters())):
            return self._look_again(step, call)
        self._replayed = step
        return step(*call.tensors)

    @gradients_enabled()
    def _as_pyro(self, call: Call) -> Any:
        loss = self._pyro.run(*call.arguments())
        if self._pyro.not_stepped and not self._has_warned_of_names:
            self._has_warned_of_names = True
            module = self._pyro.not_stepped[0].partition("$$$")[0]
            warn(
                f"pyro.module({module!r}, ...) was called with a module that is not trained: Pyro's store has the "
                "parameters of another one of this name. Call pyro.clear_param_store() before you make a new model, or "
                "give its modules other names"
            )
        return self._pyro.update(loss)

    @gradients_enabled()
    def _record(self, key: Any, call: Call) -> Any:
        """A step that is recorded while it runs."""
        loss: Any = None

        def losses_and_gradients(*tensors: Tensor) -> list[Tensor]:
            nonlocal loss
            loss = self._pyro.run(*call.arguments(tensors))
            return [*map(torch.as_tensor, tree_leaves(loss)), *self._pyro.gradients().values()]

        generators = get_generators(call.device)
        try:
            graph = record(losses_and_gradients, *call.tensors)
        except Exception as error:
            set_generators(generators, call.device)
            loss = self._as_pyro(call)  # which raises what is wrong with the programs, if something is
            self._give_up(error)
            return loss
        leaves, form = list(self._pyro.gradients()), tree_structure(loss)
        loss = self._pyro.update(loss)
        later = self._compile == "auto"
        self._steps[key] = RecordedStep(
            graph, form, self._pyro.parameters, leaves, self.optim, later, self._before_update
        )
        return loss

    @gradients_enabled()
    def _test(self, step: RecordedStep, call: Call) -> Any:
        """A step as in Pyro, to compare with its recording; then the recording is made quick."""
        rehearsed = step.rehearse(*call.tensors)
        loss = self._pyro.run(*call.arguments())
        expected = [*map(torch.as_tensor, tree_leaves(loss)), *self._pyro.gradients().values()]
        agrees = step.agrees(rehearsed, expected)
        loss = self._pyro.update(loss)
        if not agrees:
            self._give_up(ValueError("recorded once, they give other results than when they are run again"))
            return loss
        step.is_tested = True
        if self._bfloat16 and not step.use_bfloat16():
            warn("precision is 'bfloat16', but this CPU has no instructions for it; float32 is used")
        if self._compile is True:
            try:
                step.compile(*call.tensors)
            except Exception as error:
                warn(f"the step cannot be compiled, and is replayed as it was recorded ({why(error)})")
        return loss

    def _look_again(self, step: RecordedStep, call: Call) -> Any:
        """A step as in Pyro, since Pyro's store has other parameters than when the step was recorded."""
        loss = self._as_pyro(call)
        if step.is_of(self._pyro.parameters):
            step.follows_store = False  # they belong to a module, which does not care
        else:
            self._steps.clear()
            self._visits.clear()
        return loss

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
        """Once, if numbers are others at every step, or what the programs see: then no step is like one before."""
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
                f"{what} is another one at every step, and a recorded step is of no use for the next; steps run as in "
                "Pyro. Let it be a tensor: an argument, torch.tensor(beta), or one that is changed by fill_"
            )

    def _give_up(self, error: Exception) -> None:
        self._replays = False
        self._steps.clear()
        warn(f"the programs cannot be recorded, and run as they are ({why(error)})")


def _number(loss: Any) -> Any:
    if not isinstance(loss, Tensor):
        return loss  # Pyro has seen it
    number = loss.item()
    if math.isnan(number):
        warn("Encountered NaN: loss")
    return number

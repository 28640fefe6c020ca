"""The law of the tests of SVI: two runs from the same parameters, seed and data, one by Pyro, agree at every step."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import pyro
import pytest
import torch
from programs_for_svi import Program
from torch import Tensor, nn
from torch.testing import assert_close

from pyro_vae import SVI

PYRO = "Pyro's own"
LR = 1e-3

close = partial(assert_close, rtol=1e-9, atol=1e-11)


class Now(NamedTuple):
    """What a user has at hand between steps."""

    i: int  #: The number of the step that comes next.
    module: nn.Module
    optim: Any


class Run(NamedTuple):
    losses: list[float]
    states: list[dict[str, Tensor]]  #: All parameters, unconstrained, and buffers after each step.
    generator: Tensor  #: The state of torch's generator at the end.
    statements: list[int]  #: How many sample statements were executed in each step.


def sgd(_: Program) -> pyro.optim.PyroOptim:
    """With it the parameters tell gradients, which Adam would rescale."""
    return pyro.optim.SGD({"lr": LR})


class ByHand:
    """Pyro's gradients and an optimizer of torch, in a loop as users write it."""

    def __init__(self, model, guide, optim, loss):
        self.model, self.guide, self.optim, self.loss = model, guide, optim, loss

    def step(self, *args, **kwargs):
        loss = self.loss.loss_and_grads(self.model, self.guide, *args, **kwargs)
        self.optim.step()
        self.optim.zero_grad(set_to_none=False)
        return loss


def build_svi(model, guide, optim, loss, mode, **options):
    if mode is PYRO:
        kind = pyro.infer.SVI if isinstance(optim, pyro.optim.PyroOptim) else ByHand
        return kind(model, guide, optim, loss)
    return SVI(model, guide, optim, loss, compile=mode, **options)


def run(build, mode, optim=sgd, loss=None, before=None, **options) -> Run:
    """Runs a program from the beginning; ``before`` is called before each step."""
    begin_anew()
    program = build()
    optim = optim(program)
    svi = build_svi(program.model, program.guide, optim, loss() if loss else program.loss, mode, **options)
    result = Run([], [], torch.tensor(()), [])
    for i, (args, kwargs) in enumerate(program.calls):
        if before is not None:
            before(Now(i, program.module, optim))
        with Statements() as statements:
            result.losses.append(svi.step(*args, **kwargs))
        result.statements.append(statements.number)
        result.states.append(state(program.module))
    return result._replace(generator=torch.get_rng_state())


def begin_anew() -> None:
    pyro.clear_param_store()
    torch.manual_seed(0)


def state(module: nn.Module) -> dict[str, Tensor]:
    tensors = {**module.state_dict(), **dict(pyro.get_param_store().named_parameters())}
    return {name: value.detach().clone() for name, value in tensors.items()}


class Statements:
    """Counts the sample statements that are executed: none, where a recorded step is replayed."""

    def __enter__(self):
        self.number, self.patch = 0, pytest.MonkeyPatch()
        apply = pyro.primitives.apply_stack

        def counted(message):
            self.number += 1
            apply(message)

        self.patch.setattr(pyro.primitives, "apply_stack", counted)
        return self

    def __exit__(self, *_):
        self.patch.undo()


def assert_same(ours: Run, pyros: Run, close=close) -> None:
    close(ours.losses, pyros.losses)
    for mine, theirs in zip(ours.states, pyros.states, strict=True):
        close(mine, theirs)
    assert torch.equal(ours.generator, pyros.generator)


def check(build, mode, recorded=True, replayed=True, **options) -> Run:
    """The law. Returns our run.

    The programs can be ``recorded``, without a warning, and then the last step is ``replayed``, without the programs.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error" if recorded else "ignore", message=".*cannot be (recorded|compiled)")
        ours = run(build, mode, **options)
    pyros = run(build, PYRO, **options)
    assert_same(ours, pyros)
    assert not all(torch.equal(value, ours.states[-1][name]) for name, value in ours.states[0].items())
    if mode and recorded and replayed:
        assert ours.statements[-1] == 0
    return ours

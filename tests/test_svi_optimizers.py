"""SVI with every optimizer and schedule of Pyro and of torch steps as Pyro does."""

from __future__ import annotations

import copy
from functools import partial

import pyro
import pytest
import torch
from as_in_pyro import PYRO, check, close, run
from programs_for_svi import STEPS, Program, call, tutorial
from pyro import distributions as dist
from pyro.distributions import constraints
from torch import nn
from torch.testing import assert_close

from pyro_vae.infer.optimizers import FusedAdam, as_pyro_optim, step_by

pytestmark = pytest.mark.usefixtures("float64")


def per_parameter(name: str) -> dict:
    return {"lr": 0.02 if "decoder" in name else 0.001}


def clip_per_parameter(_: str, name: str) -> dict:
    return {"clip_norm": 0.5} if "weight" in name else {"clip_value": 0.1}


PYRO_OPTIMIZERS = {
    "Adam": lambda: pyro.optim.Adam({"lr": 0.01}),
    "Adam, clipped": lambda: pyro.optim.Adam({"lr": 0.01}, {"clip_norm": 1.0}),
    "Adam, fused": lambda: pyro.optim.Adam({"lr": 0.01, "fused": True}),
    "AdamW": lambda: pyro.optim.AdamW({"lr": 0.01, "weight_decay": 0.1}),
    "AdagradRMSProp": lambda: pyro.optim.AdagradRMSProp({"eta": 0.1}),
    "ClippedAdam per parameter": lambda: pyro.optim.ClippedAdam(
        lambda name: {"lr": 0.02 if "decoder" in name else 0.001, "clip_norm": 0.5 if "weight" in name else 10.0}
    ),
    "ClippedAdam": lambda: pyro.optim.ClippedAdam({"lr": 0.01, "clip_norm": 0.5, "lrd": 0.9}),
    "SGD": lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
    "per parameter": lambda: pyro.optim.Adam(per_parameter),
    "clipped per parameter": lambda: pyro.optim.SGD({"lr": 0.01}, clip_per_parameter),
}


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("optim", PYRO_OPTIMIZERS)
def test_every_optimizer_of_pyro(optim, mode):
    check(tutorial, mode, optim=lambda _: PYRO_OPTIMIZERS[optim]())


TORCH_OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, lr=0.01),
    "Adam, fused": partial(torch.optim.Adam, lr=0.01, fused=True),
    "Adam, one by one": partial(torch.optim.Adam, lr=0.01, foreach=False),
    "AdamW": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1, amsgrad=True),
    "SGD": partial(torch.optim.SGD, lr=1e-3, momentum=0.9),
    "RMSprop": partial(torch.optim.RMSprop, lr=1e-3),
    "Adam, betas of tensors": partial(
        torch.optim.Adam, lr=0.01, betas=(torch.tensor(0.8), torch.tensor(0.99)), foreach=False
    ),
    "learning rate of a tensor": lambda parameters: torch.optim.Adam(parameters, lr=torch.tensor(0.01), foreach=False),
}


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("optim", TORCH_OPTIMIZERS)
def test_every_optimizer_of_torch(optim, mode):
    check(tutorial, mode, optim=lambda program: TORCH_OPTIMIZERS[optim](program.module.parameters()))


def test_parameters_that_only_the_optimizer_of_torch_knows():
    """Gradients reach whatever the loss depends on, whether a statement of Pyro declares it or not."""

    def build():
        linear = nn.Linear(3, 3)

        def model(x):
            scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(linear(z), scale).to_event(1), obs=x)

        def guide(_):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(3)), 0.5).to_event(1))

        return Program(model, guide, [call(torch.randn(4, 3)) for _ in range(STEPS)], linear)

    check(build, "graph", optim=lambda program: torch.optim.Adam(program.module.parameters(), lr=0.01))


def groups(program: Program) -> torch.optim.Optimizer:
    first = {"params": program.module.decoder.parameters(), "lr": 0.02}
    return torch.optim.Adam([first, {"params": program.module.encoder.parameters(), "weight_decay": 0.1}], lr=0.001)


def test_groups_of_parameters():
    check(tutorial, "graph", optim=groups)


PYRO_SCHEDULERS = {
    "ExponentialLR": lambda: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.01}, "gamma": 0.5}
    ),
    "OneCycleLR": lambda: pyro.optim.OneCycleLR(
        {
            "optimizer": torch.optim.SGD,
            "optim_args": {"lr": 0.01},
            "max_lr": 0.1,
            "total_steps": 10,
            "cycle_momentum": False,
        }
    ),
}


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("optim", PYRO_SCHEDULERS)
def test_schedules_of_pyro(optim, mode):
    def each_epoch(now):
        if now.i and now.i % 2 == 0:
            now.optim.step()

    check(tutorial, mode, optim=lambda _: PYRO_SCHEDULERS[optim](), before=each_epoch)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("fused", [False, True])
def test_schedules_of_torch(fused, mode):
    schedules = []

    def rate_of_each_step(now):
        if now.i == 0:
            schedules.append(torch.optim.lr_scheduler.LinearLR(now.optim, 1.0, 0.1, 4))
        else:
            schedules[-1].step()

    def adam(program):
        return torch.optim.Adam(program.module.parameters(), lr=0.02, fused=fused)

    check(tutorial, mode, optim=adam, before=rate_of_each_step)


def test_a_rate_that_is_set_by_hand():
    def set_rates(now):
        for optim in now.optim.optim_objs.values():
            optim.param_groups[0]["lr"] = 0.1 / (now.i + 1)

    check(tutorial, "graph", optim=lambda _: pyro.optim.Adam({"lr": 0.01}), before=set_rates)


@pytest.mark.parametrize("mode", ["graph", False])
def test_the_state_of_an_optimizer_of_pyro_is_saved_and_set(mode, tmp_path):
    """In the middle of a run, the state after step 1 is set: Pyro takes it up for parameters it has not seen."""

    def go_on(now):
        if now.i == 2:
            now.optim.save(tmp_path / "optim")
        if now.i == 4:
            now.optim.load(tmp_path / "optim")
            now.optim.optim_objs.clear()

    check(tutorial, mode, optim=lambda _: pyro.optim.Adam({"lr": 0.01}), before=go_on)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("fused", [False, True])
def test_the_state_of_an_optimizer_of_torch_is_saved_and_loaded(fused, mode):
    saved = []

    def go_on(now):
        if now.i == 2:
            saved.append(copy.deepcopy(now.optim.state_dict()))
        if now.i == 4:
            now.optim.load_state_dict(saved.pop())

    def adam(program):
        return torch.optim.Adam(program.module.parameters(), lr=0.02, fused=fused)

    check(tutorial, mode, optim=adam, before=go_on)


def test_a_saved_state_is_that_of_pyro():
    """The state after a run, for whatever goes on from it: names, shapes, steps, moments."""
    states = []
    for mode in ("graph", PYRO):
        adam = pyro.optim.Adam({"lr": 0.01})
        run(tutorial, mode, optim=lambda _, adam=adam: adam)
        states.append({name: one["state"][0] for name, one in adam.get_state().items()})
    close(*states)
    assert float(next(iter(states[0].values()))["step"]) == STEPS


def subnormal(tensor):
    return (tensor != 0) & (tensor.abs() < torch.finfo(tensor.dtype).tiny)


@pytest.mark.parametrize(("dtype", "steps"), [(torch.float32, 1500), (torch.float64, 200)])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_moments_do_not_become_subnormal_where_gradients_stay_zero_and_parameters_are_those_of_torch(
    kind, dtype, steps
):
    """A CPU computes many times more slowly with subnormal numbers."""
    ours, theirs = ([torch.linspace(-1, 1, 8, dtype=dtype), torch.zeros(2, dtype=dtype)] for _ in range(2))
    optimizers = [kind(parameters, lr=0.01, fused=True) for parameters in (ours, theirs)]
    first = [torch.randn_like(each) for each in ours]
    for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
        step_by(as_pyro_optim(optimizer), parameters, first)
    fused = FusedAdam(as_pyro_optim(optimizers[0]), ours)
    ever_subnormal = False
    for i in range(steps):
        gradients = [torch.randn_like(each) for each in ours]
        gradients[0][:3] = 0
        gradients[1].zero_()
        if i == 700:  # as in a resumed run
            fused = FusedAdam(as_pyro_optim(optimizers[0]), ours)
        fused(gradients)
        step_by(as_pyro_optim(optimizers[1]), theirs, gradients)
        assert not any(subnormal(optimizers[0].state[each]["exp_avg"]).any() for each in ours)
        ever_subnormal |= any(bool(subnormal(optimizers[1].state[each]["exp_avg"]).any()) for each in theirs)
    assert ever_subnormal == (dtype == torch.float32)
    assert all(map(torch.equal, ours, theirs))
    assert float(optimizers[0].state[ours[0]]["step"]) == steps + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("amsgrad", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_the_first_state_is_that_of_torch(kind, amsgrad, dtype):
    """Also where memory is not in the order of the dimensions, and for parameters without gradients."""
    ours, theirs = ([torch.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3).T, torch.zeros(2, dtype=dtype)] for _ in "ab")
    optimizers = [kind([*each, torch.ones(1)], amsgrad=amsgrad, fused=True) for each in (ours, theirs)]
    gradients = [torch.randn_like(each) for each in ours]
    FusedAdam(as_pyro_optim(optimizers[0]), ours)(gradients)
    step_by(as_pyro_optim(optimizers[1]), theirs, gradients)
    assert all(map(torch.equal, ours, theirs))
    state, expected = (each.state_dict()["state"] for each in optimizers)
    assert_close(state, expected, rtol=0, atol=0, check_stride=True)


def test_the_first_step_of_an_optimizer_that_is_not_fused_is_its_own():
    for optimizer in (torch.optim.Adam([parameter := torch.ones(1)]), pyro.optim.Adam({"lr": 0.1})):
        with pytest.raises(NotImplementedError):
            FusedAdam(as_pyro_optim(optimizer), [parameter])

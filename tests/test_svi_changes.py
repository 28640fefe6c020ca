"""What a user changes between two steps acts on the next one, as it does in Pyro."""

from __future__ import annotations

import copy
from functools import partial

import pyro
import pytest
import torch
from as_in_pyro import LR, PYRO, assert_same, begin_anew, build_svi, check, close, run, sgd
from conftest import small_vae
from hypothesis import given, settings
from hypothesis import strategies as st
from programs_for_svi import Program, batch_norm, call, direct, images, params, tutorial, vae
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.testing import assert_close

from pyro_vae import SVI

pytestmark = pytest.mark.usefixtures("float64")


@settings(max_examples=6)
@given(sizes=st.lists(st.sampled_from([1, 2, 5]), min_size=4, max_size=9))
def test_batches_of_any_sizes_in_any_order(sizes):
    check(lambda: tutorial(calls=[call(torch.randn(size, 3)) for size in sizes]), "graph", replayed=False)


def switch_mode(now):
    now.module.train(now.i in (0, 1, 2, 6, 7, 8))


def freeze(now):
    now.module.decoder.requires_grad_(now.i not in (3, 4, 5))


def load_weights(now):
    if now.i == 3:
        now.module.load_state_dict({k: 0.5 * v for k, v in now.module.state_dict().items()})


def rebind_data(now):
    if now.i == 3:
        for parameter in now.module.parameters():
            parameter.data = 0.5 * parameter.data


def earlier_gradients(now):
    """Gradients of another loss, which a step adds its own to."""
    if now.i == 4:
        sum(parameter.square().sum() for parameter in now.module.parameters()).backward()


def clear_store(now):
    if now.i == 3:
        pyro.clear_param_store()


def load_store(now, folder):
    if now.i == 2:
        pyro.get_param_store().save(folder / "store")
    if now.i == 4:
        pyro.get_param_store().load(folder / "store")


def swap_part(now):
    if now.i == 5:
        now.module.likelihood = small_vae().likelihood


def set_a_number(now):
    """How most schedules of beta are written."""
    now.module.beta = 0.1 if now.i < 4 else 0.5


def set_a_tensor(now):
    if now.i == 4:
        now.module.beta = torch.linspace(0.1, 0.6, 6)


def fill_a_tensor(now):
    now.module.beta.fill_(0.1 + 0.1 * now.i)


def freeze_offset(now):
    now.module.offset.requires_grad_(now.i not in (3, 4, 5))


def ten():
    vae, x = small_vae(), images(9)
    return Program(vae.model, vae.guide, [call(x)] * 10, vae)


def nine():
    return tutorial(nn.Dropout(0.3), steps=9)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize(
    ("program", "before"),
    [
        (nine, switch_mode),
        (partial(batch_norm, 9), switch_mode),
        (nine, freeze),
        (ten, swap_part),
        (direct, set_a_number),
        (direct, set_a_tensor),
        (lambda: direct(torch.ones(6)), set_a_tensor),
        (lambda: direct(torch.tensor(1.0)), fill_a_tensor),
        (partial(direct, steps=18), switch_mode),
        (direct, freeze_offset),
        (vae, load_weights),
        (vae, rebind_data),
        (nine, earlier_gradients),
        (partial(params, 9), clear_store),
        (nine, clear_store),
        (vae, clear_store),
        (partial(params, 9), load_store),
    ],
)
def test_changes_between_steps_are_seen(program, before, mode, tmp_path, monkeypatch):
    if before is load_store:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # Pyro 1.9.1 does not ask for it, as 1.9.2 does
        before = partial(load_store, folder=tmp_path)
    check(program, mode, before=before, optim=lambda _: pyro.optim.SGD({"lr": LR, "momentum": 0.9}))


@pytest.mark.parametrize("mode", ["graph", False])
def test_attributes_of_svi_can_be_set(mode):
    """A model, a guide, an optimizer and a loss that take the place of those it was made with."""

    def train(mode):
        begin_anew()
        one, other, x = small_vae(), small_vae(), images(5)
        svi = build_svi(one.model, one.guide, sgd(None), Trace_ELBO(), mode)
        losses = [svi.step(x) for _ in range(5)]
        svi.optim = pyro.optim.Adam({"lr": 0.01})
        losses += [svi.step(x) for _ in range(5)]
        svi.model, svi.guide = other.model, other.guide
        losses += [svi.step(x) for _ in range(5)]
        svi.loss_and_grads = TraceMeanField_ELBO().loss_and_grads
        losses += [svi.step(x) for _ in range(5)]
        return losses, one.state_dict(), other.state_dict()

    close(train(mode), train(PYRO))


def test_a_frozen_part_stays_as_it_is():
    vae, x = small_vae(), images(5)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(), compile="graph")
    for _ in range(4):
        svi.step(x)
    vae.likelihood.requires_grad_(False)
    before = copy.deepcopy(vae.state_dict())
    for _ in range(4):
        svi.step(x)
    assert all(torch.equal(before[name], value) == ("likelihood" in name) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("mode", ["graph", False])
def test_hooks_of_parameters_are_called_at_every_step(mode):
    seen: list[Tensor] = []

    def hook(now):
        if now.i == 2:
            now.module.decoder[0].weight.register_hook(lambda grad: 0.1 * grad)
            now.module.encoder[0].weight.register_hook(lambda grad: seen.append(grad.clone()))

    ours = run(nine, mode, before=hook)
    our_gradients = seen[:]
    seen.clear()
    assert_same(ours, run(nine, PYRO, before=hook))
    assert len(our_gradients) == len(seen) == 7
    close(our_gradients, seen)


def test_hooks_on_unconstrained_parameters_as_in_pyros_tutorials():
    """Pyro's examples look at gradients by hooks set after one step."""
    norms: list[float] = []

    def hook(now):
        if now.i == 1:
            for value in pyro.get_param_store().values():
                value.unconstrained().register_hook(lambda grad: norms.append(grad.norm().item()))

    ours = run(params, "graph", before=hook)
    our_norms = sorted(norms)
    norms.clear()
    assert_same(ours, run(params, PYRO, before=hook))
    close(our_norms, sorted(norms))


@pytest.mark.parametrize("mode", ["graph", False])
def test_handlers_around_a_step(mode):
    """Effect handlers act on a step as on Pyro's, also on one recorded without them."""

    def train(mode):
        begin_anew()
        program = tutorial(calls=[call(torch.randn(6, 3))])
        (x,), _ = program.calls[0]
        svi = build_svi(program.model, program.guide, sgd(program), Trace_ELBO(), mode)
        losses = [svi.step(x) for _ in range(4)]
        for _ in range(4):
            with poutine.scale(scale=0.5):
                losses.append(svi.step(x))
        losses.append(svi.step(x))
        return losses, program.module.state_dict()

    close(train(mode), train(PYRO))


@pytest.mark.parametrize("first", [True, False])
def test_autocast_around_a_step(first):
    """Torch's own mixed precision, for some of the steps; the losses of both runs are those of the same operations."""

    def train(mode):
        begin_anew()
        vae, x = small_vae().float(), images(20).float()
        svi = build_svi(vae.model, vae.guide, sgd(None), Trace_ELBO(), mode)
        losses = []
        for autocast in [first] * 5 + [not first] * 5:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                losses.append(svi.step(x))
        return losses

    assert_close(train("graph"), train(PYRO), rtol=1e-5, atol=0)


def test_a_trace_around_a_step_sees_its_parameters():
    vae, x = small_vae(), images(5)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(), compile="graph")
    for _ in range(5):
        with poutine.trace(param_only=True) as traced:
            svi.step(x)
        assert set(traced.trace.nodes) == {name for name, _ in vae.named_parameters()}

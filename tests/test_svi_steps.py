"""The methods of SVI, several SVIs in one process, wrong arguments, and memory."""

from __future__ import annotations

import gc
import weakref
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from as_in_pyro import PYRO, begin_anew, build_svi, check, close, run, sgd, state
from conftest import small_vae
from programs_for_svi import STEPS, call, heads, images, semi_supervised, tutorial, vae
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.testing import assert_close

from pyro_vae import SVI, data

pytestmark = pytest.mark.usefixtures("float64")


# --- Several in one process ---------------------------------------------------------------------------------------------


def test_two_of_the_same_names_in_turn():
    def train(mode, together):
        begin_anew()
        vaes, x = [small_vae(), small_vae(), small_vae()][: 2 if together else None], images(5)
        svis = [build_svi(vae.model, vae.guide, sgd(None), Trace_ELBO(), mode) for vae in vaes]
        return [[svi.step(x) for svi in svis] for _ in range(STEPS)], [vae.state_dict() for vae in vaes]

    for together in (True, False):
        close(train("graph", together), train(PYRO, together))


def test_parameters_without_a_gradient_for_a_while_keep_their_moments():
    """As long as a parameter has had a gradient once, Pyro steps it by zero: Adam goes on with its moments."""
    check(heads, "graph", optim=lambda _: pyro.optim.Adam({"lr": 0.01}))
    words = ["left", "right", "left", "left", "right", "right"] + ["left"] * 4
    one = heads()
    in_turn = [call(*args, head=word) for (args, _), word in zip(one.calls, words, strict=False)]
    check(lambda: heads()._replace(calls=in_turn), "graph", optim=lambda _: pyro.optim.Adam({"lr": 0.01}))


def test_losses_that_share_an_optimizer():
    """Semi-supervised: three pairs of programs, one optimizer, whose moments all of them advance."""

    def train(mode):
        begin_anew()
        vae = semi_supervised().module
        labels, optim = torch.arange(6) % 3, pyro.optim.Adam({"lr": 0.01})
        x = vae.sample(labels)
        enumerate_ = TraceEnum_ELBO(max_plate_nesting=1)
        unlabelled = build_svi(vae.model, vae.guide, optim, enumerate_, mode)
        labelled = build_svi(vae.model, vae.guide, optim, Trace_ELBO(), mode)
        classified = build_svi(vae.label_model, vae.label_guide, optim, Trace_ELBO(), mode)
        losses = [(unlabelled.step(x), labelled.step(x, labels), classified.step(x, labels)) for _ in range(4)]
        return losses, vae.state_dict()

    close(train("graph"), train(PYRO))


# --- Other ways to step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["graph", False])
def test_update_is_step_without_the_wait(mode):
    build = partial(run, vae, mode)
    steps = build()
    begin_anew()
    program = vae()
    svi = build_svi(program.model, program.guide, sgd(program), program.loss, mode)
    losses = [svi.update(*args) for args, _ in program.calls]
    assert all(isinstance(loss, Tensor) and loss.shape == () and not loss.requires_grad for loss in losses)
    assert [loss.item() for loss in losses] == steps.losses
    assert_close(state(program.module), steps.states[-1], rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("transform", [None, data.binarize.dynamic])
def test_epoch_is_a_loop_of_steps(transform, mode):
    def train(mode):
        begin_anew()
        vae = small_vae()
        svi = build_svi(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), TraceMeanField_ELBO(), mode)
        batches = data.Batches(torch.rand(23, 1, 4, 4).round() if transform is None else torch.rand(23, 1, 4, 4), 5)
        batches.transform = transform
        if mode is PYRO:
            losses = [sum(svi.step(x) for x in batches) for _ in range(4)]
        else:
            losses = [svi.epoch(batches) for _ in range(4)]
            assert all(isinstance(loss, float) for loss in losses)
        return losses, vae.state_dict(), torch.get_rng_state()

    close(train(mode), train(PYRO))


@pytest.mark.parametrize("mode", ["graph", False])
def test_evaluate_loss_is_that_of_pyro_and_changes_nothing(mode):
    def train(mode):
        begin_anew()
        program = tutorial(nn.BatchNorm1d(5))
        svi = build_svi(program.model, program.guide, sgd(program), Trace_ELBO(), mode)
        losses = []
        for args, _ in program.calls:
            before = {name: value.clone() for name, value in program.module.named_parameters()}
            losses += [svi.evaluate_loss(*args)]
            assert all(torch.equal(before[name], value) for name, value in program.module.named_parameters())
            losses += [svi.step(*args)]
        return losses, state(program.module)

    close(train(mode), train(PYRO))


# --- What is wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": "fast"}, "compile is 'fast'"),
        ({"compile": None}, "compile is None"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"optim": 3}, "optim is"),
        ({"optim": torch.optim.Adam}, "optim is"),
    ],
)
def test_wrong_arguments(options, message):
    vae = small_vae()
    right = {"optim": pyro.optim.Adam({"lr": 0.1}), "loss": Trace_ELBO()}
    with pytest.raises((TypeError, ValueError), match=message) as error:
        SVI(vae.model, vae.guide, **{**right, **options})
    assert "expected" in str(error.value)
    assert "\n" not in str(error.value)


def too_wide(x):
    return torch.cat([x, x], -1)


def not_a_number(x):
    return x * float("nan")


def outside(x):
    return x + 0.5


@pytest.mark.parametrize(
    ("spoil", "first"),
    [(spoil, True) for spoil in (too_wide, not_a_number, outside, Tensor.float, lambda x: x[:0], Tensor.numpy)]
    + [(spoil, False) for spoil in (too_wide, Tensor.float, lambda x: x[:0], Tensor.numpy)],
)
def test_wrong_data_are_refused_as_in_pyro(spoil, first):
    """At the first call or after others, and nothing is broken by it."""
    errors, ends = [], []
    for mode in ("graph", PYRO):
        begin_anew()
        vae, x = small_vae(), images(5)
        svi = build_svi(vae.model, vae.guide, sgd(None), Trace_ELBO(), mode)
        for _ in range(0 if first else 5):
            svi.step(x)
        before = state(vae)
        with pytest.raises((TypeError, ValueError)) as error:
            svi.step(spoil(x))
        errors.append((error.type, str(error.value)))
        close(state(vae), before)
        torch.manual_seed(1)
        ends.append([svi.step(x) for _ in range(3)])
    assert errors[0] == errors[1]
    close(*ends)


@pytest.mark.parametrize("mode", ["graph", False])
def test_nan_in_the_loss_warns_as_in_pyro(mode):
    program = tutorial()
    svi = SVI(program.model, program.guide, sgd(program), Trace_ELBO(), compile=mode)
    for args, _ in program.calls:
        svi.step(*args)
    next(program.module.decoder.parameters()).data.fill_(float("nan"))
    with pyro.validation_enabled(False), pytest.warns(UserWarning, match="Encountered NaN: loss"):
        assert np.isnan(svi.step(*program.calls[0][0]))


# --- Memory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["graph", False])
def test_nothing_keeps_a_vae_alive(mode):
    vae, x = small_vae(), images(5)
    alive = weakref.ref(vae)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), compile=mode)
    for _ in range(5):
        svi.step(x)
    del vae, svi
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("mode", ["graph", False])
def test_memory_does_not_grow_with_steps(mode):
    program = vae()
    svi = SVI(program.model, program.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), compile=mode)

    def tensors_after(steps):
        for _ in range(steps):
            svi.step(*program.calls[0][0])
        gc.collect()
        return sum(issubclass(type(one), Tensor) for one in gc.get_objects())

    assert tensors_after(5) == tensors_after(100)

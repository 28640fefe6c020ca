"""``pyro_vae.SVI`` is Pyro's ``SVI``: the same losses, parameters and random numbers, step by step, only sooner.

Every law is the same: two runs that begin with the same parameters, seed and data, one of them Pyro's own.
"""

from __future__ import annotations

from functools import partial

import pyro
import pytest
import torch
from as_in_pyro import PYRO, Run, assert_same, check, close, run
from programs_for_svi import PROGRAMS, Program, arrays, call, dropout, moving_average, score_function, tutorial, vae
from pyro import distributions as dist
from pyro import poutine
from pyro.contrib.gp.kernels import RBF
from pyro.infer import (
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    Trace_MMD,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
)
from torch.testing import assert_close

from pyro_vae.infer.recording import bfloat16

pytestmark = pytest.mark.usefixtures("float64")


def test_tensors_that_are_replaced_in_every_run():
    check(moving_average, "graph", recorded=False)


def test_one_tensor_for_two_arguments_and_then_two():
    def build():
        def model(x, y):
            loc = pyro.param("loc", torch.tensor(0.5))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(loc, 1.0), obs=x)
                pyro.sample("y", dist.Normal(2 * loc, 1.0), obs=y)

        one, *others = torch.randn(9, 4)
        return Program(model, lambda *_: None, [call(one, one)] * 4 + [call(one, other) for other in others])

    check(build, "graph")


def test_arguments_that_cannot_be_compared_run_as_in_pyro():
    check(arrays, "graph", replayed=False)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_runs_as_in_pyro(program, mode):
    """All but plates that are loops, whose numbers Pyro takes from tensors, are recorded."""
    check(PROGRAMS[program], mode, recorded=program != "sequential plate")


def by_hand(model, guide, *args, **kwargs):
    """A loss as in Pyro's tutorial on custom ELBOs."""
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return guide_trace.log_prob_sum() - model_trace.log_prob_sum()


LOSSES = {
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "several particles": partial(Trace_ELBO, num_particles=2),
    "vectorized particles": partial(Trace_ELBO, num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    "vectorized, nesting guessed": partial(TraceMeanField_ELBO, num_particles=3, vectorize_particles=True),
    "RenyiELBO": partial(RenyiELBO, alpha=0, num_particles=3),
    "RenyiELBO, vectorized": partial(
        RenyiELBO, alpha=0.5, num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
    "TraceGraph_ELBO": TraceGraph_ELBO,
    "TraceTailAdaptive_ELBO": partial(
        TraceTailAdaptive_ELBO, num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
    "Trace_MMD": lambda: Trace_MMD(RBF(2, lengthscale=torch.tensor(1.0)), num_particles=3, max_plate_nesting=1),
    "JitTrace_ELBO": partial(JitTrace_ELBO, ignore_jit_warnings=True),
    "JitTraceEnum_ELBO": partial(JitTraceEnum_ELBO, max_plate_nesting=1, ignore_jit_warnings=True),
    "a function": lambda: by_hand,
}
JIT = {name: LOSSES[name] for name in LOSSES if name.startswith("Jit")}
JIT["JitTraceGraph_ELBO"] = partial(JitTraceGraph_ELBO, ignore_jit_warnings=True)
JIT["JitTraceMeanField_ELBO"] = partial(JitTraceMeanField_ELBO, ignore_jit_warnings=True)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_as_in_pyro(loss, mode):
    check(vae, mode, loss=LOSSES[loss])


@pytest.mark.parametrize("loss", JIT)
def test_losses_that_trace_on_uneven_batches(loss):
    """Not all can be recorded, as what torch.jit traces anew at every step; but nothing is broken by the attempt."""

    def build():
        return tutorial(calls=[call(torch.randn(size, 3)) for size in (6, 6, 6, 4, 6, 1, 4)])

    check(
        build,
        "graph",
        recorded=loss not in ("JitTraceGraph_ELBO", "JitTraceMeanField_ELBO"),
        replayed=False,
        loss=JIT[loss],
    )
    assert torch.jit.trace(torch.sin, torch.ones(2))(torch.zeros(2)).sum() == 0


@pytest.mark.parametrize("mode", ["graph", False])
def test_losses_of_latents_without_reparameterization(mode):
    check(score_function, mode, loss=TraceGraph_ELBO)
    decaying = partial(score_function, {"use_decaying_avg_baseline": True, "baseline_beta": 0.8})
    check(decaying, mode, recorded=False, loss=TraceGraph_ELBO)  # Python keeps the average: both ways are right


@pytest.mark.parametrize("mode", ["graph", False])
def test_a_loss_of_two_numbers(mode):
    """Wake-sleep gives a pair, and has gradients of a kind of its own."""
    loss = partial(ReweightedWakeSleep, num_particles=2, vectorize_particles=False)
    check(vae, mode, recorded=False, loss=loss)


@pytest.mark.parametrize(("program", "loss"), [("VAE", TraceMeanField_ELBO), ("dropout", Trace_ELBO)])
def test_compiled_runs_as_in_pyro_and_twice_the_same(program, loss):
    ours = check(PROGRAMS[program], True, loss=loss)
    again = run(PROGRAMS[program], True, loss=loss)
    assert again.losses == ours.losses
    assert_close(again.states, ours.states, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["graph", False])
def test_the_same_seed_gives_the_same_bits(mode):
    first, second = (run(dropout, mode) for _ in range(2))
    assert first.losses == second.losses
    assert_close(first.states, second.states, rtol=0, atol=0)


def float32(mode, **options) -> Run:
    torch.set_default_dtype(torch.float32)
    with pyro.validation_enabled(False):
        return run(partial(vae, images_per_step=100), mode, **options)


def test_float32_without_validation():
    """To rounding: float32 has 7 digits, and a loss sums thousands of terms."""
    assert_same(float32("graph"), float32(PYRO), close=partial(assert_close, rtol=1e-5, atol=1e-5))


def test_bfloat16_is_close_and_parameters_are_float32(monkeypatch):
    """Products of numbers with 3 digits; the loss is a sum of many, whose errors mostly cancel."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no instructions for bfloat16")
    monkeypatch.setattr(bfloat16, "LARGE", 0)
    ours, pyros = float32("graph", precision="bfloat16"), float32(PYRO)
    assert ours.losses != pyros.losses
    assert_close(ours.losses, pyros.losses, rtol=2e-3, atol=0)
    assert {value.dtype for value in ours.states[-1].values()} == {torch.float32}
    assert torch.equal(ours.generator, pyros.generator)


def test_auto_runs_as_in_pyro():
    check(tutorial, "auto")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["graph", True, False])
@pytest.mark.parametrize("build", [vae, dropout])
def test_on_a_gpu(build, mode):
    """As on the CPU, to the rounding of sums in another order."""

    def on_gpu():
        program = build()
        program.module.cuda()
        return program._replace(calls=[call(*(x.cuda() for x in args)) for args, _ in program.calls])

    ours, pyros = run(on_gpu, mode), run(on_gpu, PYRO)
    close(ours.losses, pyros.losses, rtol=1e-8)
    for mine, theirs in zip(ours.states, pyros.states, strict=True):
        close(mine, theirs, rtol=1e-8)

"""Ctrl-C is an ``Interrupted`` in every function, wherever it comes; before there is a result, without one."""

from __future__ import annotations

import inspect

import pytest
import torch
from conftest import small_vae
from every_estimator import OPTIONS, call

from pyro_vae import Interrupted, evidence, fit
from pyro_vae.evidence.runner import blocks
from pyro_vae.infer.gradient_noise import gradient_variance
from pyro_vae.infer.losses import ELBO

X = (torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
WITHOUT_PROGRAMS = {"compare", "defensive", "laplace", "widened"}


def ctrl_c(*args, **kwargs):  # noqa: ARG001
    raise KeyboardInterrupt


CALLS = {
    **{name: lambda name=name, **changes: call(name, **changes) for name in OPTIONS},
    "compare_with_nuts": lambda **changes: evidence.compare_with_nuts(
        **{"model": small_vae().model, "guide": small_vae().guide, "x": X, **changes}
    ),
}


def test_every_function_of_evidence_that_runs_programs_is_here():
    functions = {name for name in evidence.__all__ if inspect.isfunction(getattr(evidence, name))}
    assert functions - WITHOUT_PROGRAMS == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("where", ["model", "guide"])
def test_ctrl_c_in_the_programs(name, where):
    with pytest.raises(Interrupted) as interrupt:
        CALLS[name](**{where: ctrl_c})
    assert interrupt.value.result is None


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("where", ["check_rows", "checked_trace_pair", "fitting_chunk_size"])
def test_ctrl_c_before_the_first_block(name, where, monkeypatch):
    monkeypatch.setattr(blocks, where, ctrl_c)
    with pytest.raises(Interrupted) as interrupt:
        CALLS[name]()
    assert interrupt.value.result is None
    assert str(interrupt.value)


def test_ctrl_c_before_the_first_step(monkeypatch):
    vae = small_vae()
    monkeypatch.setattr(type(vae), "check", ctrl_c)
    with pytest.raises(Interrupted, match=r"^fit was interrupted before it had a result$"):
        fit(vae, X, epochs=1, progress=False)


def test_ctrl_c_in_gradient_variance():
    with pytest.raises(Interrupted):
        gradient_variance(ctrl_c, small_vae().guide, X, {"elbo": ELBO(1)}, num_draws=3)

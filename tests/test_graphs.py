"""Compiled functions: the same numbers as without, or a warning and the function itself."""

from __future__ import annotations

import random
import warnings

import pyro
import pytest
import torch
from linear_gaussian import exact_log_evidence, random_instance
from pyro import distributions as dist
from torch.testing import assert_close

from pyro_vae import evidence
from pyro_vae.evidence.estimators import importance_sampling
from pyro_vae.infer.recording import compiled as compiled_module
from pyro_vae.infer.recording.compiled import compiled


def test_the_same_draws_and_numbers(by_inductor):
    def function(x):
        return (x + torch.randn(5, 3)).sin().sum(-1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = compiled(function, torch.zeros(5, 3), torch.ones(5, 3))
    assert by_inductor == [fast]
    x = torch.rand(5, 3)
    torch.manual_seed(3)
    expected = [function(x) for _ in range(2)]
    torch.manual_seed(3)
    for one in expected:
        assert_close(fast(x), one)


def test_generators_are_left_as_they_were():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    compiled(lambda x: x + torch.randn(2), torch.zeros(2), torch.ones(2))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.exp() if x.sum() > 0 else -x,  # depends on values
        lambda x: x * random.random(),  # noise that is not torch's
        lambda x: torch.from_numpy(x.numpy() + 1.0),  # leaves torch
    ],
)
def test_what_cannot_be_recorded_runs_as_it_is(function):
    with pytest.warns(UserWarning, match="cannot be compiled, and run as they are"):
        assert compiled(function, torch.zeros(2), torch.ones(2)) is function


def test_without_a_c_compiler_the_operations_run_as_recorded(monkeypatch):
    def fails(graph, *inputs):  # noqa: ARG001
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compiled_module, "inductor", fails)
    function = lambda x: x + torch.randn(2)  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = compiled(function, torch.zeros(2), torch.ones(2))
    assert isinstance(fast, torch.fx.GraphModule)
    torch.manual_seed(0)
    expected = function(torch.ones(2))
    torch.manual_seed(0)
    assert torch.equal(fast(torch.ones(2)), expected)


def test_importance_compiled_is_exact_and_the_same(by_inductor):
    vae, x = random_instance(seed=1, latent=2, event=3, n=22, shift=0.3, widen=1.3)
    vae, x = vae.float(), x.float()
    options = {"num_samples": 500, "chunk_size": 250}
    results = []
    for compile_ in (False, True):
        torch.manual_seed(5)
        results.append(evidence.importance(vae.model, vae.guide, x, compile=compile_, **options))
    assert by_inductor
    assert_close(results[0].log_prob, results[1].log_prob, rtol=1e-5, atol=1e-4)
    error = (results[1].log_prob - exact_log_evidence(vae.likelihood, x)).abs()
    assert (error <= 6 * results[1].std_error).all()


def test_importance_of_programs_that_cannot_be_compiled():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z if z.sum() > 0 else z.clone(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, 1.0))

    x = torch.randn(5)
    torch.manual_seed(0)
    expected = evidence.importance(model, guide, x, num_samples=20, compile=False)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="cannot be compiled"):
        result = evidence.importance(model, guide, x, num_samples=20, compile=True)
    assert torch.equal(result.log_prob, expected.log_prob)


@pytest.mark.parametrize(("n", "pays"), [(4, False), (5, True)])
def test_long_runs_are_compiled(monkeypatch, vae, n, pays):
    seen = []
    monkeypatch.setattr(importance_sampling, "WORTH_COMPILING", 4)
    monkeypatch.setattr(importance_sampling, "compiled", lambda function, *_: seen.append(1) or function)
    evidence.importance(vae.model, vae.guide, torch.zeros(n, 1, 4, 4), num_samples=10, chunk_size=10)
    assert bool(seen) is pays


def test_a_wrong_word_for_compile(vae):
    with pytest.raises(ValueError, match="compile is 'always'; expected one of True, False, 'auto'"):
        evidence.importance(vae.model, vae.guide, torch.zeros(3, 1, 4, 4), compile="always")

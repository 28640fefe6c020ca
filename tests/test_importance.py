"""log p(x) by importance sampling against exact answers, and its diagnostics against theory."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_gaussian import exact_log_evidence, random_instance
from pyro import distributions as dist
from scipy.stats import binom
from torch import nn as torch_nn
from torch.testing import assert_close

from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors


@given(seed=st.integers(0, 2**31), latent=st.integers(1, 6), event=st.integers(1, 8))
@settings(max_examples=20)
def test_exact_at_the_exact_posterior(seed, latent, event):
    vae, x = random_instance(seed, latent, event, n=4)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=30)
    exact = exact_log_evidence(vae.likelihood, x)
    assert_close(result.log_prob, exact, rtol=1e-9, atol=1e-9)
    assert_close(result.elbo, exact, rtol=1e-9, atol=1e-9)
    assert (result.std_error < 1e-6).all()
    assert (result.error < 1e-5).all()
    assert_close(result.ess, torch.full_like(exact, 30.0))
    assert (result.pareto_k == 0).all()
    assert "WARNING" not in result.summary()


@given(seed=st.integers(0, 2**31), latent=st.integers(1, 5), event=st.integers(1, 8))
@settings(max_examples=30)
def test_converges_within_its_own_error_bars(seed, latent, event):
    """With q too wide the weights are bounded, so the error is normal: beyond 6 standard errors once in 10^9."""
    vae, x = random_instance(seed, latent, event, n=6, shift=0.3, widen=1.3)
    torch.manual_seed(seed)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=2000)
    exact = exact_log_evidence(vae.likelihood, x)
    error = result.log_prob - exact
    assert (error.abs() <= 6 * result.std_error).all()
    assert (result.std_error < 0.2).all()
    assert abs(result.mean - exact.mean().item()) <= 6 * result.mean_std_error + abs(result.mean_bias)
    assert (result.elbo < exact).all()


def test_the_monte_carlo_part_covers_where_the_weights_are_bounded():
    vae, x = random_instance(seed=11, latent=3, event=5, n=1000, shift=0.3, widen=1.3)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=1000)
    error = (result.log_prob - exact_log_evidence(vae.likelihood, x)).abs()
    low, high = binom.ppf([5e-5, 1 - 5e-5], len(x), 0.05)  # false alarm: 1 in 10^4
    assert low <= (error > 1.96 * result.std_error).sum().item() <= high
    assert (error > result.error).sum().item() <= high
    assert result.settled.all()
    assert result.error.median() <= 4 * error.square().mean().sqrt()


@pytest.mark.parametrize(("widen", "k"), [(0.3, 0.91), (0.5, 0.75), (0.8, 0.36)])
def test_k_hat_of_a_narrow_guide_is_what_theory_says(widen, k):
    """For one latent and q narrower by a factor a, the weights have a Pareto tail with k = 1 - a^2 (to log factors)."""
    vae, x = random_instance(seed=2, latent=1, event=3, n=10, widen=widen)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=20_000)
    assert result.pareto_k.mean().item() == pytest.approx(k, abs=0.12)
    assert ("WARNING" in result.summary()) == bool((~result.settled).double().mean() >= 0.01)


def two_dimensional_vae() -> VAE:
    torch.manual_seed(7)
    decoder, encoder = nn.mlp(2, [16], (1, 4, 4)), nn.mlp((1, 4, 4), [16], 4)
    with torch.no_grad():
        decoder[0].weight.mul_(3)  # a curved posterior, far from normal
        encoder[-1].bias[2:] = 1.0  # with a guide that is wide enough to cover it
    return VAE(priors.StandardNormal(2), likelihoods.Bernoulli(decoder), posteriors.Normal(encoder))


def quadrature(vae: VAE, x: torch.Tensor, half_width: float = 8.0, steps: int = 401) -> torch.Tensor:
    """log p(x) by the trapezoidal rule, of which the error falls exponentially for a density that is analytic."""
    line = torch.linspace(-half_width, half_width, steps, dtype=x.dtype)
    z = torch.cartesian_prod(line, line)
    likelihood = vae.likelihood(z)
    log_joint = vae.prior().log_prob(z) + torch.stack([likelihood.log_prob(row) for row in x])
    return log_joint.logsumexp(1) + 2 * (line[1] - line[0]).log()


@torch.no_grad()
def test_neural_decoder_against_quadrature():
    vae = two_dimensional_vae().double()
    x = vae.sample(12)
    exact = quadrature(vae, x)
    assert_close(quadrature(vae, x, steps=201), exact, rtol=1e-9, atol=1e-9)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=20_000)
    assert (result.pareto_k < 0.7).all()
    assert (result.std_error < 0.05).all()
    assert ((result.log_prob - exact).abs() <= 5 * result.std_error).all()  # false alarm: 7 in 10^6
    assert (result.elbo < exact).all()


def test_error_and_bias_of_the_mean_are_those_of_repetition():
    """Over 500 repetitions: their spread within 20%, six times its own error; their mean within 5 standard errors."""
    vae, x = random_instance(seed=8, latent=2, event=4, n=50, shift=0.3, widen=1.3)
    many = evidence.importance(vae.model, vae.guide, x.repeat(500, 1), num_samples=40)
    means = many.log_prob.reshape(500, 50).mean(1)
    one = evidence.importance(vae.model, vae.guide, x, num_samples=40)
    reported = many.std_error.reshape(500, 50).square().mean(0)
    assert means.std().item() == pytest.approx(reported.sum().sqrt().item() / 50, rel=0.2)
    assert one.mean_std_error == pytest.approx(means.std().item(), rel=0.2)
    bias = means.mean().item() - exact_log_evidence(vae.likelihood, x).mean().item()
    error = means.std().item() / 500**0.5
    assert bias < -5 * error  # there is one,
    assert many.mean_bias == pytest.approx(bias, abs=5 * error, rel=0.1)  # and this is it
    assert one.population_std_error == pytest.approx(one.log_prob.std().item() / 50**0.5)


class _Spy(torch_nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.largest, self.total = network, 0, 0

    def forward(self, z):
        count = z[..., 0].numel()
        self.largest, self.total = max(self.largest, count), self.total + count
        return self.network(z)


@pytest.mark.parametrize("num_samples", [1, 11, 1001])
def test_never_more_at_once_than_asked_for(vae, x, num_samples):
    spy = vae.likelihood.network = _Spy(vae.likelihood.network)

    def progress(blocks):
        spy.total = 0  # what came before were checks
        return blocks

    count = np.int64(num_samples)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=count, chunk_size=20, progress=progress)
    assert spy.largest <= 20
    assert spy.total == num_samples * len(x)
    assert result.log_prob.shape == x.shape[:1]
    assert result.num_samples == num_samples


def test_what_is_left_over_of_the_samples_is_not_drawn_by_a_function_for_more(vae, x, monkeypatch):
    """Compiled programs have one size: 11 samples are two times 4 and 3, of blocks of 3, 3 and 1 datapoints."""
    sizes = []

    def compiled(function, example, other):
        assert len(example) == len(other) == 3

        def fast(block):
            sizes.append(len(block))
            return function(block)

        return fast

    monkeypatch.setattr("pyro_vae.evidence.estimators.importance_sampling.compiled", compiled)
    monkeypatch.setattr("pyro_vae.evidence.estimators.importance_sampling.choose_rows", lambda *_: 3)
    results = []
    for is_compiled in (True, False):
        torch.manual_seed(1)
        options = {"num_samples": 11, "chunk_size": 12, "compile": is_compiled}
        results.append(evidence.importance(vae.model, vae.guide, x, **options))
    assert sizes == [3] * 4
    assert torch.equal(results[0].log_prob, results[1].log_prob)


def test_a_single_sample_claims_nothing(vae, x):
    result = evidence.importance(vae.model, vae.guide, x, num_samples=1)
    assert_close(result.log_prob, result.elbo)
    assert (result.std_error == torch.inf).all()
    assert (result.pareto_k == torch.inf).all()
    assert (result.error == torch.inf).all()
    assert result.mean_error == float("inf")
    assert result.summary().startswith("log p(x) >= ")
    assert "a lower bound, its error is not known" in result.summary()
    assert "+-" not in result.summary()
    assert "WARNING: 1 samples are too few" in result.summary()


def test_float32_and_float64_agree():
    single = two_dimensional_vae()
    x = single.sample(5)
    low = evidence.importance(single.model, single.guide, x, num_samples=20_000)
    double = single.double()
    high = evidence.importance(double.model, double.guide, x.double(), num_samples=20_000)
    assert low.log_prob.dtype == high.log_prob.dtype == torch.float64
    joint = (low.std_error.square() + high.std_error.square()).sqrt()
    assert ((low.log_prob - high.log_prob).abs() < 5 * joint).all()


def test_same_seed_same_result(vae, x):
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(evidence.importance(vae.model, vae.guide, x, num_samples=50))
    assert torch.equal(results[0].log_prob, results[1].log_prob)
    assert torch.equal(results[0].pareto_k, results[1].pareto_k)


def test_progress_wraps_the_blocks(vae):
    seen = []

    def progress(blocks):
        for block in blocks:
            seen.append(len(block))
            yield block

    x = torch.zeros(300, 1, 4, 4)
    evidence.importance(vae.model, vae.guide, x, num_samples=2, chunk_size=100, progress=progress)
    assert sum(seen) == 300
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.nan, "site 'broken' of the model has a log-density that is NaN"),
        (torch.inf, "datapoint 200 has a weight that is NaN or infinite"),
        (-torch.inf, "datapoint 200 has weight zero for all of its 3 samples"),
    ],
)
def test_weights_that_cannot_be_used(value, message):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.sample("broken", dist.Unit(torch.where(x == 9, value, 0.0), validate_args=False), obs=x.new_empty(0))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    x = torch.randn(300)
    assert evidence.importance(model, guide, x, num_samples=3).log_prob.isfinite().all()
    x[200] = 9
    with pytest.raises(ValueError, match=message):
        evidence.importance(model, guide, x, num_samples=3)


def test_a_number_of_samples_that_is_not_positive_is_named(vae, x):
    with pyro.validation_enabled(False), pytest.raises(ValueError, match="num_samples is 0"):
        evidence.importance(vae.model, vae.guide, x, num_samples=0)

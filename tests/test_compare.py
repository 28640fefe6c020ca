"""The difference of two models on the same data: paired, with errors that cover it."""

from __future__ import annotations

import math

import pytest
import torch
from linear_gaussian import exact_log_evidence, random_instance
from scipy.stats import binom

from pyro_vae import evidence
from pyro_vae.evidence.results.evidence import Evidence


def two_models(n):
    """The second one is the first with less noise."""
    first, x = random_instance(seed=4, latent=3, event=5, n=n, shift=1.0, widen=0.7)
    second, _ = random_instance(seed=4, latent=3, event=5, n=1, shift=1.0, widen=0.7)
    second.likelihood.scale *= 0.9
    return first, second, x


def test_the_difference_of_two_models_is_covered():
    first, second, x = two_models(400)
    results = [evidence.estimate(vae.model, vae.guide, x, progress=iter) for vae in (first, second)]
    exact = exact_log_evidence(first.likelihood, x) - exact_log_evidence(second.likelihood, x)
    comparison = evidence.compare(*results)
    outside = (comparison.difference - exact).abs() > comparison.error
    assert outside.sum() <= binom.ppf(1 - 1e-4, 400, 0.05)
    assert comparison.settled.all()
    assert abs(comparison.mean - exact.mean()) <= comparison.mean_error
    assert comparison.mean_error < 0.03
    # Paired: the finite test set matters much less for the difference than for either mean.
    assert comparison.population_std_error == pytest.approx(exact.std().item() / 20, rel=0.1)
    assert comparison.population_std_error < results[0].population_std_error / 3
    assert comparison.population_error > comparison.mean_error
    assert "the first model is better" in str(comparison)
    reverse = evidence.compare(*results[::-1])
    assert reverse.mean == pytest.approx(-comparison.mean)
    assert reverse.mean_error == pytest.approx(comparison.mean_error)
    assert "the second model is better" in str(reverse)
    for words in (repr(comparison), comparison._repr_html_(), str(comparison)):
        assert f"{comparison.mean:.3f}" in words
    comparison.plot()


def test_a_model_is_not_better_than_itself():
    first, _, x = two_models(100)
    results = [evidence.estimate(first.model, first.guide, x, progress=iter) for _ in range(2)]
    comparison = evidence.compare(*results)
    assert abs(comparison.mean) <= comparison.mean_error
    assert "do not tell" in str(comparison)


def fake(log_prob, error, bias=0.0):
    values = torch.as_tensor(log_prob, dtype=torch.float64)
    return Evidence(
        log_prob=values,
        error=torch.as_tensor(error, dtype=torch.float64).expand_as(values).clone(),
        bias=torch.full_like(values, bias),
        std_error=torch.zeros_like(values),
        ess=torch.ones_like(values),
        pareto_k=torch.zeros_like(values),
        log_prob_psis=values,
        elbo=values,
        num_samples=10,
    )


def test_errors_add_up_as_they_should():
    """Biases do not average out, noise does: 4 datapoints with the noise 0.3 and 0.4, and the biases 0.1 and 0.2."""
    comparison = evidence.compare(fake([-1.0] * 4, 0.4, 0.1), fake([-2.0] * 4, 0.6, 0.2))
    assert comparison.mean == pytest.approx(1)
    assert comparison.error.tolist() == pytest.approx([0.3 + 0.5] * 4)
    assert comparison.mean_error == pytest.approx(0.3 + 0.5 / 2)
    varied = evidence.compare(fake([-1.0, -2.0, -1.0, -2.0], 0.4, 0.1), fake([-2.0] * 4, 0.6, 0.2))
    of_the_sample = (1 / 3) ** 0.5 / 2
    assert varied.population_std_error == pytest.approx(of_the_sample)
    assert varied.population_error == pytest.approx(0.3 + 0.5 / 2 + 3.182 * of_the_sample, rel=0.01)
    assert "better on these datapoints" not in str(comparison)


def test_datapoints_with_a_lower_bound_only_are_left_out():
    first = fake([-1.0, -2.0, -3.0], [0.1, math.inf, 0.1])
    second = fake([-1.5, -2.0, -9.0], [0.1, 0.1, math.inf])
    comparison = evidence.compare(first, second)
    assert comparison.settled.tolist() == [True, False, False]
    assert comparison.mean == pytest.approx(0.5)
    assert comparison.population_std_error == math.inf
    assert "2 of 3 datapoints left out" in str(comparison)
    unknown = evidence.compare(fake([-1.0], math.inf), fake([-2.0], 0.1))
    assert math.isnan(unknown.mean)
    assert unknown.mean_error == math.inf
    assert "not known" in str(unknown)
    assert "not known" in unknown._repr_html_()
    assert "not known" not in comparison._repr_html_()


def test_what_cannot_be_compared():
    result = fake([-1.0, -2.0], 0.1)
    with pytest.raises(TypeError, match="first is of type Tensor; expected an Evidence"):
        evidence.compare(result.log_prob, result)
    with pytest.raises(TypeError, match="second is of type float"):
        evidence.compare(result, -3.0)
    with pytest.raises(ValueError, match="first has 2 datapoints and second has 1"):
        evidence.compare(result, fake([-1.0], 0.1))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_few_datapoints_are_no_proof_for_all_the_data(n):
    """Student's interval misses 1 in 20 data sets of any size; the normal one, 3 in 10 of two datapoints."""
    differences = torch.randn(400, n, dtype=torch.float64)
    proofs = sum(
        "on more of their kind" in str(evidence.compare(fake(each, 0.0), fake([0.0] * n, 0.0))) for each in differences
    )
    assert binom.ppf(1e-5, 400, 0.05) <= proofs <= binom.ppf(1 - 1e-5, 400, 0.05)


def test_one_datapoint_and_none():
    one = evidence.compare(fake([-1.0], 0.1), fake([-2.0], 0.1))
    assert "better on these datapoints; on others of their kind it may be the other one" in str(one)
    none = evidence.compare(fake([-1.0], math.inf), fake([-2.0], 0.1))
    for words in (str(one), one._repr_html_(), str(none), none._repr_html_()):
        assert "inf" not in words
        assert "nan" not in words

"""``VAETransformer`` is an estimator of scikit-learn, and its scores are log p(x)."""

from __future__ import annotations

import importlib
import math
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from torch.distributions import MultivariateNormal

from pyro_vae import VAE, likelihoods, nn, posteriors, priors

pytest.importorskip("sklearn", "1.6", reason="pip install 'pyro-vae[sklearn]'")

import joblib
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from pyro_vae.sklearn import VAETransformer

SMALL = {"hidden": (8,), "epochs": 2, "num_samples": 10, "random_state": 0}
MONTE_CARLO = "score_samples is a Monte Carlo estimate: the random numbers of a row depend on the rows before it"
EXPECTED_FAILURES = {
    "check_methods_sample_order_invariance": MONTE_CARLO,
    "check_methods_subset_invariance": MONTE_CARLO,
}


@parametrize_with_checks(
    [VAETransformer(hidden=(8,), epochs=2, num_samples=10)], expected_failed_checks=lambda _: EXPECTED_FAILURES
)
def test_scikit_learn_takes_it_as_an_estimator(estimator, check):
    check(estimator)


def data(n: int = 60, features: int = 3) -> np.ndarray:
    """Correlated real numbers in different units."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 1))
    return 5 + (z + 0.3 * rng.normal(size=(n, features))) * 10.0 ** np.arange(features)


def linear_gaussian(x: torch.Tensor) -> VAE:
    """p(x) is normal, and the posterior is exact at the start."""
    likelihood = likelihoods.Incomplete(likelihoods.Normal(torch.nn.Linear(1, x.shape[1]), 0.5))
    encoder = nn.FillMissing(nn.mlp(x.shape[1], [], 2))
    return VAE(priors.StandardNormal(1), likelihood, posteriors.Normal(encoder))


def exact(vae: VAE) -> MultivariateNormal:
    """p(x) of :func:`linear_gaussian`."""
    network = vae.likelihood.likelihood.network
    weight, bias = network.weight.detach(), network.bias.detach()
    return MultivariateNormal(bias, weight @ weight.T + 0.25 * torch.eye(len(bias), dtype=bias.dtype))


@pytest.fixture(scope="module")
def fitted():
    return VAETransformer(**SMALL).fit(data())


def test_score_samples_is_log_p():
    x = data(20) / [1, 10, 100]
    transformer = VAETransformer(vae=linear_gaussian, epochs=3, random_state=0).fit(x)
    known = exact(transformer.vae_).log_prob(torch.tensor(x)).numpy()
    result = transformer.evidence(x)
    assert (abs(result.log_prob.numpy() - known) <= result.error.numpy()).mean() > 0.8
    assert abs(result.mean - known.mean()) < 2 * result.mean_error
    transformer.set_params(num_samples=50)
    bound = transformer.evidence(x)
    assert bound.samples == "importance samples"
    assert_allclose(transformer.score_samples(x), bound.log_prob)
    assert transformer.score(x) == bound.mean < known.mean() + 3 * bound.mean_std_error


def test_a_missing_value_is_integrated_out():
    x = data(20) / [1, 10, 100]
    x[::2, 1] = math.nan
    transformer = VAETransformer(vae=linear_gaussian, epochs=1, random_state=0).fit(x)
    p = exact(transformer.vae_)
    kept = [0, 2]
    marginal = MultivariateNormal(p.loc[kept], p.covariance_matrix[kept][:, kept])
    known = marginal.log_prob(torch.tensor(x[::2][:, kept])).numpy()
    result = transformer.evidence(x)
    assert (abs(result.log_prob.numpy()[::2] - known) <= result.error.numpy()[::2]).mean() > 0.8


def test_log_p_is_in_the_units_of_the_data(fitted):
    scaled = VAETransformer(**SMALL).fit(1000 * data())
    assert_allclose(scaled.transform(1000 * data()), fitted.transform(data()), atol=1e-4)
    assert_allclose(scaled.score(1000 * data()), fitted.score(data()) - 3 * math.log(1000), atol=0.01)


@pytest.mark.parametrize("posterior", ["normal", "iaf"])
def test_codes_of_a_row_do_not_depend_on_other_rows(posterior):
    transformer = VAETransformer(posterior=posterior, **SMALL).fit(data())
    codes = transformer.transform(data())
    assert codes.shape == (60, 2)
    assert_allclose(transformer.transform(data()), codes)  # the same each time
    if posterior == "normal":  # the other has no mean: its codes are draws
        assert_allclose(transformer.transform(data()[::-1])[::-1], codes, rtol=1e-6)
        assert_allclose(np.concatenate([transformer.transform(row[None]) for row in data()]), codes, rtol=1e-6)
        assert_allclose(codes, transformer.vae_.encode(torch.tensor(data())))


def test_inverse_transform_is_the_mean(fitted):
    x = torch.tensor(data())
    assert_allclose(fitted.inverse_transform(fitted.transform(data())), fitted.vae_.reconstruct(x), rtol=1e-6)
    with pytest.raises(ValueError, match="X has 3 columns; expected 2"):
        fitted.inverse_transform(data())


def test_samples(fitted):
    draws = fitted.sample(200, random_state=0)
    assert draws.shape == (200, 3)
    assert_allclose(fitted.sample(200, random_state=0), draws)
    assert not np.array_equal(fitted.sample(200), draws)
    # 5 standard errors of the mean: once in a million runs, if the fitted means were exact.
    assert (abs(draws.mean(0) - data().mean(0)) < data().std(0)).all()


@pytest.mark.parametrize(
    ("x", "likelihood"),
    [
        (data() > 5, likelihoods.Bernoulli),
        ((data() > 5).astype(float), likelihoods.Bernoulli),
        (np.abs(data()).astype(int), likelihoods.NegativeBinomial),
        (data(), likelihoods.Rescaled),
        (np.where(data() > 5, data(), math.nan), likelihoods.Incomplete),
    ],
    ids=["bool", "0 and 1", "counts", "real", "gaps"],
)
def test_the_likelihood_suits_the_data(x, likelihood):
    transformer = VAETransformer(**SMALL).fit(x)
    assert isinstance(transformer.vae_.likelihood, likelihood)
    assert np.isfinite(transformer.score(x))
    assert transformer.sample(5).shape == (5, 3)


@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow", "laplace"])
def test_other_parts(prior):
    transformer = VAETransformer(3, likelihood="heteroscedastic-normal", posterior="full-normal", prior=prior, **SMALL)
    assert transformer.fit_transform(data()).shape == (60, 3)
    assert np.isfinite(transformer.score(data()))


def test_a_product_of_experts_is_a_posterior_for_gaps():
    x = data()
    x[::3, 1] = np.nan
    transformer = VAETransformer(2, posterior="product-of-experts", **SMALL).fit(x)
    assert isinstance(transformer.vae_.posterior, posteriors.ProductOfExperts)
    nothing = np.full((1, 3), np.nan)
    assert_allclose(transformer.transform(nothing), 0.0, atol=1e-6)  # the mean of the prior


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_computes_in_the_dtype_of_the_data(dtype):
    x = data().astype(dtype)
    transformer = VAETransformer(**SMALL).fit(x)
    assert {parameter.dtype for parameter in transformer.vae_.parameters()} == {torch.tensor(x).dtype}
    outputs = transformer.transform(x), transformer.inverse_transform(transformer.transform(x)), transformer.sample(2)
    assert {output.dtype for output in outputs} == {np.dtype(dtype)}


def test_large_offsets_cost_no_digits():
    x = data()
    near, far = (VAETransformer(**SMALL).fit(each) for each in (x, x + 1e7))
    assert_allclose(far.transform(x + 1e7), near.transform(x), atol=0.2)


def test_data_frames():
    frame = pd.DataFrame(data(), columns=["a", "b", "c"])
    transformer = VAETransformer(**SMALL).set_output(transform="pandas").fit(frame)
    assert list(transformer.feature_names_in_) == ["a", "b", "c"]
    assert transformer.n_features_in_ == 3
    codes = transformer.transform(frame[:5])
    assert list(codes.columns) == list(transformer.get_feature_names_out()) == ["vaetransformer0", "vaetransformer1"]
    assert transformer.inverse_transform(codes).shape == (5, 3)
    with pytest.raises(ValueError, match="feature names should match"):
        transformer.transform(frame[["b", "a", "c"]])


def test_pickled_and_cloned(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert_allclose(again.score_samples(data()), fitted.score_samples(data()))
    unfitted = clone(pickle.loads(pickle.dumps(VAETransformer(**SMALL))))
    assert unfitted.get_params() == VAETransformer(**SMALL).get_params()
    assert_allclose(unfitted.fit(data()).transform(data()), fitted.transform(data()))


def test_random_numbers_are_its_own(fitted):
    before = torch.get_rng_state()
    VAETransformer(**SMALL).fit(data()).score_samples(data()[:5])
    fitted.transform(data())
    fitted.sample(2)
    assert torch.equal(torch.get_rng_state(), before)
    state = np.random.RandomState(0)
    first, second = (VAETransformer(hidden=(8,), epochs=1, random_state=state).fit(data()) for _ in range(2))
    assert not np.array_equal(first.transform(data()), second.transform(data()))


def test_grid_search_chooses_by_log_p_and_so_do_two_processes(processes):
    grid = {"vaetransformer__epochs": [1, 30]}
    searches = []
    for n_jobs in (1, 2):
        pipeline = make_pipeline(StandardScaler(), VAETransformer(hidden=(8,), num_samples=50, random_state=0))
        with joblib.parallel_config("multiprocessing", context=processes):  # joblib's own would import torch first
            searches.append(GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs).fit(data()))
    alone, together = searches
    assert alone.best_params_ == {"vaetransformer__epochs": 30}
    assert_allclose(alone.cv_results_["mean_test_score"], together.cv_results_["mean_test_score"], rtol=1e-5)
    assert alone.best_score_ == max(alone.cv_results_["mean_test_score"])
    assert alone.best_estimator_.transform(data()).shape == (60, 2)


def test_cross_validation_scores_are_those_of_the_folds():
    x, transformer = data(), VAETransformer(**SMALL)
    scores = cross_val_score(transformer, x, cv=2)
    assert_allclose(scores[0], clone(transformer).fit(x[30:]).score(x[:30]))


def test_anomalies_have_a_low_log_p():
    x, labels = load_wine(return_X_y=True)
    usual = labels != 2
    transformer = VAETransformer(hidden=(32,), epochs=60, num_samples=50, random_state=0).fit(x[usual][::2])
    held_out = np.concatenate([x[usual][1::2], x[~usual]])
    is_anomaly = np.arange(len(held_out)) >= usual.sum() // 2
    assert roc_auc_score(is_anomaly, -transformer.score_samples(held_out)) > 0.8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"latent_dim": 0}, ValueError, "latent_dim is 0"),
        ({"hidden": (0,)}, ValueError, "a width in hidden is 0"),
        ({"likelihood": "columns"}, ValueError, "likelihood is 'columns'; expected one of 'auto', 'bernoulli'"),
        ({"posterior": "exact"}, ValueError, "posterior is 'exact'; expected one of 'normal'"),
        ({"prior": "none"}, ValueError, "prior is 'none'; expected one of 'standard-normal'"),
        ({"missing": "maybe"}, ValueError, "missing is 'maybe'; expected one of 'auto', True, False"),
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"batch_size": "all"}, Exception, "batch_size is 'all'"),
        ({"device": "cuda:99"}, ValueError, "device 'cuda:99' does not exist here"),
        ({"likelihood": "bernoulli"}, ValueError, "outside the support of the likelihood"),
        ({"vae": lambda _: torch.nn.Linear(3, 3)}, TypeError, r"vae\(X\) is of type Linear; expected a VAE"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        VAETransformer(**{**SMALL, **options}).fit(data())


def test_gaps_that_the_training_data_did_not_have(fitted):
    x = data()
    x[3, 1] = math.nan
    with pytest.raises(ValueError, match=r"X has missing values.*missing=True"):
        fitted.transform(x)
    transformer = VAETransformer(missing=True, **SMALL).fit(data())
    assert np.isfinite(transformer.transform(x)).all()


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyro_vae.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"pip install 'pyro-vae\[sklearn\]'"):
        importlib.import_module("pyro_vae.sklearn")

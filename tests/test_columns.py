"""The likelihood of tables: each kind of column against independent formulas, quadrature, gaps and units."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_vae import VAE, evidence, fit, likelihoods, load, nn, posteriors, priors
from pyro_vae.distributions import Columnwise
from pyro_vae.likelihoods import columns

KINDS = {
    "real": lambda: columns.Real(5.0, 2.0),
    "positive": lambda: columns.Positive(1.0, 0.5),
    "count": lambda: columns.Count(1.0, 0.7),
    "binary": columns.Binary,
    "categorical": lambda: columns.Categorical(4),
    "ordinal": lambda: columns.Ordinal(5),
}


def made(names, latent=1, hidden=(), dtype=torch.float64):
    """A likelihood of these columns, with weights that matter."""
    kinds = [KINDS[name]() for name in names]
    outputs = sum(kind.num_parameters for kind in kinds)
    return likelihoods.Columns(nn.mlp(latent, hidden, outputs), kinds).to(dtype)


def expected_log_prob(kind, parameters, x):
    """log p(x) of one value by scipy, in the units of the data."""
    p = parameters.detach().double().numpy()
    softplus = lambda a: np.sqrt(np.logaddexp(0, a) ** 2 + torch.finfo(parameters.dtype).eps)  # noqa: E731
    if isinstance(kind, columns.Positive):
        return stats.lognorm(0.5 * (0.01 + softplus(p[1])), scale=math.exp(1 + 0.5 * p[0])).logpdf(x)
    if isinstance(kind, columns.Real):
        return stats.norm(5 + 2 * p[0], 2 * (0.01 + softplus(p[1]))).logpdf(x)
    if isinstance(kind, columns.Count):
        mean, r = math.exp(1 + 0.7 * p[0]), math.exp(p[1])
        return stats.nbinom(r, r / (r + mean)).logpmf(x)
    if isinstance(kind, columns.Binary):
        return stats.bernoulli(1 / (1 + math.exp(-p[0]))).logpmf(x)
    if isinstance(kind, columns.Categorical):
        return p[int(x)] - np.logaddexp.reduce(p)
    first = kind.first.item()
    steps = np.logaddexp(0, kind.raw_steps.detach().double().numpy())
    below = stats.logistic.cdf(np.concatenate([[-np.inf, first], first + steps.cumsum(), [np.inf]]) - p[0])
    return math.log(below[int(x) + 1] - below[int(x)])


@pytest.mark.parametrize("name", KINDS)
def test_the_density_is_scipys_in_the_units_of_the_data(name):
    torch.manual_seed(0)
    kind = KINDS[name]().double()
    for parameters in torch.randn(20, kind.num_parameters, dtype=torch.float64):
        distribution = kind(parameters)
        for x in distribution.sample((5,)).double():
            assert distribution.log_prob(x).item() == pytest.approx(
                expected_log_prob(kind, parameters, x.item()), abs=1e-9
            )


SHARED = {
    "real": lambda: columns.Real(5.0, 2.0, shared=True),
    "positive": lambda: columns.Positive(1.0, 0.5, shared=True),
    "count": lambda: columns.Count(1.0, 0.7, shared=True),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_scale_is_a_parameter_and_not_an_output_of_the_network(name):
    torch.manual_seed(0)
    kind, other = SHARED[name]().double(), KINDS[name]().double()
    assert (kind.num_parameters, other.num_parameters) == (1, 2)
    torch.nn.init.constant_(kind.raw, -0.7)
    loc = torch.randn(20, 1, dtype=torch.float64)
    both = torch.cat([loc, torch.full_like(loc, -0.7)], dim=-1)
    x = kind(loc).sample((5,)).double()
    assert torch.allclose(kind(loc).log_prob(x), other(both).log_prob(x))
    kind(loc).log_prob(x).sum().backward()
    assert kind.raw.grad.abs() > 0


@pytest.mark.parametrize("name", ["binary", "categorical", "ordinal", "count"])
def test_probabilities_sum_to_one(name):
    kind = KINDS[name]().double()
    distribution = kind(torch.randn(7, kind.num_parameters, dtype=torch.float64))
    most = {"binary": 2, "categorical": 4, "ordinal": 5, "count": 3000}[name]
    values = torch.arange(most, dtype=torch.float64)
    total = torch.stack([distribution.log_prob(value) for value in values]).logsumexp(0)
    assert torch.allclose(total, torch.zeros(7, dtype=torch.float64), atol=1e-6)


def test_ordinal_categories_are_equally_probable_in_the_beginning_and_move_with_the_location():
    kind = columns.Ordinal(6)
    assert torch.allclose(kind(torch.zeros(1)).probs, torch.full((6,), 1 / 6), atol=1e-6)
    means = kind(torch.linspace(-5, 5, 9).unsqueeze(-1)).mean
    assert (means.diff() > 0).all()


@pytest.mark.parametrize("location", [-200.0, 200.0])
def test_ordinal_has_finite_values_and_gradients_far_out(location):
    kind = columns.Ordinal(4)
    parameters = torch.tensor([location], requires_grad=True)
    for x in range(4):
        (slope,) = torch.autograd.grad(kind(parameters).log_prob(torch.tensor(float(x))), parameters)
        assert slope.isfinite().all()


def quadrature(vae, x, steps=4001):
    """log p(x) of every row, by the trapezoidal rule over one latent."""
    z = torch.linspace(-9, 9, steps, dtype=torch.float64).unsqueeze(-1)
    log_joint = vae.likelihood(z.unsqueeze(1)).log_prob(x) + vae.prior().log_prob(z).unsqueeze(1)
    return log_joint.logsumexp(0) + math.log(18 / (steps - 1))


@pytest.mark.parametrize(("name", "gaps"), [*((name, 0.3) for name in KINDS), ("all", 0.0), ("all", 0.3)])
def test_log_px_is_that_of_quadrature(name, gaps):
    torch.manual_seed(1)
    names = list(KINDS) if name == "all" else [name, name]
    p = made(names, hidden=(8,), dtype=torch.float32)
    encoder = nn.ColumnFeatures(nn.mlp(sum(kind.num_features + 1 for kind in p.kinds), [8], 2), p.kinds)
    likelihood = likelihoods.Incomplete(p) if gaps else p
    vae = VAE(priors.StandardNormal(1), likelihood, posteriors.Normal(encoder)).double()
    x = vae.sample(8)
    x[torch.rand(x.shape) < gaps] = torch.nan
    result = evidence.estimate(vae.model, vae.guide, x, progress=False)
    truth = quadrature(vae, x)
    assert ((result.log_prob - truth).abs() <= result.error + 1e-3).double().mean() >= 7 / 8
    assert result.settled.all()


def test_standardizing_does_not_change_the_density():
    """A column in thousands and the same column in units differ by the Jacobian, log 1000 for each value."""
    in_units, in_thousands = columns.Real(5000.0, 2000.0).double(), columns.Real(5.0, 2.0).double()
    parameters, x = torch.randn(9, 2, dtype=torch.float64), 5 + 2 * torch.randn(9, dtype=torch.float64)
    difference = in_thousands(parameters).log_prob(x) - in_units(parameters).log_prob(1000 * x)
    assert torch.allclose(difference, torch.full((9,), math.log(1000.0), dtype=torch.float64))


def test_a_gap_adds_nothing_and_has_no_gradient():
    p = likelihoods.Incomplete(made(KINDS, latent=2))
    z = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    x = p(z).sample()
    without = x.clone()
    without[:, 1:] = torch.nan
    alone = p(z).base_dist if hasattr(p(z), "base_dist") else p.likelihood(z).base_dist
    assert torch.allclose(p(z).log_prob(without), alone.log_prob(x)[:, 0])
    (slope,) = torch.autograd.grad(p(z).log_prob(torch.full_like(x, torch.nan)).sum(), z)
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_are_in_the_support_and_particles_broadcast(dtype):
    torch.manual_seed(0)
    p = made(KINDS, latent=2, dtype=dtype)
    z = torch.randn(5, 3, 2, dtype=dtype)
    x = p(z).sample((2,))
    assert x.shape == (2, 5, 3, 6)
    assert x.dtype == dtype
    assert p(z).support.check(x).all()
    together = p(z).log_prob(x[0, 0])
    assert torch.allclose(together[2], p(z[2]).log_prob(x[0, 0]), rtol=1e-5)


def test_moments_are_those_of_draws():
    torch.manual_seed(0)
    names = ["real", "positive", "count", "binary", "ordinal"]
    p = made(names, latent=2)(torch.randn(1, 2, dtype=torch.float64)).base_dist
    draws = p.sample((40_000,))
    error = 5 * (p.variance / 40_000).sqrt()  # 5 columns at 5 standard errors: a false alarm in 300,000 runs
    assert ((draws.mean(0) - p.mean).abs() < error).all()
    assert torch.allclose(draws.var(0), p.variance, rtol=0.15)


def test_the_mean_of_a_category_is_the_most_probable_one():
    p = columns.Categorical(3)(torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]]))
    assert p.mean.tolist() == [1.0, 0.0]


def test_expand_repeats_every_column():
    p = Columnwise(
        [torch.distributions.Normal(torch.zeros(3), 1.0), torch.distributions.Poisson(torch.ones(3))], torch.float32
    )
    assert p.expand((4, 3, 2)).sample().shape == (4, 3, 2)


def test_features_mark_gaps():
    kinds = [KINDS[name]() for name in KINDS]
    x = torch.tensor([[7.0, math.e, 0.0, 1.0, 2.0, 4.0], [torch.nan] * 6])
    seen = nn.ColumnFeatures(torch.nn.Identity(), kinds)(x)
    assert seen[0].tolist() == pytest.approx([1, 0, -1 / 0.7, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1], abs=1e-6)
    assert seen[1].tolist() == [0.0] * 15
    assert nn.ColumnFeatures(torch.nn.Identity(), kinds).num_features == 15


def test_features_can_keep_gaps():
    kinds = [KINDS[name]() for name in KINDS]
    x = torch.tensor([[7.0, torch.nan, 0.0, 1.0, torch.nan, 4.0]])
    features = nn.ColumnFeatures(torch.nn.Identity(), kinds, keep_gaps=True)
    assert features.num_features == 9
    nan = torch.nan
    assert features(x)[0].tolist() == pytest.approx([1, nan, -1 / 0.7, 1, nan, nan, nan, nan, 1], abs=1e-6, nan_ok=True)


BAD = {
    "real": (math.inf, 2),
    "positive": (0.0, 1),
    "count": (2.5, 1),
    "binary": (2.0, 1),
    "categorical": (4.0, 1),
    "ordinal": (-1.0, 1),
}


@pytest.mark.parametrize("name", BAD)
def test_a_value_that_a_column_cannot_have_is_refused_by_its_place(name):
    p = made([name, "real"], dtype=torch.float32)
    encoder = nn.ColumnFeatures(nn.mlp(sum(kind.num_features + 1 for kind in p.kinds), [], 2), p.kinds)
    vae = VAE(priors.StandardNormal(1), p, posteriors.Normal(encoder))
    x = vae.sample(4)
    x[2, 0] = BAD[name][0]
    with pytest.raises(ValueError, match=r"outside the support of the likelihood.*the first is x\[2, 0\] = "):
        vae.check(x)


def test_a_network_of_another_size_is_refused():
    p = likelihoods.Columns(nn.mlp(2, [], 6), [columns.Real(), columns.Categorical(3)])
    with pytest.raises(
        ValueError, match=r"maps z of shape \[1, 2\] to \[1, 6\]; expected \[1, 5\], the parameters of 2 columns"
    ):
        p(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="kinds is empty"):
        likelihoods.Columns(nn.mlp(2, [], 6), [])


def test_a_run_can_be_loaded_again(tmp_path):
    torch.manual_seed(0)
    p = made(KINDS, latent=2, dtype=torch.float32)
    encoder = nn.ColumnFeatures(nn.mlp(sum(kind.num_features + 1 for kind in p.kinds), [8], 4), p.kinds)
    vae = VAE(priors.StandardNormal(2), likelihoods.Incomplete(p), posteriors.Normal(encoder))
    x = vae.sample(20)
    x[torch.rand(x.shape) < 0.2] = torch.nan
    fit(vae, x, epochs=2, batch_size=10, out=tmp_path, progress=False)
    again = load(tmp_path)
    z = torch.randn(3, 2)
    assert torch.equal(again.likelihood(z).log_prob(x[:3]), vae.likelihood(z).log_prob(x[:3]))


@pytest.mark.parametrize("missing", [False, True])
def test_a_rescaled_likelihood_counts_the_jacobian(missing):
    torch.manual_seed(0)
    network, center, scale = (
        torch.nn.Linear(2, 3).double(),
        torch.tensor([1.0, -2.0, 5.0]),
        torch.tensor([0.1, 3.0, 10.0]),
    )
    p = likelihoods.Rescaled(likelihoods.Normal(network, 0.5), center, scale).double()
    z = torch.randn(6, 2, dtype=torch.float64)
    direct = torch.distributions.Normal(center + scale * network(z), 0.5 * scale)
    x = p(z).sample()
    expected = direct.log_prob(x)
    if missing:
        p = likelihoods.Incomplete(p)
        x[:, 1] = torch.nan
        expected[:, 1] = 0
    assert torch.allclose(p(z).log_prob(x), expected.sum(-1))
    assert torch.allclose(p(z).mean, direct.mean)


def test_standardizing_undoes_rescaling():
    center, scale = torch.tensor([1.0, -2.0]), torch.tensor([0.1, 3.0])
    network = nn.Standardize(torch.nn.Identity(), center, scale)
    assert torch.allclose(network(center + scale * torch.tensor([0.5, -1.0])), torch.tensor([0.5, -1.0]))
    assert network(torch.tensor([torch.nan, 1.0])).isnan().tolist() == [True, False]


@pytest.mark.parametrize(("center", "scale"), [(0.0, 0.0), (0.0, [1.0, -1.0]), (float("nan"), 1.0)])
def test_scales_that_cannot_be_are_refused(center, scale):
    with pytest.raises(ValueError, match=r"(center|scale) is .*; expected (positive|finite) numbers"):
        likelihoods.Rescaled(likelihoods.Normal(torch.nn.Linear(2, 2), 1.0), center, scale)

"""Likelihoods: densities sum to one, at extreme parameters too; means, gradients, draws, supports and errors.

That their evidence equals quadrature, and that they broadcast, is in the contract test.
"""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial.legendre import leggauss
from parts import LIKELIHOODS, POSTERIORS
from scipy import stats
from torch import nn as torch_nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from pyro_vae import VAE, distributions, likelihoods, nn, priors

DTYPES = [torch.float32, torch.float64]
dtypes = st.sampled_from(DTYPES)


def pairs(count=2):
    """In the place of a network: the outputs are given, so many for each value."""
    return torch_nn.Unflatten(-1, (-1, count))


def panels(edges):
    """Nodes and weights of a Gauss-Legendre rule on every interval between edges ``[..., edges]``."""
    nodes, weights = (torch.tensor(array) for array in leggauss(20))
    left, width = edges[..., :-1, None], edges.diff(dim=-1).unsqueeze(-1)
    return (left + width * (nodes + 1) / 2).flatten(-2), (width * weights / 2).flatten(-2)


def reals(center, scale):
    """Points ``[points, ...]`` and weights that integrate a bump at the center, ``[...]``."""
    nodes, weights = panels(torch.linspace(-12, 12, 25, dtype=torch.float64))
    shape = (-1, *(1,) * center.ndim)
    return center + scale * nodes.reshape(shape), scale * weights.reshape(shape)


def unit_interval():
    edges = torch.cat([torch.zeros(1), torch.logspace(-5, math.log10(0.5), 25)]).double()
    return (array.unsqueeze(-1) for array in panels(torch.cat([edges, 1 - edges[:-1].flip(0)])))


def integers(n):
    values = torch.arange(n, dtype=torch.float64).unsqueeze(-1)
    return values, torch.ones_like(values)


def levels(n):
    values, weights = integers(n)
    return values / (n - 1), weights


# Every likelihood at parameters from one extreme to the other, with what integrates (or sums) over each value.
LOGITS = [-2e3, -90.0, -17.0, -1.0, -0.1, -1e-3, -1e-9, 0.0, 1e-5, 0.0999, 0.1001, 5.0, 40.0, 1e3]
LOCS = torch.tensor([-1e3, -0.3, 0.0, 7.0, 1e3], dtype=torch.float64)
RAW_SCALES = torch.tensor([-1e4, -8.0, 0.0, 5.0, 1e4], dtype=torch.float64)
LEVELS = torch.cartesian_prod(torch.tensor([-3.0, 0.0, 0.298, 1.0, 4.0]), torch.tensor([-1e4, -6.0, -2.0, 3.0, 1e6]))
COUNTS = torch.cartesian_prod(torch.tensor([-300.0, -5.0, 0.0, 4.0]), torch.tensor([-2.0, 0.0, 5.0, 30.0, 300.0]))
EXTREMES = {
    "Categorical": lambda: (
        likelihoods.Categorical(pairs(4)),
        torch.tensor([0.0, 0.0, 0.0, 0.0, 1e4, -1e4, 3.0, 2.0, -1e9, 1.0, 0.0, -1.0]),
        integers(4),
    ),
    "ContinuousBernoulli": lambda: (
        likelihoods.ContinuousBernoulli(torch_nn.Identity()),
        torch.tensor(LOGITS),
        unit_interval(),
    ),
    "DiscretizedLogistic": lambda: (likelihoods.DiscretizedLogistic(pairs()), LEVELS.flatten(), levels(256)),
    "DiscretizedLogistic of 2": lambda: (likelihoods.DiscretizedLogistic(pairs(), 2), LEVELS.flatten(), levels(2)),
    "Normal": lambda: (likelihoods.Normal(torch_nn.Identity(), 0.3), LOCS, reals(LOCS, 0.3)),
    "HeteroscedasticNormal": lambda: (
        likelihoods.HeteroscedasticNormal(pairs(), floor=0.5),
        torch.stack([LOCS, RAW_SCALES], -1).flatten(),
        reals(LOCS, 0.5 + torch.nn.functional.softplus(RAW_SCALES)),
    ),
    "Poisson": lambda: (
        likelihoods.Poisson(torch_nn.Identity()),
        torch.tensor([-300.0, -20.0, -1.0, 0.0, 3.0, 8.0]),
        integers(5000),
    ),
    "NegativeBinomial": lambda: (
        likelihoods.NegativeBinomial(torch_nn.Identity(), 3.0),
        torch.tensor([-300.0, -5.0, 0.0, 4.0]),
        integers(5000),
    ),
    "HeterogeneousNegativeBinomial": lambda: (
        likelihoods.HeterogeneousNegativeBinomial(pairs()),
        COUNTS.flatten(),
        integers(15_000),
    ),
}


@pytest.fixture(params=EXTREMES)
def extremes(request):
    return EXTREMES[request.param]()


@pytest.mark.parametrize("dtype", DTYPES)
def test_densities_are_one_in_all_and_means_are_theirs(extremes, dtype):
    likelihood, z, (values, weights) = extremes
    p = likelihood.to(dtype)(z.to(dtype)).base_dist
    values = values.to(dtype)
    mass = p.log_prob(values).double().exp() * weights
    # Most of it for the rounding of values where densities are steep.
    tolerance = 3e-5 if dtype == torch.float32 else 1e-11
    assert_close(mass.sum(0), torch.ones_like(mass[0]), rtol=0, atol=tolerance)
    error = (p.mean - (mass * values).sum(0)).abs()
    assert (error <= tolerance * (mass * values.abs()).sum(0) + 1e-40).all()  # a smaller mean is no float32


def test_draws_have_the_mean_and_the_entropy_of_the_density(extremes):
    """Within Bernstein's bound, which a mean exceeds with probability 2 exp(-16): one of 130 once in 30,000 runs."""
    n, log_odds = 20_000, 16
    likelihood, z, (values, weights) = extremes
    p = likelihood.double()(z.double()).base_dist
    draws = p.sample((n,))
    assert p.support.check(draws).all()
    log_p = p.log_prob(values)
    mass = log_p.exp() * weights
    for drawn, terms in ((draws.double(), values), (p.log_prob(draws), log_p.clamp_min(-1e5))):
        mean = (mass * terms).sum(0)
        variance = (mass * (terms - mean) ** 2).sum(0)
        largest = torch.where(mass > 1e-13, (terms - mean).abs(), 0).amax(0)  # of those that n draws may contain
        bound = (2 * variance * log_odds / n) ** 0.5 + 2 / 3 * largest * log_odds / n
        assert ((drawn.mean(0) - mean).abs() <= bound + 1e-9 * (1 + mean.abs())).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients_are_those_of_finite_differences(name):
    likelihood = LIKELIHOODS[name]().double()
    z = torch.randn(4, 2, dtype=torch.float64)
    x = likelihood(z).sample()
    parameters = dict(likelihood.named_parameters())

    def log_prob(z, *values):
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(likelihood, named, (z,)).log_prob(x)

    assert torch.autograd.gradcheck(log_prob, (z.requires_grad_(), *parameters.values()))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_what_is_drawn_can_be_scored_by_a_recorded_graph(name):
    likelihood = LIKELIHOODS[name]()
    z, other = torch.randn(2, 3, 5, 2)
    x = likelihood(z).sample()
    vae = VAE(priors.StandardNormal(2), likelihood, POSTERIORS["Normal"]())
    vae.check(x[0])
    with torch.no_grad(), pyro.validation_enabled(False):
        graph = make_fx(lambda z: likelihood(z).log_prob(x))(z)
        assert_close(graph(other), likelihood(other).log_prob(x))


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "linear normal"])
def test_expanded_distributions_are_the_same(name):
    p = LIKELIHOODS[name]()(torch.randn(1, 2))
    larger = p.expand((4, 5))
    assert larger.batch_shape == (4, 5)
    x = larger.sample((2,))
    assert x.shape == (2, 4, 5, 3)
    assert larger.log_prob(x).shape == (2, 4, 5)
    assert_close(larger.log_prob(x), p.log_prob(x))
    assert_close(larger.mean, p.mean.expand(4, 5, 3))


@pytest.mark.parametrize(
    ("name", "network", "values", "largest"),
    [
        ("ContinuousBernoulli", torch_nn.Identity(), [0.0, 0.5, 1.0], (1e9, 1e9)),
        ("DiscretizedLogistic", pairs(), [0.0, 1 / 255, 1.0], (1e9, 1e9)),
        # Beyond these a rate, or r times the log of a mean, is no float32, and the log-probability minus infinity.
        ("HeterogeneousNegativeBinomial", pairs(), [0.0, 1.0, 1e6], (1e9, 60.0)),
        ("Poisson", torch_nn.Identity(), [0.0, 1.0, 1e6], (80.0, 80.0)),
    ],
)
@given(outputs=st.tuples(*2 * [st.floats(-1e9, 1e9, width=32)]), index=st.integers(0, 2), dtype=dtypes)
def test_log_probabilities_and_gradients_are_finite(name, network, values, largest, outputs, index, dtype):
    outputs = torch.tensor(outputs, dtype=dtype).minimum(torch.tensor(largest, dtype=dtype)).requires_grad_()
    p = getattr(likelihoods, name)(network)(outputs)
    log_p = p.log_prob(torch.tensor(values[index], dtype=dtype))
    assert log_p.isfinite()
    assert torch.autograd.grad(log_p, outputs)[0].isfinite().all()
    pyro.set_rng_seed(0)
    assert p.support.check(p.sample((10,))).all()


# The continuous Bernoulli.


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_the_continuous_bernoulli(dtype):
    """d log p / d logit = x - mean, to all digits at small logits too."""
    logits = torch.tensor(LOGITS, dtype=dtype, requires_grad=True)
    p = distributions.ContinuousBernoulli(logits)
    (gradient,) = torch.autograd.grad(p.log_prob(torch.tensor(0.25, dtype=dtype)).sum(), logits)
    exact = logits.detach().double()
    small = exact.abs() < 1e-2  # there by a series, of which the rest is less than 1e-18
    series = 0.5 + exact / 12 - exact**3 / 720 + exact**5 / 30240
    mean = torch.where(small, series, 0.5 / torch.tanh(exact / 2) + 0.5 - 1 / exact)
    tolerance = max(20 * torch.finfo(dtype).eps, 1e-13)
    assert_close(gradient.double(), 0.25 - mean, rtol=0, atol=tolerance)
    assert_close(p.mean.double(), mean, rtol=0, atol=tolerance)


@pytest.mark.parametrize("logit", [-30.0, -1.0, -1e-2, -7e-6, -5e-6, 0.0, 1e-9, 5e-6, 7e-6, 1e-2, 1.0, 30.0])
def test_draws_of_the_continuous_bernoulli_have_gradients(logit):
    """With the distribution function F, F(x) is uniform, and along a draw dx / dl = -(dF / dl) / p(x)."""
    logits = torch.full((1000,), logit, dtype=torch.float64, requires_grad=True)
    p = distributions.ContinuousBernoulli(logits)
    x = p.rsample()
    (gradient,) = torch.autograd.grad(x.sum(), logits)
    x = x.detach()
    nodes, weights = panels(torch.stack([torch.zeros_like(x), x], -1))
    cdf = (distributions.ContinuousBernoulli(logits.unsqueeze(-1)).log_prob(nodes).exp() * weights).sum(-1)
    (slope,) = torch.autograd.grad(cdf.sum(), logits)
    assert_close(gradient, -slope / p.log_prob(x).exp().detach(), rtol=1e-5, atol=1e-9)
    assert stats.kstest(cdf.detach(), "uniform").pvalue > 1e-6  # false once in a million


# Levels.


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_tails_of_the_discretized_logistic(dtype):
    """Far below the location, log-probabilities fall by 1 / scale from level to level; and it has a mirror image."""
    scale = 2.0 / 255
    p = distributions.DiscretizedLogistic(torch.tensor(30.0, dtype=dtype), torch.tensor(scale, dtype=dtype))
    levels = torch.arange(256, dtype=dtype) / 255
    log_p = p.log_prob(levels)
    assert_close(log_p[1:-1].diff(), torch.full((253,), 0.5, dtype=dtype), rtol=0, atol=1e4 * torch.finfo(dtype).eps)
    mirrored = distributions.DiscretizedLogistic(torch.tensor(-29.0, dtype=dtype), torch.tensor(scale, dtype=dtype))
    assert_close(mirrored.log_prob(levels).flip(0), log_p)


def test_levels_as_they_are_loaded_are_in_the_support():
    k = torch.arange(256)
    support = distributions.DiscretizedLogistic(torch.zeros(()), torch.ones(())).support
    for levels in (k / 255, k.double() / 255, (k / 255).double(), k * (1 / 255), k.float().mul(1 / 255).double()):
        assert support.check(levels).all()
    assert not support.check((k[:-1] + 0.02) / 255).any()
    assert not support.check(torch.tensor([-1 / 255, 256 / 255, math.nan, math.inf])).any()


# Counts.


@given(
    log_mean=st.floats(-15, 14, width=32),
    log_r=st.floats(-7, 14, width=32),
    deviations=st.floats(-4, 4),
    dtype=dtypes,
)
def test_log_probabilities_of_counts_are_those_of_scipy(log_mean, log_r, deviations, dtype):
    """To five digits in float32, up to a million and beyond; where torch's are wrong in the second.

    The mean itself is a float, exp(log_mean) after rounding: what that moves log p by, from its slope, is allowed too.
    """
    mean, r = math.exp(log_mean), math.exp(log_r)
    parameters = torch.tensor([log_mean, log_r], dtype=dtype)
    rtol = 2e-5 if dtype == torch.float32 else 1e-8
    for p, variance, expected in (
        (distributions.Poisson(parameters[0]), mean, lambda x: stats.poisson.logpmf(x, mean)),
        (
            distributions.NegativeBinomial(*parameters),
            mean + mean**2 / r,
            lambda x: stats.nbinom.logpmf(x, r, r / (r + mean)),
        ),
    ):
        count = max(0.0, round(mean + deviations * variance**0.5))
        log_p = p.log_prob(torch.tensor(count, dtype=dtype)).item()
        rounding = 4 * torch.finfo(dtype).eps * mean * abs(deviations) / variance**0.5
        exact = expected(torch.tensor(count, dtype=dtype).item())
        assert abs(log_p - exact) <= rtol * max(1.0, abs(exact)) + rounding


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_negative_binomial_without_dispersion_is_poisson(dtype):
    log_mean, counts = torch.linspace(-5, 12, 30, dtype=dtype), torch.arange(0, 100_000, 1000, dtype=dtype)[:, None]
    poisson = distributions.Poisson(log_mean)
    for log_r in (60.0, 1e3):
        p = distributions.NegativeBinomial(log_mean, torch.tensor(log_r, dtype=dtype))
        assert_close(p.log_prob(counts), poisson.log_prob(counts), rtol=1e-5, atol=1e-4)


def test_draws_of_counts_are_counts():
    for log_mean in (-1e3, 20.0, 50.0, 88.0):
        for log_r in (-1e3, -60.0, 0.0, 60.0, 1e3):
            parameters = torch.tensor([log_mean, log_r])
            for p in (distributions.NegativeBinomial(*parameters), distributions.Poisson(parameters[0])):
                assert p.support.check(p.sample((100,))).all()


# What is shared, and floors.


@pytest.mark.parametrize("dtype", DTYPES)
def test_positive_parameter_starts_at_its_value_and_stays_above_its_floor(dtype):
    for initial in (0.5, 3, torch.tensor([0.01, 1.0, 1e4], dtype=torch.float64)):
        parameter = likelihoods.PositiveParameter(initial, floor=0.002)
        assert parameter().dtype == torch.float32
        parameter = parameter.to(dtype)
        assert_close(parameter(), torch.as_tensor(initial).to(dtype), rtol=1e-5, atol=0)
        with torch.no_grad():
            parameter.raw.fill_(-1e3)
        assert (parameter() == torch.tensor(0.002, dtype=dtype)).all()


def test_a_fixed_scale_is_neither_learned_nor_saved_and_follows_the_module():
    likelihood = likelihoods.Normal(torch_nn.Identity(), 0.1)
    assert not list(likelihood.parameters())
    assert not likelihood.state_dict()
    assert likelihood.double()(torch.zeros(3).double()).log_prob(torch.zeros(3)).dtype == torch.float64


def test_scales_and_dispersions_may_differ_between_values():
    z, scales = torch.zeros(4, 3), torch.tensor([0.1, 1.0, 10.0])
    assert_close(likelihoods.Normal(torch_nn.Identity(), likelihoods.PositiveParameter(scales))(z).stddev[1], scales)
    p = likelihoods.NegativeBinomial(torch_nn.Identity(), likelihoods.PositiveParameter(scales))(z)
    x = torch.tensor([5.0, 5.0, 5.0])
    each = [stats.nbinom.logpmf(5, r, r / (r + 1)) for r in (0.1, 1.0, 10.0)]
    assert p.log_prob(x)[1].item() == pytest.approx(sum(each), rel=1e-5)


def test_a_floor_bounds_the_density_of_a_perfect_fit():
    bound = 3 * (-math.log(0.01) - 0.5 * math.log(2 * math.pi))
    for raw in (0.0, -10.0, -1e6):
        z = torch.tensor([[0.5, raw] * 3])
        log_p = likelihoods.HeteroscedasticNormal(pairs(), floor=0.01)(z).log_prob(torch.full((3,), 0.5))
        assert log_p.item() <= bound + 1e-4


# Errors.


def vae_of(name):
    return VAE(priors.StandardNormal(2), LIKELIHOODS[name](), POSTERIORS["Normal"]())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Categorical", 4, r"lower_bound=0, upper_bound=3\): the first is x\[1, 2\] = 4"),
        ("Categorical", -1, r"the first is x\[1, 2\] = -1"),
        ("ContinuousBernoulli", -0.01, r"lower_bound=0.0, upper_bound=1.0\): the first is x\[1, 2\] = -0.0"),
        ("ContinuousBernoulli", 255.0, r"the first is x\[1, 2\] = 255.0"),
        ("DiscretizedLogistic", 0.5, r"the 256 levels k / 255 from 0 to 1: the first is x\[1, 2\] = 0.5"),
        ("DiscretizedLogistic", 255.0, r"the first is x\[1, 2\] = 255.0"),
        ("Normal", math.inf, r"finite real numbers: the first is x\[1, 2\] = inf"),
        ("HeteroscedasticNormal", -math.inf, r"the first is x\[1, 2\] = -inf"),
        ("Poisson", -1.0, r"counts \(integers of at least 0\): the first is x\[1, 2\] = -1.0"),
        ("Poisson", math.inf, r"the first is x\[1, 2\] = inf"),
        ("NegativeBinomial", 2.5, r"counts \(integers of at least 0\): the first is x\[1, 2\] = 2.5"),
        ("HeterogeneousNegativeBinomial", -3.0, r"the first is x\[1, 2\] = -3.0"),
        *((name, math.nan, "the first is .* = nan") for name in LIKELIHOODS if name != "Categorical"),
    ],
)
def test_data_outside_the_support(name, value, message):
    vae = vae_of(name)
    x = vae.sample(4)
    vae.check(x)
    x[1, 2] = value
    with pytest.raises(ValueError, match=message):
        vae.check(x)


@pytest.mark.parametrize("name", ["DiscretizedLogistic", "HeteroscedasticNormal", "HeterogeneousNegativeBinomial"])
@pytest.mark.parametrize("outputs", [3, 2, (3, 3), (3, 1)])
def test_networks_without_two_numbers_for_each_value(name, outputs):
    likelihood = getattr(likelihoods, name)(nn.mlp(2, [8], outputs))
    with pytest.raises(ValueError, match=rf"network of {name} maps z of shape \[1, 2\] to .*; expected .*, 2 \(lo"):
        VAE(priors.StandardNormal(2), likelihood, POSTERIORS["Normal"]())


def test_logits_without_classes():
    likelihood = likelihoods.Categorical(nn.mlp(2, [8], 3))
    with pytest.raises(
        ValueError, match=r"network of Categorical maps z of shape \[1, 2\] to \[1, 3\]; expected .* classes"
    ):
        VAE(priors.StandardNormal(2), likelihood, POSTERIORS["Normal"]())


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, "learned", None, torch.ones(3)])
def test_numbers_that_are_not_positive(value):
    network = torch_nn.Identity()
    with pytest.raises(ValueError, match="scale is"):
        likelihoods.Normal(network, value)
    with pytest.raises(ValueError, match="inverse_dispersion is"):
        likelihoods.NegativeBinomial(network, value)
    with pytest.raises(ValueError, match="floor is"):
        likelihoods.HeteroscedasticNormal(network, value)
    with pytest.raises(ValueError, match="floor is"):
        likelihoods.PositiveParameter(1.0, value)


@pytest.mark.parametrize("initial", [1e-3, -1.0, math.nan, math.inf, torch.tensor([1.0, 0.0])])
def test_initial_values_that_are_not_above_the_floor(initial):
    with pytest.raises(ValueError, match=r"initial is .* above the floor, 0.001"):
        likelihoods.PositiveParameter(initial)


@pytest.mark.parametrize("levels", [1, 0, 256.0])
def test_number_oflevels(levels):
    with pytest.raises(ValueError, match="levels is"):
        likelihoods.DiscretizedLogistic(torch_nn.Identity(), levels)


@pytest.mark.parametrize("levels", [2, 256])
def test_the_least_scale_is_a_tenth_of_a_level(levels):
    network = torch_nn.Sequential(torch_nn.Linear(2, 6), torch_nn.Unflatten(-1, (3, 2)))
    torch_nn.init.constant_(network[0].bias, -1000.0)
    scale = likelihoods.DiscretizedLogistic(network, levels)(torch.zeros(5, 2)).base_dist.scale
    assert_close(scale, torch.full((5, 3), 0.1 / (levels - 1)))

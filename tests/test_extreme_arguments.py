"""Every distribution of the package from the smallest to the largest arguments: values and gradients are the exact ones.

What is exact is computed in a hundred digits and more. A value may differ from it by rounding, of what it is a sum of;
so may a derivative.
"""

from __future__ import annotations

import math
from itertools import product
from typing import NamedTuple

import mpmath as mp
import pytest
import torch
from pyro import distributions as dist
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_vae import distributions

DIGITS = 150
STEP = mp.mpf(10) ** -60  # of differences in the place of derivatives, relative


class Case(NamedTuple):
    """A function of scalar tensors, the same of numbers of many digits, and what to try."""

    function: object
    exact: object
    arguments: list
    parameters: int  #: So many of the arguments, from the first, get gradients.


def softplus(t):
    return max(t, 0) + (mp.log1p(mp.exp(-abs(t))) if abs(t) < 1e4 else 0)


def sigmoid(t):
    return mp.exp(-softplus(-t))


def continuous_bernoulli(logit, x):
    if abs(logit) < 1e-40:
        return (x - 0.5) * logit
    return x * logit - max(logit, 0) - mp.log(-mp.expm1(-min(abs(logit), 10**4)) / abs(logit))


def continuous_bernoulli_mean(logit):
    if abs(logit) < 1e-15:  # the next term of the series is below any precision here
        return mp.mpf(1) / 2 + logit / 12
    size = abs(logit)
    below = 1 / size - (1 / mp.expm1(size) if size < 1e4 else 0)
    return below if logit < 0 else 1 - below


def continuous_bernoulli_variance(logit):
    if abs(logit) < 1e-8:
        return mp.mpf(1) / 12 - logit**2 / 240 + logit**4 / 6048
    return 1 / logit**2 - (1 / (4 * mp.sinh(logit / 2) ** 2) if abs(logit) < 1e4 else 0)


def discretized_logistic(loc, scale, x):
    step, width = mp.nint(x * 255), 1 / (255 * scale)
    upper, lower = ((step + half - 255 * loc) * width for half in (mp.mpf(0.5), -mp.mpf(0.5)))
    between = mp.log(-mp.expm1(-width)) if width < 1e5 else 0
    inner = -softplus(-upper) if step < 255 else 0
    outer = -softplus(lower) if step > 0 else 0
    return inner + outer + (between if 0 < step < 255 else 0)


def discretized_logistic_mean(loc, scale):
    return mp.fsum(sigmoid((loc - (step + mp.mpf(0.5)) / 255) / scale) for step in range(255)) / 255


def poisson(log_rate, x):
    return x * log_rate - (mp.exp(log_rate) if log_rate > -1e4 else 0) - mp.loggamma(x + 1)


def negative_binomial(log_mean, log_r, x):
    with mp.workdps(400):
        m, r = mp.exp(log_mean), mp.exp(log_r)
        rising = mp.fsum(mp.log(r + i) for i in range(int(x)))
        return rising - mp.loggamma(x + 1) - r * mp.log1p(m / r) + x * (log_mean - mp.log(r + m))


def negative_binomial_variance(log_mean, log_r):
    return mp.exp(log_mean) + mp.exp(2 * log_mean - log_r)


def both_signs(exponents):
    return [sign * 10.0**e for e in exponents for sign in (1, -1)]


LOGITS = [0.0, *both_signs([-38, -20, -4, -1.0001, -0.9999, 0, 0.7, 1.5, 1.96, 3, 19, 38])]
SCALES = [10.0**e for e in (-38, -20, -6, -3, -1, 1, 6, 20, 38)]
LOGARITHMS = [-300.0, -1.0, 0.0, 5.0, 30.0, 85.0, 300.0]
CASES = {
    "ContinuousBernoulli": Case(
        lambda logit, x: distributions.ContinuousBernoulli(logit).log_prob(x),
        continuous_bernoulli,
        list(product(LOGITS, [0.0, 1e-6, 0.5, 0.75, 1.0])),
        1,
    ),
    "mean of ContinuousBernoulli": Case(
        lambda logit: distributions.ContinuousBernoulli(logit).mean,
        continuous_bernoulli_mean,
        [(logit,) for logit in LOGITS],
        1,
    ),
    "variance of ContinuousBernoulli": Case(
        lambda logit: distributions.ContinuousBernoulli(logit).variance,
        continuous_bernoulli_variance,
        [(logit,) for logit in LOGITS],
        1,
    ),
    "DiscretizedLogistic": Case(
        lambda loc, scale, x: distributions.DiscretizedLogistic(loc, scale).log_prob(x),
        discretized_logistic,
        list(product([0.0, 0.5, *both_signs([-30, -3, 0, 2, 37])], SCALES, [0.0, 1 / 255, 128 / 255, 1.0])),
        2,
    ),
    "mean of DiscretizedLogistic": Case(
        lambda loc, scale: distributions.DiscretizedLogistic(loc, scale).mean,
        discretized_logistic_mean,
        list(product([0.2, 0.5, -1.0], SCALES)),
        2,
    ),
    "Poisson": Case(
        lambda log_rate, x: distributions.Poisson(log_rate).log_prob(x),
        poisson,
        list(product([-1e38, -200.0, -87.0, -1.0, 0.0, 5.0, 30.0, 85.0], [0.0, 1.0, 9.0, 11.0, 1e6, 1e15])),
        1,
    ),
    "NegativeBinomial": Case(
        lambda log_mean, log_r, x: distributions.NegativeBinomial(log_mean, log_r).log_prob(x),
        negative_binomial,
        list(product(LOGARITHMS, LOGARITHMS, [0.0, 1.0, 70.0])),
        2,
    ),
    "variance of NegativeBinomial": Case(
        lambda log_mean, log_r: distributions.NegativeBinomial(log_mean, log_r).variance,
        negative_binomial_variance,
        list(product([-80.0, 0.0, 30.0], [-20.0, 0.0, 30.0, 300.0])),
        2,
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_exact(name, dtype):
    function, exact, arguments, parameters = CASES[name]
    largest, eps = torch.finfo(dtype).max, torch.finfo(dtype).eps
    tried = 0
    for numbers in arguments:
        tensors = [torch.tensor(number, dtype=dtype, requires_grad=i < parameters) for i, number in enumerate(numbers)]
        value = function(*tensors)
        gradients = torch.autograd.grad(value, tensors[:parameters])
        with mp.workdps(DIGITS):
            given = [mp.mpf(tensor.item()) for tensor in tensors]
            truth = exact(*given)
            slopes = [slope(exact, given, i) for i in range(parameters)]
            rounding = 3e3 * eps * max(1, abs(truth))
            for found, right in zip((value, *gradients), (truth, *slopes), strict=True):
                assert not found.isnan(), (numbers, found, right)
                if max(abs(truth), abs(right)) < largest:
                    tried += 1
                    assert abs(mp.mpf(found.item()) - right) <= 3e3 * eps * abs(right) + rounding, (
                        numbers,
                        found,
                        right,
                    )
    assert tried > 0.6 * len(arguments) * (1 + parameters)  # the others have exact values that are no floats


def slope(function, given, i):
    step = STEP * (abs(given[i]) or 1)
    above, below = ([*given[:i], given[i] + sign * step, *given[i + 1 :]] for sign in (1, -1))
    return (function(*above) - function(*below)) / (2 * step)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_of_the_continuous_bernoulli_and_their_gradients_are_exact(dtype):
    """A draw is the value at which the distribution function is u: of both, the derivative with respect to the logit."""
    for number in LOGITS:
        logit = torch.tensor(number, dtype=dtype, requires_grad=True)
        torch.manual_seed(1)
        draw = distributions.ContinuousBernoulli(logit).rsample()
        (gradient,) = torch.autograd.grad(draw, logit)
        torch.manual_seed(1)
        u = torch.rand((), dtype=dtype).item()

        def exact(logit, u=u):
            if abs(logit) < 1e-15:
                return mp.mpf(u) + u * (1 - mp.mpf(u)) * logit / 2
            size = min(abs(logit), mp.mpf(1e4))  # from there on the exponential is 0
            below = -mp.log1p((1 - mp.mpf(u) if logit > 0 else mp.mpf(u)) * mp.expm1(-size)) / abs(logit)
            return 1 - below if logit > 0 else below

        with mp.workdps(DIGITS):
            given = mp.mpf(logit.item())
            eps = torch.finfo(dtype).eps
            assert abs(draw.item() - exact(given)) < 1e2 * eps
            # The last term that a series of the draws leaves out is of the order of its precision to the power 2/3.
            assert abs(gradient.item() - slope(exact, [given], 0)) < 30 * eps ** (2 / 3)


@pytest.mark.parametrize("kind", ["full", "low rank"])
@pytest.mark.parametrize("of_prior", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("ratio", [1e-6, 1.0, 1e3])
def test_divergences_of_normals_in_float32_are_those_in_float64(kind, of_prior, ratio):
    """At scales whose squares are no numbers of float32."""
    results = []
    for dtype in (torch.float32, torch.float64):
        like = {"dtype": dtype}
        loc = torch.tensor([0.3, -0.5], **like) * (of_prior * max(ratio, 1.0))
        scale = torch.tensor([of_prior, 2 * of_prior], **like)
        root = torch.tensor([[1.0, 0.0], [0.5, 1.0]], **like) * (of_prior * ratio)
        leaves = [each.requires_grad_() for each in (loc, scale, root)]
        zero = torch.zeros(2, **like)
        if kind == "full":
            q = dist.MultivariateNormal(zero, scale_tril=root, validate_args=False)
        elif of_prior in (1e-30, 1e30):
            pytest.skip("torch holds variances, and these are none in float32")
        else:
            q = dist.LowRankMultivariateNormal(zero, root, root.detach().diagonal().square() * 10, validate_args=False)
        divergence = kl_divergence(q, dist.Normal(loc, scale, validate_args=False).to_event(1))
        gradients = torch.autograd.grad(divergence, leaves)
        results.append([divergence, *(gradient * of_prior for gradient in gradients)])  # so that they are of one size
    for single, double in zip(*results, strict=True):
        assert_close(single.double(), double, rtol=1e-4, atol=1e-6 * max(1.0, ratio**2))


@pytest.mark.parametrize("dim", [2, 3, 50])
@pytest.mark.parametrize("concentration", [0.0, 1e-38, 1e-20, 1.0, 1e6, 1e25, 1e37])
def test_projected_normals_of_any_concentration(dim, concentration):
    """At the mean direction, where log p is (d - 1) / 2 log(concentration^2 / (2 pi)) in the limit."""
    direction = torch.zeros(dim)
    direction[0] = 1.0  # so that there is no rounding
    mu = (concentration * direction).requires_grad_()
    q = distributions.ProjectedNormal(mu)
    log_prob = q.log_prob(direction)
    (gradient,) = torch.autograd.grad(log_prob, mu)
    assert gradient.isfinite().all()
    if concentration < 1e-10:
        area = math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)
        assert log_prob.item() == pytest.approx(-area, rel=1e-5)
    if concentration > 1e5:
        expected = (dim - 1) * (math.log(concentration) - 0.5 * math.log(2 * math.pi))
        assert log_prob.item() == pytest.approx(expected, rel=1e-5)
    draw = q.rsample()
    (gradient,) = torch.autograd.grad(draw.sum(), mu)
    assert draw.isfinite().all()
    assert gradient.isfinite().all()


def test_moments_are_those_of_draws():
    """Each of five standard errors from the mean of 20,000 draws: false alarms, once in 100,000 runs."""
    torch.manual_seed(0)
    for q in (
        distributions.ContinuousBernoulli(torch.tensor([-30.0, -0.5, 0.0, 3.0])),
        distributions.Poisson(torch.tensor([-1.0, 2.0])),
        distributions.NegativeBinomial(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])),
        distributions.HypersphericalUniform(torch.zeros(5)),
    ):
        draws = q.sample((20_000,))
        for values, moment in ((draws, q.mean), ((draws - q.mean).square(), q.variance)):
            error = values.std(0) / math.sqrt(len(values))
            assert ((values.mean(0) - moment).abs() < 5 * error).all()

"""The error bars cover the truth as often as they say, on log-weights whose log-mean is known: zero, in all of these.

No sample is left out for what its own diagnostics say. ``benchmarks/error_bars.py`` has many more problems.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Chi2, Exponential

from pyro_vae.evidence.results.error_bars import error_bars
from pyro_vae.evidence.results.evidence import Evidence, error_of_mean
from pyro_vae.evidence.results.running_weights import RunningWeights

ROWS = 1000


def chi2(dims, shape):
    return Chi2(torch.tensor(float(dims), dtype=torch.float64)).sample(shape)


def normal(dims, width):
    """Posterior and proposal normal, of which the second is so many times as wide."""
    return lambda *shape: dims * math.log(width) + (1 - width**2) * chi2(dims, shape) / 2


def student(dims, degrees):
    """A posterior that is Student's t, and a standard normal proposal."""
    half = (degrees + dims) / 2
    constant = math.lgamma(half) - math.lgamma(degrees / 2) + dims / 2 * math.log(2 / degrees)

    def draw(*shape):
        squares = chi2(dims, shape)
        return constant - half * torch.log1p(squares / degrees) + squares / 2

    return draw


def log_gamma(shape_parameter):
    """A skewed posterior, the log of a Gamma variable, and the normal at its mode, widened by 1.05."""
    a, width = shape_parameter, 1.05 / math.sqrt(shape_parameter)

    def draw(*shape):
        e = torch.randn(shape, dtype=torch.float64)
        z = math.log(a) + width * e
        return a * z - z.exp() - math.lgamma(a) + 0.5 * math.log(2 * math.pi) + math.log(width) + e.square() / 2

    return draw


def log_normal(variance):
    """What annealing gives in many dimensions."""
    return lambda *shape: -variance / 2 + math.sqrt(variance) * torch.randn(shape, dtype=torch.float64)


def left_skewed(variance):
    scale = torch.tensor(math.sqrt(variance), dtype=torch.float64)
    return lambda *shape: math.log1p(scale) - Exponential(1 / scale).sample(shape)


def with_zeros(fraction):
    def draw(*shape):
        kept = torch.rand(shape) >= fraction
        return torch.where(kept, log_normal(0.1)(*shape) - math.log1p(-fraction), -torch.inf)

    return draw


def evidence_of(log_weights) -> Evidence:
    running = RunningWeights(log_weights.shape[1], len(log_weights))
    running.update(log_weights)
    return Evidence(**running.columns(), num_samples=len(log_weights))


def check_coverage(draw, count, least=0.93):
    torch.manual_seed(5)
    result = evidence_of(draw(count, ROWS))
    low, high = result.interval()
    assert ((low <= 0) & (high >= 0)).double().mean() >= least
    for n in (10, 100, ROWS):
        parts = zip(result.log_prob.split(n), result.error.split(n), result.bias.split(n), strict=True)
        inside = [abs(mean.mean()) <= _mean_error(error, bias) for mean, error, bias in parts]
        assert sum(inside) / len(inside) >= 0.93
    if result.settled.double().mean() > 0.2:  # not merely wide
        width = result.error[result.settled].median() / result.log_prob.square().mean().sqrt()
        assert width <= 5
    return result


def _mean_error(error, bias):
    noise = (error - bias).square().sum().sqrt() / len(error) if error.isfinite().all() else torch.inf
    return bias.mean() + noise


@pytest.mark.parametrize("count", [200, 2000])
@pytest.mark.parametrize(
    ("dims", "width"), [(1, 0.4), (1, 0.6), (1, 0.8), (5, 0.6), (5, 0.8), (20, 0.8), (20, 0.9), (50, 0.8), (50, 0.95)]
)
def test_proposals_too_narrow(dims, width, count):
    check_coverage(normal(dims, width), count)


@pytest.mark.parametrize(("dims", "width"), [(1, 0.6), (5, 0.7), (20, 0.8), (50, 0.9)])
def test_fifty_samples(dims, width):
    check_coverage(normal(dims, width), 50)


@pytest.mark.parametrize(("dims", "width"), [(1, 0.4), (5, 0.5), (20, 0.7)])
def test_where_fifty_samples_do_not_know(dims, width):
    """The worst that we found: much narrower than the posterior, and so few samples that hardly any is in its tail."""
    check_coverage(normal(dims, width), 50, least=0.84)


@pytest.mark.parametrize("count", [200, 1000])
@pytest.mark.parametrize("draw", [student(1, 5), student(1, 30), student(20, 30), log_gamma(1.0), log_gamma(5.0)])
def test_heavy_tails_and_skewed_posteriors(draw, count):
    check_coverage(draw, count, least=0.92)


@pytest.mark.parametrize("count", [5, 10, 32])
@pytest.mark.parametrize("variance", [0.01, 0.1, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("draw", [log_normal, left_skewed])
def test_few_chains(draw, variance, count):
    check_coverage(draw(variance), count)


@pytest.mark.parametrize("count", [200, 500])
@pytest.mark.parametrize(
    "draw", [normal(1, 0.9), normal(1, 2.0), normal(20, 1.2), normal(5, 1.5), log_normal(0.3), left_skewed(5.0)]
)
def test_the_error_of_a_good_proposal_is_known(draw, count):
    assert check_coverage(draw, count).settled.double().mean() > 0.99


def test_weights_of_zero_are_no_tail():
    result = check_coverage(with_zeros(0.5), 200)
    assert result.settled.all()
    few = check_coverage(with_zeros(0.9), 200)  # twenty of 200 are all that there is
    assert few.settled.double().mean() > 0.98


@given(
    count=st.integers(5, 200),
    offset=st.floats(-1e4, 1e4),
    rounding=st.sampled_from([0.0, 1e-12, 1e-5]),
    seed=st.integers(0, 2**31),
)
def test_of_equal_weights_there_is_no_error(count, offset, rounding, seed):
    generator = torch.Generator().manual_seed(seed)
    noise = rounding * torch.randn(count, 3, dtype=torch.float64, generator=generator)
    result = evidence_of(offset + noise)
    assert (result.error >= 0).all()
    assert (result.error < 1e-5 + 20 * rounding).all()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_of_too_few_samples_none_is_known(count):
    result = evidence_of(log_normal(0.1)(count, 3))
    assert not result.settled.any()
    assert result.mean_error == math.inf
    low, high = result.interval()
    assert low.isneginf().all()
    assert high.isposinf().all()


def test_a_pilot_that_saw_more_counts():
    torch.manual_seed(0)
    good, bad = RunningWeights(4, 200), RunningWeights(4, 200)
    good.update(normal(1, 0.95)(200, 4))
    bad.update(log_normal(20.0)(200, 4))
    assert error_bars(good.moments()).error.isfinite().all()
    assert error_bars(good.moments(), pilot=bad.moments()).error.isinf().all()
    more = error_bars(good.moments(), pilot=good.moments())
    assert torch.equal(more.error, error_bars(good.moments()).error)
    # What a pilot has seen of the variance counts in full, however little the sample has.
    sure, wilder = RunningWeights(4, 2000), RunningWeights(4, 2000)
    sure.update(log_normal(0.02)(2000, 4))
    wilder.update(log_normal(0.4)(2000, 4))
    both = error_bars(sure.moments(), pilot=wilder.moments())
    assert (both.bias > 0.8 * error_bars(wilder.moments()).bias).all()


def test_an_interval_grows_with_its_probability_from_the_bias():
    torch.manual_seed(0)
    result = evidence_of(normal(5, 0.9)(200, 20))
    halves = [result.interval(p)[1] - result.log_prob for p in (1e-9, 0.5, 0.95, 0.999)]
    torch.testing.assert_close(halves[0], result.bias, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(halves[2], result.error)
    assert (halves[0] < halves[1]).all()
    assert (halves[2] < halves[3]).all()


@pytest.mark.parametrize(
    ("unsettled", "expected", "unexpected"),
    [
        (0, "+- ", "WARNING"),
        (1, "Note: the error is not known for 0.5%", "WARNING"),
        (8, "WARNING: the error is not known for 4.0%", "More samples alone"),
        (40, "40 of 200 datapoints left out", "Note"),
        (150, "log p(x) >= ", "+-"),
    ],
)
def test_a_warning_grows_with_what_it_is_about(unsettled, expected, unexpected):
    torch.manual_seed(0)
    good, bad = normal(2, 1.2)(200, 200 - unsettled), log_normal(30.0)(200, unsettled)
    result = evidence_of(torch.cat([good, bad], 1))
    assert (~result.settled).sum() == unsettled
    assert expected in result.summary()
    assert unexpected not in result.summary()
    assert ("a lower bound" in result.summary()) == (unsettled > 0)
    assert len(repr(result)) < 120
    assert result._repr_html_().startswith("<table>")
    assert len(result.plot().axes) == 3


def test_what_is_left_out_widens_the_error_of_the_others():
    """Datapoints that a single method has settled by their own samples; not those of a few, chosen by pilots."""
    torch.manual_seed(0)
    result = evidence_of(normal(2, 1.2)(200, 100))
    plain = result.mean_error
    result = replace(result, error=result.error.index_fill(0, torch.arange(4), torch.inf))
    assert result.settled_mean_error == pytest.approx(plain * (1 + 5 * 0.04), rel=0.05)
    by_pilots = replace(result, method=torch.zeros(100, dtype=torch.int64))
    assert by_pilots.settled_mean_error == pytest.approx(plain, rel=0.05)


def test_a_method_has_settled_what_has_a_known_error():
    torch.manual_seed(0)
    result = evidence_of(normal(2, 1.2)(200, 4))
    method, seconds = torch.tensor([2, 2, 2, 4]), (0.0, 0.0, 3.0, 1.0, 2.0)
    error = result.error.index_fill(0, torch.tensor([1, 3]), torch.inf)
    result = replace(result, error=error, method=method, seconds_by_method=seconds)
    found = [(each.name, each.datapoints, each.settled, each.seconds) for each in result.methods]
    assert found == [("Laplace", 3, 2, 3.0), ("annealed from Laplace", 0, 0, 1.0), ("annealed from prior", 1, 0, 2.0)]


def test_doubtful_is_a_large_k_hat():
    torch.manual_seed(0)
    result = replace(evidence_of(normal(2, 1.2)(200, 3)), pareto_k=torch.tensor([0.1, 0.8, torch.inf]))
    assert result.doubtful.tolist() == [False, True, True]


def test_biases_do_not_average_out():
    """Four intervals of half-width 0.5, of which 0.1 is bias."""
    errors = torch.full((4,), 0.5)
    assert error_of_mean(errors, torch.full((4,), 0.1)) == pytest.approx(0.1 + 0.4 / 2)
    assert error_of_mean(errors, torch.zeros(4)) == pytest.approx(0.5 / 2)
    assert error_of_mean(errors.index_fill(0, torch.tensor([2]), torch.inf), torch.zeros(4)) == math.inf


def test_one_datapoint_has_no_test_set():
    result = evidence_of(normal(2, 1.2)(200, 1))
    assert result.population_std_error == math.inf
    assert "finite test set" not in result.summary()
    assert "nan" not in result.summary() + repr(result)

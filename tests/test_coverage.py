"""On hundreds of random models of 1 to 20 latent dimensions the error bars cover the truth as often as they say.

``pytest -s tests/test_coverage.py`` prints the figures.
"""

from __future__ import annotations

import pytest
import torch
from many_linear_gaussians import ManyLinearGaussians

from pyro_vae import evidence

EXACT, SLIGHTLY_OFF, BADLY_OFF = (0.0, 1.0), (0.1, 1.1), (4.0, 0.5)  # shift in standard deviations, width


@pytest.fixture(scope="module")
def models() -> ManyLinearGaussians:
    return ManyLinearGaussians(200, seed=1)


def covered(result, exact, rounding=1e-9):
    """Whether the 95% interval of each estimate has the truth in it."""
    low, high = result.interval(0.95)
    return (low - rounding <= exact) & (exact <= high + rounding)


def report(name, result, exact):
    inside = covered(result, exact).double()
    believed = result.pareto_k < 0.7
    of_those = inside[believed].mean().item() if believed.any() else float("nan")
    error = (result.log_prob - exact).mean().item()
    print(
        f"\n{name}: covered {inside.mean():.3f}, where k-hat < 0.7 ({believed.double().mean():.2f} of all) {of_those:.3f};"
        f" k-hat {result.pareto_k.min():.2f} to {result.pareto_k.max():.2f}; mean error {error:.3f}",
        end="",
    )


def test_importance_sampling():
    torch.manual_seed(0)
    models = ManyLinearGaussians(500, seed=1)
    exact = models.log_prob(models.x)
    believed, inside = [], []
    for name, off in (("exact q", EXACT), ("slightly off", SLIGHTLY_OFF), ("badly off", BADLY_OFF)):
        result = evidence.importance(models.model, models.guide(*off), models.x, num_samples=2000)
        report(f"importance sampling, {name}", result, exact)
        believed.append(result.pareto_k < 0.7)
        inside.append(covered(result, exact))
        if off == BADLY_OFF:
            assert (result.pareto_k > 0.7).all()
            assert "WARNING" in result.summary()
            assert inside[-1].double().mean() < 0.2  # it is right to warn
        else:
            assert (result.pareto_k < 0.5).all()
            assert "WARNING" not in result.summary()
    every, covering = torch.cat(believed), torch.cat(inside)
    assert every.sum() == 1000
    assert 0.90 <= covering[every].double().mean() <= 0.99
    assert 0.90 <= inside[1].double().mean() <= 0.99  # not only because the exact q is always right


def test_annealing_where_q_is_badly_off(models):
    torch.manual_seed(0)
    exact = models.log_prob(models.x)
    guide = models.guide(*BADLY_OFF)
    result = evidence.annealed(models.model, guide, models.x, num_chains=32, num_temperatures=300)
    report("annealed, badly off", result, exact)
    assert 0.90 <= covered(result, exact).double().mean() <= 0.99
    assert (result.std_error < 1).all()


def test_the_sandwich_encloses_the_truth(models):
    torch.manual_seed(0)
    bounds = evidence.sandwich(
        models.model, models.guide(*BADLY_OFF), models.x, num_chains=16, num_temperatures=100, num_leapfrog=5
    )
    exact = models.log_prob(bounds.x)
    print("", bounds, f"truth {exact.mean():.3f}", sep="\n", end="")
    # Both errors are means over independent datapoints; at 4 standard errors, 6 in 10^5.
    for excess in (exact - bounds.lower, bounds.upper - exact):
        assert excess.mean() > -4 * excess.std() / 200**0.5
    assert bounds.gap > 2 * bounds.gap_std_error  # so few temperatures do leave one
    assert bounds.lower.mean() <= exact.mean() <= bounds.upper.mean()

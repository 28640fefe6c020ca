"""On hundreds of random models of 1 to 20 latent dimensions the error bars cover the truth at least as often as they say.

``pytest -s tests/test_coverage.py`` prints the figures.
"""

from __future__ import annotations

import pytest
import torch
from many_linear_gaussians import ManyLinearGaussians

from pyro_vae import evidence

# Shift in standard deviations, and width.
EXACT, SLIGHTLY_OFF, BADLY_OFF = (0.0, 1.0), (0.1, 1.1), (4.0, 0.5)
NARROW, TOO_NARROW, SHIFTED = (0.0, 0.9), (0.0, 0.6), (0.5, 0.8)


def covered(result, exact, rounding=1e-9):
    """Whether the 95% interval of each estimate has the truth in it."""
    low, high = result.interval(0.95)
    return (low - rounding <= exact) & (exact <= high + rounding)


def report(name, result, exact):
    inside = covered(result, exact).double()
    off = result.log_prob - exact
    width = result.error[result.settled].median().item() / off.square().mean().sqrt().item()
    print(
        f"\n{name}: covered {inside.mean():.3f}; error known for {result.settled.double().mean():.3f}, median {width:.2f}"
        f" RMS errors; mean {off.mean():.3f} +- {result.mean_error:.3f}",
        end="",
    )


@pytest.mark.parametrize(
    ("off", "num_samples"),
    [
        *((off, 200) for off in (EXACT, SLIGHTLY_OFF, NARROW, TOO_NARROW, SHIFTED)),
        *((off, 2000) for off in (SLIGHTLY_OFF, TOO_NARROW, BADLY_OFF)),
    ],
)
def test_importance_sampling(off, num_samples):
    """All datapoints count, whatever their diagnostics say, and so does the mean over them."""
    torch.manual_seed(0)
    models = ManyLinearGaussians(500, seed=1)
    exact = models.log_prob(models.x)
    result = evidence.importance(models.model, models.guide(*off), models.x, num_samples=num_samples)
    report(f"importance sampling, {off}, {num_samples}", result, exact)
    assert covered(result, exact).double().mean() >= 0.93
    assert abs(result.mean - exact.mean().item()) <= result.mean_error + 1e-9
    if off in (EXACT, SLIGHTLY_OFF):
        assert result.settled.double().mean() > 0.995
        assert "WARNING" not in result.summary()
    if off == BADLY_OFF:
        assert result.settled.double().mean() < 0.05
        assert result.summary().startswith("log p(x) >= ")
        assert "WARNING" in result.summary()


def test_annealing_where_q_is_badly_off():
    torch.manual_seed(0)
    models = ManyLinearGaussians(120, seed=1)
    exact = models.log_prob(models.x)
    guide = models.guide(*BADLY_OFF)
    result = evidence.annealed(models.model, guide, models.x, num_chains=32, num_temperatures=150)
    report("annealed, badly off", result, exact)
    assert covered(result, exact).double().mean() >= 0.93
    assert (result.std_error < 1).all()
    assert result.settled.double().mean() > 0.9


def test_the_sandwich_encloses_the_truth():
    torch.manual_seed(0)
    models = ManyLinearGaussians(200, seed=1)
    bounds = evidence.sandwich(
        models.model, models.guide(*BADLY_OFF), models.x, num_chains=16, num_temperatures=100, num_leapfrog=5
    )
    exact = models.log_prob(bounds.x)
    print("", bounds, f"truth {exact.mean():.3f}", sep="\n", end="")
    # Both errors are means over independent datapoints; at 4 standard errors, 6 in 10^5.
    for excess in (exact - bounds.lower, bounds.upper - exact):
        assert excess.mean() > -4 * excess.std() / len(excess) ** 0.5
    assert bounds.gap > 2 * bounds.gap_std_error  # so few temperatures do leave one
    assert bounds.lower.mean() <= exact.mean() <= bounds.upper.mean()

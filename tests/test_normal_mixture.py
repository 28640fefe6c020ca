"""Mixtures of normals draw from the density that they say, and have its gradient."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from pyro import distributions as dist
from scipy import stats
from torch.testing import assert_close

from pyro_vae.evidence.unconstrained.normal_mixture import NormalMixture


def mixture(modes, dims, diagonal=False, n=3, apart=2.0):
    center = apart * torch.randn(modes, n, dims, dtype=torch.float64)
    if diagonal:
        factor = 0.5 + torch.rand(modes, n, dims, dtype=torch.float64)
        inverse, log_det = 1 / factor, factor.log().sum(-1)
    else:
        factor = torch.eye(dims) + 0.4 * torch.randn(modes, n, dims, dims, dtype=torch.float64)
        inverse, log_det = torch.linalg.inv(factor), torch.linalg.slogdet(factor).logabsdet
    log_weight = torch.randn(modes, n, dtype=torch.float64).log_softmax(0)
    return NormalMixture(center, factor, inverse, log_det, log_weight)


def exact(normals):
    """As torch's distribution, of batch shape ``[n]``."""
    covariance = torch.diag_embed(normals.factor**2) if normals.factor.ndim == 3 else normals.factor @ normals.factor.mT
    each = dist.MultivariateNormal(normals.center.transpose(0, 1), covariance.transpose(0, 1))
    return dist.MixtureSameFamily(dist.Categorical(logits=normals.log_weight.T), each)


KINDS = [(modes, dims, diagonal) for modes in (1, 3) for dims in (1, 4) for diagonal in (False, True)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_is_that_of_a_mixture_of_normals_and_so_is_the_gradient(kind):
    normals = mixture(*kind)
    position = (3 * torch.randn(50, 3, kind[1], dtype=torch.float64)).requires_grad_()
    expected = exact(normals).log_prob(position)
    value, gradient = normals.gradient(position.detach(), tails=False)
    assert_close(normals.log_prob(position, tails=False), expected)
    assert_close(value, expected)
    assert_close(gradient, torch.autograd.grad(expected.sum(), position)[0])
    with_tails = normals.log_prob(position, tails=True)
    value, gradient = normals.gradient(position.detach(), tails=True)
    assert_close(value, with_tails)
    assert_close(gradient, torch.autograd.grad(with_tails.sum(), position)[0])


@pytest.mark.parametrize("tails", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_density(kind, tails):
    """E[p / q] = 1 for draws of q and a normal p; the same for wide p and q, where draws count on one side of a plane.

    Within 5 and 6 standard errors of 40000 draws (false alarm: 6 in 10^7).
    """
    normals = mixture(*kind, apart=0.5)
    z = normals.draw(40_000, tails=tails)
    best = normals.log_weight.argmax(0)
    at = normals.center[best, torch.arange(3)]
    p = dist.Normal(at + 0.1, 0.3).to_event(1)
    if kind[2]:
        ratio = (p.log_prob(z) - normals.log_prob(z, tails=tails)).exp()
        assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / 200).all()
    # The probability of a half-space, from the density by importance sampling with a wide q, and from the draws.
    direction = torch.ones(kind[1], dtype=torch.float64)
    wide = dist.MultivariateNormal(
        at, 4 * exact(normals).component_distribution.covariance_matrix[torch.arange(3), best]
    )
    w = wide.sample((40_000,))
    ratio = (normals.log_prob(w, tails=tails) - wide.log_prob(w)).exp()
    ahead = ((w - at) @ direction > 0.2) * ratio
    share = ((z - at) @ direction > 0.2).double()
    error = (ahead.var(0) + share.var(0)).sqrt() / 200
    assert ((ahead.mean(0) - share.mean(0)).abs() < 6 * error).all()


@pytest.mark.parametrize("tails", [False, True])
@pytest.mark.parametrize("modes", [1, 3])
def test_draws_in_one_dimension(modes, tails):
    """Kolmogorov and Smirnov's test against the integral of the density (false alarm: 10^-5 each)."""
    normals = mixture(modes, 1, n=2)
    z = normals.draw(20_000, tails=tails)[..., 0]
    line = torch.linspace(-1, 1, 200_001, dtype=torch.float64) * torch.asinh(torch.tensor(1e4)).double()
    grid = line.sinh()
    for row in range(2):
        density = normals.rows(torch.tensor([row])).log_prob(grid[:, None, None], tails=tails)[:, 0].exp() * line.cosh()
        cdf = torch.cumulative_trapezoid(density, line)
        assert abs(cdf[-1].item() - 1) < 1e-4
        p = stats.kstest(z[:, row].numpy(), partial(_at, grid=grid, cdf=cdf))
        assert p.pvalue > 1e-5


def _at(q, grid, cdf):
    place = torch.searchsorted(grid[1:], torch.as_tensor(q).contiguous()).clamp_max(len(cdf) - 1)
    return cdf[place].numpy()


def test_tails_are_heavier_and_the_center_a_little_lower():
    normals = mixture(1, 3)
    far = normals.to_vector(torch.full((1, 3, 3), 6.0, dtype=torch.float64))
    assert (normals.log_prob(far, tails=True) > normals.log_prob(far, tails=False) + 20).all()
    difference = normals.log_prob(normals.center, tails=False) - normals.log_prob(normals.center, tails=True)
    assert ((difference > 0) & (difference < 0.3)).all()


def test_coordinates_and_back():
    for diagonal in (False, True):
        normals = mixture(2, 4, diagonal)
        y = torch.randn(5, 3, 4, dtype=torch.float64)
        z = normals.to_vector(y)
        assert_close(normals.from_vector(z), y)
        free = y.clone().requires_grad_()
        slope = torch.randn_like(z)
        (expected,) = torch.autograd.grad((normals.to_vector(free) * slope).sum(), free)
        assert_close(normals.pull_back(slope), expected)


def test_rows_and_updates():
    normals, other = mixture(3, 2, n=5), mixture(2, 2, n=2)
    normals.log_weight[1:, 2] = -torch.inf
    normals = normals._replace(log_weight=normals.log_weight.log_softmax(0))
    index = torch.tensor([2])
    assert len(normals.rows(index).center) == 1
    position = torch.randn(7, 5, 2, dtype=torch.float64)
    some = torch.tensor([4, 2])
    expected = normals.log_prob(position, tails=True)
    assert_close(normals.rows(some).log_prob(position[:, some], tails=True), expected[:, some])
    assert_close(normals.rows(index).log_prob(position[:, index], tails=True), expected[:, index])
    changed = normals.updated(torch.tensor([0, 3]), other).log_prob(position, tails=True)
    assert_close(changed[:, [1, 2, 4]], expected[:, [1, 2, 4]])
    assert_close(changed[:, [0, 3]], other.log_prob(position[:, [0, 3]], tails=True))
    assert normals.num_modes(1e-6).tolist() == [3, 3, 1, 3, 3]
    flat = normals.flattened().log_weight
    assert_close(flat.logsumexp(0), torch.zeros(5, dtype=torch.float64))
    several = torch.tensor([0, 1, 3, 4])
    assert_close(flat[:, several].diff(dim=0), normals.log_weight[:, several].diff(dim=0) / 2)  # closer together


def test_none_found():
    normals = mixture(2, 2)
    normals.log_weight[:, 1] = -torch.inf
    assert normals.found.tolist() == [True, False, True]
    assert normals.flattened().found.tolist() == [True, False, True]
    assert normals.rows(torch.tensor([1])).center.shape == (1, 1, 2)

"""Distributions on the sphere, and VAEs whose latents lie there."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from parts import EVENT, LIKELIHOODS, POSTERIORS, PRIORS
from pyro.distributions import ProjectedNormal as PyrosProjectedNormal
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO
from scipy import integrate, special, stats
from torch.testing import assert_close

from pyro_vae import VAE, evidence, priors, weights
from pyro_vae.distributions import HypersphericalUniform, ProjectedNormal

DIMS = (2, 3, 5, 10, 50)
T = (-300.0, -30.0, -10.0, -3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 3.0, 10.0, 30.0, 300.0)


def log_radial_integral(power, t):
    """log of the integral of r^power exp(-(r - t)^2 / 2) over r > 0, by adaptive quadrature around its mode."""
    mode = (t + math.sqrt(t**2 + 4 * power)) / 2 if t > 0 else 2 * power / (math.sqrt(t**2 + 4 * power) - t)
    width = 1 / math.sqrt(1 + power / mode**2)

    def log_integrand(r):
        return power * math.log(r) - (r - t) ** 2 / 2

    edges = [max(mode + k * width, 0) for k in (-40, -8, -4, -2, -1, 0, 1, 2, 4, 8, 40)]
    pieces = [
        integrate.quad(lambda r: math.exp(log_integrand(r) - log_integrand(mode)), a, b, epsabs=1e-14, epsrel=1e-13)[0]
        for a, b in itertools.pairwise(edges)
        if b > a
    ]
    return log_integrand(mode) + math.log(sum(pieces))


def along_and_against(dim, t, dtype):
    """Concentrations of norm abs(t), and unit vectors u with u . concentration = t."""
    concentration = torch.zeros(len(t), dim, dtype=dtype)
    concentration[:, 0] = t.abs()
    u = torch.zeros(len(t), dim, dtype=dtype)
    u[:, 0] = torch.where(t < 0, -1.0, 1.0)
    return concentration, u


@pytest.mark.parametrize("dim", DIMS)
def test_the_density_is_the_radial_integral(dim):
    """And its gradient that of the integral: d log I_n / dt = n I_(n-1) / I_n for n = dim - 1, towards and away."""
    t = torch.tensor(T, dtype=torch.float64)
    exact = torch.tensor([log_radial_integral(dim - 1, value) for value in T], dtype=torch.float64)
    lower = [
        log_radial_integral(dim - 2, v) if dim > 2 else stats.norm.logcdf(v) + math.log(2 * math.pi) / 2 for v in T
    ]
    slope = (dim - 1) * (torch.tensor(lower, dtype=torch.float64) - exact).exp()
    for dtype, rtol in ((torch.float64, 1e-11), (torch.float32, 3e-6)):
        concentration, u = along_and_against(dim, t.to(dtype), dtype)
        concentration.requires_grad_()
        log_prob = ProjectedNormal(concentration).log_prob(u)
        assert_close(log_prob.double(), exact - dim / 2 * math.log(2 * math.pi), rtol=rtol, atol=rtol)
        (gradient,) = torch.autograd.grad(log_prob.sum(), concentration)
        assert_close((gradient * u).sum(-1).double(), slope, rtol=10 * rtol, atol=10 * rtol)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_it_is_pyros_where_pyros_has_a_density(dim):
    concentration = 2 * torch.randn(50, dim, dtype=torch.float64)
    ours, pyros = ProjectedNormal(concentration), PyrosProjectedNormal(concentration)
    u = ours.sample((20,))
    assert_close(ours.log_prob(u), pyros.log_prob(u), rtol=1e-9, atol=1e-9)
    expanded = ours.expand((3, 50))
    assert type(expanded) is ProjectedNormal
    assert_close(expanded.log_prob(u[0]), ours.log_prob(u[0]).expand(3, 50))


@pytest.mark.parametrize("dim", [2, 5])
def test_gradients_are_those_of_finite_differences(dim):
    concentration = (3 * torch.randn(4, dim, dtype=torch.float64)).requires_grad_()
    u = ProjectedNormal(concentration).sample().requires_grad_()

    def log_prob(concentration, u):
        return ProjectedNormal(concentration, validate_args=False).log_prob(u / u.norm(dim=-1, keepdim=True))

    assert torch.autograd.gradcheck(log_prob, (concentration, u))
    assert torch.autograd.gradgradcheck(log_prob, (concentration, u))


def polar(dim, angle):
    """Unit vectors at angles to the first axis, and the log-area per angle of all that are at that angle."""
    u = torch.zeros(len(angle), dim, dtype=torch.float64)
    u[:, 0], u[:, 1] = angle.cos(), angle.sin()
    log_rim = math.log(2) + (dim - 1) / 2 * math.log(math.pi) - special.gammaln((dim - 1) / 2)
    return u, (dim - 2) * angle.sin().log() + log_rim


def gauss_legendre(dim, nodes=300):
    """As :func:`polar`, with weights that make sums of what depends on the angle alone integrals over the sphere."""
    x, weight = (torch.tensor(values) for values in np.polynomial.legendre.leggauss(nodes))
    u, log_area = polar(dim, math.pi / 2 * (x + 1))
    return u, log_area + (math.pi / 2 * weight).log()


@pytest.mark.parametrize("dim", DIMS)
def test_densities_integrate_to_one(dim):
    u, log_weight = gauss_legendre(dim)
    axis = torch.eye(dim, dtype=torch.float64)[0]
    for concentration in (0.0, 0.7, 7.0, 40.0):
        log_prob = ProjectedNormal(concentration * axis).log_prob(u)
        assert (log_prob + log_weight).logsumexp(0).item() == pytest.approx(0, abs=1e-10)
    uniform = HypersphericalUniform(axis)
    assert (uniform.log_prob(u) + log_weight).logsumexp(0).item() == pytest.approx(0, abs=1e-10)
    assert_close(uniform.log_prob(u), ProjectedNormal(0 * axis).log_prob(u))


@pytest.mark.parametrize("dim", [2, 3, 10])
@pytest.mark.parametrize("concentration", [None, 0.5, 4.0])
def test_draws_have_the_density(dim, concentration):
    """Kolmogorov and Smirnov's test, failing by chance once in 10^6; the axis is not one of the coordinates'."""
    edges = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
    u, log_area = polar(dim, (edges[1:] + edges[:-1]) / 2)
    axis = torch.eye(dim, dtype=torch.float64)[0]
    along = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64)).Q[0]
    if concentration is None:
        q, drawn = HypersphericalUniform(axis), HypersphericalUniform(along)
    else:
        q, drawn = ProjectedNormal(concentration * axis), ProjectedNormal(concentration * along)
    cdf = torch.cat([edges[:1], ((q.log_prob(u) + log_area).exp() * edges[1]).cumsum(0)])
    draws = drawn.sample((20_000,))
    assert constraints.sphere.check(draws).all()
    angles = (draws @ along).clamp(-1, 1).arccos()
    assert stats.kstest(angles.numpy(), lambda x: np.interp(x, edges, cdf), method="asymp").pvalue > 1e-6


def test_gradients_flow_through_draws():
    """The derivative of E[u . axis] with respect to the concentration, against quadrature; within 5 standard errors."""
    dim = 5
    axis = torch.eye(dim, dtype=torch.float64)[0]
    u, log_weight = gauss_legendre(dim)
    exact_concentration = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    mean = ((ProjectedNormal(exact_concentration * axis).log_prob(u) + log_weight).exp() * u[:, 0]).sum()
    (exact,) = torch.autograd.grad(mean, exact_concentration)
    concentrations = torch.full((20_000, 1), 1.5, dtype=torch.float64, requires_grad=True)
    draws = ProjectedNormal(concentrations * axis).rsample()
    (each,) = torch.autograd.grad(draws[:, 0].sum(), concentrations)
    assert abs(each.mean() - exact) < 5 * each.std() / len(each) ** 0.5


@pytest.mark.parametrize("q", [ProjectedNormal(torch.ones(4, 3)), HypersphericalUniform(torch.ones(4, 3))])
def test_shapes_and_support(q):
    draws = q.rsample((2,))
    assert draws.shape == (2, 4, 3)
    assert q.log_prob(draws).shape == (2, 4)
    assert q.expand((5, 4)).rsample((2,)).shape == (2, 5, 4, 3)
    assert q.expand((5, 4)).log_prob(draws[0]).shape == (5, 4)
    assert q.mean.shape == (4, 3)
    assert q.support is constraints.sphere
    with pytest.raises(ValueError, match="support"):
        q.log_prob(1.01 * draws)


def circle(nodes=400):
    angle = torch.arange(nodes, dtype=torch.float64) * (2 * math.pi / nodes)
    return torch.stack([angle.cos(), angle.sin()], -1), math.log(2 * math.pi / nodes)


@pytest.fixture(params=["HypersphericalUniform", "VampPrior"])
def vae(request):
    posterior = POSTERIORS["ProjectedNormal"]()
    return VAE(PRIORS[request.param](posterior), LIKELIHOODS["Bernoulli"](), posterior)


def test_svi_trains_it_and_then_its_evidence_equals_quadrature_over_the_circle(vae):
    """Within 5 standard errors, for 20 datapoints: once in 10^5 by chance."""
    vae, x = vae.double(), torch.rand(20, *EVENT, dtype=torch.float64).bernoulli()
    before = weights.log_weights(vae.model, vae.guide, x, 50).mean()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    for _ in range(100):
        svi.step(x)
    assert weights.log_weights(vae.model, vae.guide, x, 50).mean() > before
    z, log_step = circle()
    with torch.no_grad():
        log_prior = vae.prior().log_prob(z)
        exact = (log_prior + vae.likelihood(z).log_prob(x.unsqueeze(1))).logsumexp(1) + log_step
        assert (log_prior.logsumexp(0) + log_step).item() == pytest.approx(0, abs=1e-10)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=10_000)
    assert (result.pareto_k < 0.7).all()
    assert ((result.log_prob - exact).abs() < 5 * result.std_error + 1e-9).all()


def test_codes_are_on_the_sphere(vae):
    x = vae.sample(5)
    assert constraints.sphere.check(vae.encode(x)).all()
    assert vae.reconstruct(x).shape == x.shape


@pytest.mark.parametrize("latent_dim", [1, 0, -3, 2.0])
def test_there_is_no_sphere_in_one_dimension(latent_dim):
    with pytest.raises(ValueError, match="latent_dim"):
        priors.HypersphericalUniform(latent_dim)

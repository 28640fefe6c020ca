"""Annealed importance sampling: unbiased at any number of temperatures, and its parts do what they should."""

from __future__ import annotations

import pyro
import pytest
import torch
from linear_gaussian import exact_log_evidence, exact_posterior, random_instance
from pyro import distributions as dist
from pyro import poutine
from scipy.stats import nbinom
from torch.testing import assert_close

from pyro_vae import evidence, weights
from pyro_vae.evidence.annealing import AnnealedPath, sigmoid_schedule
from pyro_vae.evidence.hmc import hmc_move
from pyro_vae.evidence.latent_vectors import LatentVectors
from pyro_vae.evidence.simulation import simulate


def path_of(vae, x, **settings):
    settings = {"start": "prior", "num_temperatures": 3, "num_leapfrog": 3} | settings
    return AnnealedPath(vae.model, vae.guide, x, weights.find_layout(vae.model, vae.guide, x), **settings)


def mean_ratio(log_ratios):
    """The mean of the exponentials, ``[n]``, and its standard error."""
    ratios = log_ratios.exp()
    return ratios.mean(0), ratios.std(0) / len(ratios) ** 0.5


@pytest.mark.parametrize("start", ["prior", "guide"])
@pytest.mark.parametrize("num_temperatures", [1, 4])
def test_the_mean_weight_is_the_evidence_however_few_the_temperatures(start, num_temperatures):
    """Within 5 standard errors (false alarm: 6 in 10^7 each) of 20000 chains."""
    vae, x = random_instance(seed=5, latent=2, event=3, n=4, shift=0.5, widen=1.2)
    path = path_of(vae, x, start=start, num_temperatures=num_temperatures)
    log_weights, _ = path.forward(20_000, path.adapt())
    mean, error = mean_ratio(log_weights - exact_log_evidence(vae.likelihood, x))
    assert (error < 0.2).all()
    assert ((mean - 1).abs() < 5 * error).all()


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_in_reverse_the_mean_of_the_inverse_weight_is_the_inverse_evidence(start):
    vae, x = random_instance(seed=5, latent=2, event=3, n=4, shift=0.3, widen=0.9)
    path = path_of(vae, x, start=start, num_temperatures=4)
    z = exact_posterior(vae.likelihood, x).sample((20_000,))
    log_weights, _ = path.reverse(path.vectors.to_vectors({"z": z}), path.adapt())
    mean, error = mean_ratio(exact_log_evidence(vae.likelihood, x) - log_weights)
    assert (error < 0.2).all()
    assert ((mean - 1).abs() < 5 * error).all()


def test_it_approaches_the_truth_from_below_with_more_temperatures():
    vae, x = random_instance(seed=9, latent=4, event=6, n=30, shift=3.0, widen=0.3)
    exact = exact_log_evidence(vae.likelihood, x).mean().item()
    errors = [
        evidence.annealed(vae.model, vae.guide, x, num_chains=16, num_temperatures=t).elbo.mean().item() - exact
        for t in (5, 20, 80)
    ]
    assert errors[0] < errors[1] < errors[2] < 0
    assert errors[2] > errors[0] / 5
    assert evidence.importance(vae.model, vae.guide, x).mean - exact < errors[2]


def test_from_the_exact_posterior_no_weight_varies():
    vae, x = random_instance(seed=3, latent=3, event=4, n=5)
    result = evidence.annealed(vae.model, vae.guide, x, num_chains=8, num_temperatures=10, start="guide")
    assert_close(result.log_prob, exact_log_evidence(vae.likelihood, x), rtol=1e-9, atol=1e-9)
    assert (result.std_error < 1e-6).all()


def test_half_to_three_quarters_of_the_moves_are_accepted():
    vae, x = random_instance(seed=4, latent=5, event=8, n=20)
    result = evidence.annealed(vae.model, vae.guide, x, num_chains=30, num_temperatures=100)
    assert ((result.acceptance > 0.55) & (result.acceptance < 0.75)).all()
    assert "with 30 annealed chains each" in result.summary()


def test_the_chains_end_in_the_posterior():
    vae, x = random_instance(seed=6, latent=2, event=3, n=1)
    path = path_of(vae, x, num_temperatures=100, num_leapfrog=10)
    position, seen = path.draw_start(4000), []
    path.draw_start = lambda num_chains: position  # noqa: ARG005
    move = path._move
    path._move = lambda *args: seen.append(move(*args)) or seen[-1]
    path.forward(4000, path_of(vae, x).adapt())
    z, exact = seen[-1].position[:, 0], exact_posterior(vae.likelihood, x)
    error = exact.covariance_matrix[0].diagonal().sqrt() / 4000**0.5
    # Unweighted, so nearly: annealing is long enough here for the weights to vary little.
    assert ((z.mean(0) - exact.loc[0]).abs() < 6 * error).all()
    assert_close(z.T.cov(), exact.covariance_matrix[0].detach(), rtol=0.2, atol=0.02)


def test_moves_leave_a_density_invariant():
    """A skewed one: a Gamma on the log scale. Means of z and z^2 within 5 standard errors."""
    target = dist.TransformedDistribution(
        dist.Gamma(torch.tensor(2.0, dtype=torch.float64), 1.0), [dist.transforms.ExpTransform().inv]
    )
    position = target.sample((40_000, 1, 1))
    before = position
    for _ in range(5):
        move = hmc_move(
            position, lambda z: target.log_prob(z)[..., 0], torch.tensor([0.9]).double(), torch.ones(1, 1).double(), 3
        )
        position = move.position
    assert 0.3 < move.acceptance.mean() < 0.99  # the step is so long that it matters whether to accept
    for power in (1, 2, 3):
        moment, other = before**power, position**power
        error = (moment.var() + other.var()).sqrt() / len(before) ** 0.5
        assert abs(moment.mean() - other.mean()) < 5 * error
    assert (position - before).abs().mean() > 0.3


def test_a_move_to_nowhere_is_rejected():
    def log_density(z):
        return torch.where(z > 0, -(z**2) / 2, torch.nan)[..., 0]

    position = torch.full((1000, 1, 1), 0.1)
    moved = hmc_move(position, log_density, torch.tensor([1.0]), torch.ones(1, 1), 3)
    assert (moved.position > 0).all()
    assert (moved.position != 0.1).any()
    assert (moved.acceptance == 0).any()


def counts(x):
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(3.0, dtype=torch.float64), 2.0))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def counts_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma(2 + x / 2, torch.tensor(2.0, dtype=torch.float64)))


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_latents_with_bounds_and_discrete_data(start):
    """Gamma and Poisson: p(x) is a negative binomial."""
    x = torch.arange(8.0, dtype=torch.float64)
    result = evidence.annealed(counts, counts_guide, x, num_chains=200, num_temperatures=60, start=start)
    exact = torch.from_numpy(nbinom(3.0, 2.0 / 3.0).logpmf(x.numpy()))
    assert (result.std_error < 0.1).all()
    assert ((result.log_prob - exact).abs() < 5 * result.std_error).all()


def two_sites(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        b = pyro.sample("b", dist.Normal(a[..., 0], 1.0))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)


def two_sites_guide(x):
    with pyro.plate("data", len(x)):
        b = pyro.sample("b", dist.Normal(x / 2, 0.5))
        pyro.sample("a", dist.Normal((b / 2)[..., None].expand(*b.shape, 2), 1.0).to_event(1))


def test_two_latent_sites():
    x = torch.randn(6, dtype=torch.float64)
    result = evidence.annealed(two_sites, two_sites_guide, x, num_chains=200, num_temperatures=40)
    exact = dist.Normal(torch.zeros((), dtype=torch.float64), 3**0.5).log_prob(x)
    assert ((result.log_prob - exact).abs() < 5 * result.std_error).all()
    assert (result.std_error < 0.2).all()


def test_vectors_and_back():
    """With a plate to the left of the data's, a bounded site and a simplex."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            with pyro.plate("time", 4, dim=-1):
                pyro.sample("a", dist.Beta(torch.tensor(2.0, dtype=torch.float64), 3.0))
            pyro.sample("b", dist.Dirichlet(torch.ones(3, dtype=torch.float64)))

    layout = weights.Layout("data", -2, -3)
    trace = poutine.trace(weights.vectorized(model, 5, layout)).get_trace(torch.zeros(7))
    sites = {name: trace.nodes[name] for name in ("a", "b")}
    vectors = LatentVectors(sites, layout)
    latents = {name: site["value"] for name, site in sites.items()}
    u = vectors.to_vectors(latents)
    assert u.shape == (5, 7, 4 + 2)
    back, log_det = vectors.to_latents(u)
    assert log_det.shape == (5, 7)
    for name in latents:
        assert_close(back[name], latents[name])
    # The determinant, by differentiating one vector's free coordinates of the simplex.
    jacobian = torch.autograd.functional.jacobian(
        lambda v: torch.cat([vectors.to_latents(v)[0]["a"][0, 0], vectors.to_latents(v)[0]["b"][0, 0, 0, :2]]),
        u[:1, :1],
    )
    assert_close(jacobian.reshape(6, 6).det().abs().log(), log_det[0, 0])


def test_discrete_latents_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Bernoulli(0.5))

    with pytest.raises(ValueError, match="latent site 'k' is discrete"):
        evidence.annealed(model, guide, torch.randn(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "posterior"}, "start is 'posterior'; expected one of 'prior', 'guide'"),
        ({"num_chains": 1}, "num_chains is 1"),
        ({"num_temperatures": 0}, "num_temperatures is 0"),
        ({"num_leapfrog": 0}, "num_leapfrog is 0"),
    ],
)
def test_bad_settings(vae, x, options, message):
    for estimate in (evidence.annealed, evidence.sandwich):
        with pytest.raises(ValueError, match=message):
            estimate(vae.model, vae.guide, x, **options)


def test_schedule():
    schedule = sigmoid_schedule(50)
    assert schedule[0] == 0.0
    assert schedule[-1] == 1.0
    steps = torch.tensor(schedule).diff()
    assert (steps > 0).all()
    assert steps[0] < steps[25] / 5
    assert_close(steps, steps.flip(0), rtol=1e-3, atol=1e-6)


def test_same_seed_same_result(vae, x):
    for estimate, name in ((evidence.annealed, "log_prob"), (evidence.sandwich, "upper")):
        results = []
        for _ in range(2):
            torch.manual_seed(3)
            result = estimate(vae.model, vae.guide, x, num_chains=2, num_temperatures=3, num_leapfrog=2)
            results.append(getattr(result, name))
        assert torch.equal(*results)


def test_parameters_are_left_alone(vae, x):
    evidence.sandwich(vae.model, vae.guide, x, num_chains=2, num_temperatures=2, num_leapfrog=2)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in vae.parameters())


def test_simulated_data_come_with_exact_draws_from_their_posterior():
    """Standardized by the exact posterior, latents are standard normal: mean and covariance of 4000."""
    vae, _ = random_instance(seed=2, latent=3, event=4, n=1)
    x = torch.zeros(4000, 4, dtype=torch.float64)
    drawn = simulate(vae.model, vae.guide, x, weights.find_layout(vae.model, vae.guide, x))
    exact = exact_posterior(vae.likelihood, drawn.x)
    residual = torch.linalg.solve_triangular(exact.scale_tril, (drawn.latents["z"] - exact.loc)[..., None], upper=False)
    residual = residual[..., 0].detach()
    assert (residual.mean(0).abs() < 5 / 4000**0.5).all()
    assert_close(residual.T.cov(), torch.eye(3, dtype=torch.float64), rtol=0, atol=5 * 2**0.5 / 4000**0.5)


def test_what_cannot_be_simulated():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("left", dist.Normal(z, 1.0), obs=x[:, 0])
            pyro.sample("right", dist.Normal(z, 1.0), obs=x[:, 1])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(1), 1.0))

    with pytest.raises(ValueError, match=r"observed sites \['left', 'right'\]"):
        evidence.sandwich(model, guide, torch.randn(5, 2), num_chains=2, num_temperatures=2)

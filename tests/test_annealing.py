"""Annealed importance sampling: unbiased at any number of temperatures, and its parts do what they should."""

from __future__ import annotations

import re
from dataclasses import replace

import pyro
import pytest
import torch
from linear_gaussian import exact_log_evidence, exact_posterior, random_instance
from pyro import distributions as dist
from pyro import poutine
from scipy.stats import nbinom
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.testing import assert_close

from pyro_vae import evidence, weights
from pyro_vae.evidence.estimators.annealing import path_from, pilot
from pyro_vae.evidence.estimators.simulation import simulate
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained import log_joint as log_joint_module
from pyro_vae.evidence.unconstrained.annealed_path import AnnealedPath, FromPrior, Schedule, sigmoid_schedule
from pyro_vae.evidence.unconstrained.hmc import State, hmc_move
from pyro_vae.evidence.unconstrained.latent_vectors import LatentVectors
from pyro_vae.evidence.unconstrained.log_joint import LogJoint

STARTS = ("prior", "guide", "laplace")


def path_of(vae, x, start="prior", num_leapfrog=3):
    return path_from(start, Programs(vae.model, vae.guide, x), x, num_leapfrog)


def mean_ratio(log_ratios):
    """The mean of the exponentials, ``[n]``, and its standard error."""
    ratios = log_ratios.exp()
    return ratios.mean(0), ratios.std(0) / len(ratios) ** 0.5


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("num_temperatures", [1, 4])
def test_the_mean_weight_is_the_evidence_however_few_the_temperatures(start, num_temperatures):
    """Within 5 standard errors (false alarm: 6 in 10^7 each) of 10000 chains."""
    vae, x = random_instance(seed=5, latent=2, event=3, n=4, shift=0.5, widen=1.2)
    path = path_of(vae, x, start)
    log_weights = path.forward(10_000, pilot(path, num_temperatures, start)).log_weights
    mean, error = mean_ratio(log_weights - exact_log_evidence(vae.likelihood, x))
    assert (error < 0.2).all()
    assert ((mean - 1).abs() < 5 * error).all()


@pytest.mark.parametrize("start", STARTS)
def test_in_reverse_the_mean_of_the_inverse_weight_is_the_inverse_evidence(start):
    vae, x = random_instance(seed=5, latent=2, event=3, n=4, shift=0.3, widen=0.9)
    path = path_of(vae, x, start)
    z = exact_posterior(vae.likelihood, x).sample((10_000,))
    log_weights = path.reverse(z, pilot(path, 16, start)).log_weights
    mean, error = mean_ratio(exact_log_evidence(vae.likelihood, x) - log_weights)
    assert (error < 0.2).all()
    assert (mean < 1 + 5 * error).all()
    # Of the heavy tails that normals have got, no chain that comes from the posterior sees the end.
    assert (mean > (0.9 if start == "laplace" else 1) - 5 * error).all()


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


@pytest.mark.parametrize(("start", "all_rows"), [("prior", False), ("laplace", True), ("guide", False)])
def test_densities_are_recorded_when_they_are_called_often_and_stay_the_same(monkeypatch, start, all_rows):
    """Also if the model accepts nothing but all rows."""
    vae, x = random_instance(seed=3, latent=3, event=4, n=5, shift=0.5)
    calls = []

    def model(x):
        calls.append(1)
        if all_rows and len(x) != 5:
            raise ValueError("another number of rows")
        return vae.model(x)

    results = {}
    for often in (10, 10**9):
        calls.clear()
        monkeypatch.setattr(log_joint_module, "WORTH_RECORDING", often)
        torch.manual_seed(1)
        settings = {"num_chains": 4, "num_temperatures": 150, "num_leapfrog": 1, "start": start}
        results[often] = evidence.annealed(model, vae.guide, x, **settings).log_prob, len(calls)
    (fast, few), (plain, many) = results.values()
    assert_close(fast, plain, rtol=0, atol=1e-9)
    assert few < many / 2


def test_from_the_exact_posterior_no_weight_varies():
    vae, x = random_instance(seed=3, latent=3, event=4, n=5)
    result = evidence.annealed(vae.model, vae.guide, x, num_chains=8, num_temperatures=10, start="guide")
    assert_close(result.log_prob, exact_log_evidence(vae.likelihood, x), rtol=1e-9, atol=1e-9)
    assert (result.std_error < 1e-6).all()


@pytest.mark.parametrize("start", STARTS)
def test_four_of_five_moves_are_accepted(start):
    """From exact normals, nearly all of them."""
    vae, x = random_instance(seed=4, latent=5, event=8, n=10, shift=0.5, widen=1.3)
    result = evidence.annealed(vae.model, vae.guide, x, num_chains=30, num_temperatures=60, start=start)
    least, most = (0.9, 1) if start == "laplace" else (0.65, 0.92)
    assert ((result.acceptance >= least) & (result.acceptance <= most)).all()
    assert "with 30 annealed chains each" in result.summary()


@pytest.mark.parametrize("start", STARTS)
def test_the_chains_end_in_the_posterior(start):
    vae, x = random_instance(seed=6, latent=2, event=3, n=2, shift=0.3, widen=1.2)
    path = path_of(vae, x, start, num_leapfrog=4)
    log_weights, z, _ = path.forward(1500, pilot(path, 60, start))
    share = log_weights.softmax(0)[..., None]
    exact = exact_posterior(vae.likelihood, x)
    error = exact.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt() / 1500**0.5
    # Annealing is long enough here for the weights to vary little, but for those of chains that come from far out.
    assert ((share * z).sum(0).sub(exact.loc).abs() < 6 * error).all()
    for row in range(2):
        assert_close(
            z[:, row].T.cov(aweights=share[:, row, 0]), exact.covariance_matrix[row].detach(), rtol=0.2, atol=0.02
        )


def states(start, end):
    """An ``evaluate`` for two log-densities of positions ``[chains, n, dims]``."""

    def evaluate(position):
        parts = []
        for log_density in (start, end):
            z = position.detach().requires_grad_()
            value = log_density(z)
            parts.append((value.detach(), torch.autograd.grad(value.sum(), z)[0]))
        (first, first_slope), (second, second_slope) = parts
        return State(position, first, second, first_slope, second_slope)

    return evaluate


@pytest.mark.parametrize("inverse_temperature", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("keep", [False, True])
def test_moves_leave_the_density_between_invariant(inverse_temperature, keep):
    """Between two skewed ones: Gammas on the log scale. Means of z, z^2 and z^3 within 5 standard errors."""
    one, log = torch.tensor(1.0, dtype=torch.float64), [dist.transforms.ExpTransform().inv]

    def gamma(concentration, rate):
        return dist.TransformedDistribution(dist.Gamma(concentration * one, rate * one), log)

    def density(which):
        return lambda z: which.log_prob(z)[..., 0]

    between = inverse_temperature
    evaluate = states(density(gamma(1.0, 2.0)), density(gamma(5.0, 1.0)))
    position = gamma(1.0 + 4 * between, 2.0 - between).sample((40_000, 1, 1))
    before, state, momentum = position, evaluate(position), None
    size = torch.tensor([0.6], dtype=torch.float64)
    for _ in range(5):
        state, acceptance, momentum = hmc_move(
            state, evaluate, between * torch.ones(1).double(), size, 3, momentum if keep else None
        )
    assert 0.3 < acceptance.mean() < 0.99  # the step is so long that it matters whether to accept
    fresh = evaluate(state.position)
    for kept, new in zip(state, fresh, strict=True):
        assert_close(kept, new)
    for power in (1, 2, 3):
        moment, other = before**power, state.position**power
        error = (moment.var() + other.var()).sqrt() / len(before) ** 0.5
        assert abs(moment.mean() - other.mean()) < 5 * error
    assert (state.position - before).abs().mean() > 0.3
    # And the momentum of the next move is standard normal, whatever the position.
    assert abs(momentum.mean()) < 5 / 200
    assert abs(momentum.var() - 1) < 5 * 2**0.5 / 200
    assert abs(torch.corrcoef(torch.stack([momentum.flatten(), state.position.flatten()]))[0, 1]) < 5 / 200


def test_a_standard_normal_is_moved_without_rejections():
    def log_density(z):
        return -z.square().sum(-1) / 2

    evaluate = states(log_density, log_density)
    state = evaluate(torch.randn(50, 3, 7, dtype=torch.float64))
    acceptance = hmc_move(state, evaluate, torch.ones(3).double(), torch.full((3,), 1.2).double(), 4).acceptance
    assert_close(acceptance, torch.ones_like(acceptance))


@pytest.mark.parametrize("nowhere", [torch.nan, -torch.inf])
def test_a_move_to_nowhere_is_rejected(nowhere):
    def log_density(z):
        return torch.where(z > 0, -(z**2) / 2 - 3 * (z - 1) ** 2, nowhere)[..., 0]

    evaluate = states(log_density, log_density)
    before = torch.full((1000, 1, 1), 0.1)
    state, acceptance, momentum = hmc_move(evaluate(before), evaluate, torch.tensor([1.0]), torch.ones(1), 1)
    assert (state.position > 0).all()
    assert (state.position != before).any()
    assert (acceptance == 0).any()
    assert acceptance.isfinite().all()
    assert all(part.isfinite().all() for part in (*state, momentum))


def counts(x):
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(3.0, dtype=torch.float64), 2.0))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def counts_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma(2 + x / 2, torch.tensor(2.0, dtype=torch.float64)))


@pytest.mark.parametrize("start", STARTS)
def test_latents_with_bounds_and_discrete_data(start):
    """Gamma and Poisson: p(x) is a negative binomial."""
    x = torch.arange(8.0, dtype=torch.float64)
    result = evidence.annealed(
        counts, counts_guide, x, num_chains=100, num_temperatures=30, num_leapfrog=5, start=start
    )
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


@pytest.mark.parametrize("start", STARTS)
def test_two_latent_sites(start):
    x = torch.randn(6, dtype=torch.float64)
    result = evidence.annealed(
        two_sites, two_sites_guide, x, num_chains=100, num_temperatures=20, num_leapfrog=5, start=start
    )
    exact = dist.Normal(torch.zeros((), dtype=torch.float64), 3**0.5).log_prob(x)
    assert ((result.log_prob - exact).abs() < 5 * result.std_error + 1e-9).all()
    assert (result.std_error < 0.2).all()


def test_vectors_and_back():
    """With a plate to the left of the data's, a bounded site and a simplex."""

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            with pyro.plate("time", 4, dim=-1):
                pyro.sample("a", dist.Beta(torch.tensor(2.0, dtype=torch.float64), 3.0))
            pyro.sample("b", dist.Dirichlet(torch.ones(3, dtype=torch.float64)))

    layout = weights.Layout("data", -2, -3)
    trace = poutine.trace(weights.vectorized(model, 5, layout)).get_trace(x := torch.zeros(7))
    sites = {name: trace.nodes[name] for name in ("a", "b")}
    vectors = LatentVectors(model, sites, layout)
    latents = {name: site["value"] for name, site in sites.items()}
    u = vectors.to_vectors(latents, x)
    assert u.shape == (5, 7, 4 + 2)
    back, log_det = vectors.to_latents(u, x)
    assert log_det.shape == (5, 7)
    for name in latents:
        assert_close(back[name], latents[name])
    # The determinant, by differentiating one vector's free coordinates of the simplex.
    jacobian = torch.autograd.functional.jacobian(
        lambda v: torch.cat([vectors.to_latents(v, x)[0]["a"][0, 0], vectors.to_latents(v, x)[0]["b"][0, 0, 0, :2]]),
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
        ({"start": "posterior"}, "start is 'posterior'; expected one of 'prior', 'guide', 'laplace'"),
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


def test_temperatures_that_are_found_go_from_0_to_1():
    vae, x = random_instance(seed=7, latent=3, event=5, n=6, shift=1.0, widen=0.5)
    for start in STARTS:
        path = path_of(vae, x, start)
        found = pilot(path, 30, start)
        assert found.num_temperatures == 30
        for schedule in (found, found.resized(7), found.resized(200), found.resized(30).rows(torch.tensor([4, 2]))):
            betas = schedule.inverse_temperatures
            assert (betas[0] == 0).all()
            assert (betas[-1] == 1).all()
            assert (betas.diff(dim=0) >= 0).all()
            assert schedule.log_sizes.isfinite().all()
            assert schedule.log_sizes.shape == betas.shape == (schedule.num_temperatures + 1, schedule.variance.numel())
        assert_close(found.resized(30).inverse_temperatures, found.inverse_temperatures)
        assert_close(found.resized(60).inverse_temperatures[::2], found.inverse_temperatures)
        assert_close(found.resized(60).variance, found.variance / 2)
        assert torch.equal(found.rows(torch.tensor([4, 2])).log_sizes, found.log_sizes[:, [4, 2]])


def test_log_weights_vary_less_with_temperatures_that_are_found():
    """From the prior, where nearly all happens at high temperatures.

    The variances of the increments add up to 3.0 to 4.8 (in six runs), with a sigmoid schedule to 5.6 to 12, and with
    even steps to 77 to 130.
    """
    vae, x = random_instance(seed=9, latent=4, event=30, n=3)
    path = path_of(vae, x)
    found = pilot(path, 60, "prior")

    def variance(betas):
        state, total = path.start.evaluate(path.start.draw(400)), 0.0
        for t in range(1, 61):
            total += ((betas[t] - betas[t - 1]) * (state.end - state.start)).var(0).sum().item()
            beta = torch.as_tensor(betas[t], dtype=x.dtype).expand(3)
            state = hmc_move(state, path.start.evaluate, beta, found.log_sizes[t].exp(), 3).state
        return total

    assert (found.inverse_temperatures.diff(dim=0)[0] < 1e-2).all()
    assert variance(found.inverse_temperatures) < variance(sigmoid_schedule(60))
    assert variance(found.inverse_temperatures) < variance([t / 60 for t in range(61)]) / 8


@pytest.mark.parametrize("start", STARTS)
def test_a_path_of_some_rows_is_that_of_these_rows(start):
    """The densities of the first rows, and, for every row, the same mean weight (5 standard errors)."""
    vae, x = random_instance(seed=5, latent=2, event=3, n=5, shift=0.5, widen=1.2)
    if start == "guide":
        return  # it is always run on all rows
    path, index = path_of(vae, x, start), torch.tensor([3, 1])
    part, schedule = path.some(index), pilot(path, 4, start)
    coordinates = path.start.draw(6)
    whole = path.start.evaluate(coordinates)
    some = part.start.evaluate(coordinates[:, index])
    for all_rows, few in zip(whole, some, strict=True):
        assert_close(all_rows[:, index], few)
    assert_close(part.start.to_position(coordinates[:, index]), path.start.to_position(coordinates)[:, index])
    log_weights = part.forward(10_000, schedule.rows(index)).log_weights
    mean, error = mean_ratio(log_weights - exact_log_evidence(vae.likelihood, x)[index])
    assert ((mean - 1).abs() < 5 * error).all()


def test_a_prior_narrower_than_rounding_has_coordinates():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.full_like(x, 1e6), 1e-4))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    log_joint = LogJoint(model, torch.zeros(3), weights.Layout("data", -1, -2), 1000)
    start = FromPrior(log_joint, torch.arange(3))
    assert (start.scale > 0).all()
    assert start.draw(8).isfinite().all()


class Numbered:
    """A standard normal that is start and end of a path; latent vectors have the number of their row added."""

    def __init__(self, rows):
        self.rows = rows

    def draw(self, num_chains):
        return torch.randn(num_chains, len(self.rows), 2, dtype=torch.float64)

    def evaluate(self, coordinates):
        value = -coordinates.square().sum(-1) / 2
        return State(coordinates, value, value, -coordinates, -coordinates)

    def to_position(self, coordinates):
        return coordinates + 100 * self.rows[:, None]

    def some(self, index):
        return Numbered(self.rows[index])


def test_chains_of_different_lengths_come_back_in_the_order_of_their_rows():
    lengths = torch.tensor([20, 3, 40, 1, 3])
    even = torch.linspace(0, 1, 41, dtype=torch.float64)[:, None].expand(-1, 5)
    schedule = Schedule(even, torch.zeros_like(even), torch.ones(5)).resized(lengths)
    log_weights, position, acceptance = AnnealedPath(Numbered(torch.arange(5)), 2).forward(8, schedule)
    assert_close(log_weights, torch.zeros_like(log_weights))
    assert_close(acceptance, torch.ones_like(acceptance))  # moves of a standard normal are exact
    assert torch.equal((position / 100).round().mean((0, 2)), torch.arange(5.0).double())


@pytest.mark.parametrize("start", STARTS)
def test_the_gradients_of_a_start_are_those_of_its_densities(start):
    """In its own coordinates, of a prior that is three times as wide as a standard normal; by finite differences."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 3.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1).sin(), 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, None].expand(-1, 2), 0.5).to_event(1))

    x = torch.randn(4, dtype=torch.float64)
    path = path_from(start, Programs(model, guide, x), x, 3).start
    place = path.draw(5)
    state, size = path.evaluate(place), 1e-5
    for dim, step in enumerate(size * torch.eye(2, dtype=torch.float64)):
        above, below = path.evaluate(place + step), path.evaluate(place - step)
        for name in ("start", "end"):
            slope = (getattr(above, name) - getattr(below, name)) / (2 * size)
            assert_close(getattr(state, f"{name}_gradient")[..., dim], slope, rtol=1e-4, atol=1e-4)


def test_schedules_are_not_made_of_chains_that_have_no_density():
    """Where the likelihood is NaN or zero for half of the prior, the others count."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            pyro.factor("x", torch.where(z > 0, -((z - x) ** 2), -torch.inf))

    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    log_joint = LogJoint(model, x, weights.Layout("data", -1, -2), 1000)
    path = AnnealedPath(FromPrior(log_joint, torch.arange(2)), 3)
    schedule = path.pilot(20, sigmoid_schedule(24))
    assert isinstance(schedule, Schedule)
    assert schedule.inverse_temperatures.isfinite().all()
    assert schedule.log_sizes.isfinite().all()
    chains = path.forward(4000, schedule)
    # p(x) is the integral over z > 0 of N(z; 0, 1) exp(-(z - x)^2): a normal with the precision 3 at 2 x / 3.
    exact = -x.square() / 3 - 0.5 * torch.tensor(3.0).log() + dist.Normal(0.0, 1.0).cdf(2 * x / 3**0.5).log()
    mean, error = mean_ratio(chains.log_weights.nan_to_num(nan=-torch.inf) - exact)
    assert (error < 0.1).all()
    assert ((mean - 1).abs() < 5 * error).all()


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
    noise = (drawn.x - vae.likelihood(drawn.latents["z"]).mean).detach() / vae.likelihood.scale
    assert abs(noise.std() - 1) < 5 / (2 * noise.numel()) ** 0.5


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


def test_a_sandwich_of_few_datapoints_has_the_error_of_few():
    """Student's 95% quantile of two is 12.7, where the normal one is 2; one datapoint has no error."""
    x = torch.zeros(2, 1)
    two = evidence.Sandwich(x, lower=torch.zeros(2), upper=torch.tensor([0.1, 0.3]), acceptance=torch.ones(2))
    assert "gap 0.200 +- 1.271 nats" in str(two)
    assert "+- 1.271, for the choice of datapoints" in str(two)
    one = evidence.Sandwich(x[:1], lower=torch.zeros(1), upper=torch.full((1,), 0.2), acceptance=torch.ones(1))
    assert "gap 0.200 nats: its error is not known from one datapoint" in str(one)
    assert "+-" not in str(one)


def test_the_upper_bound_of_a_sandwich_is_of_the_mean_inverse_weight():
    """Exponentials of minus the bound have the mean 1 / p(x), over exact draws: within 5 standard errors."""
    vae, x = random_instance(seed=5, latent=2, event=3, n=3000, widen=0.6)
    path = {"num_temperatures": 1, "num_leapfrog": 3, "start": "guide"}
    bounds = evidence.sandwich(vae.model, vae.guide, x, num_chains=20, **path, progress=iter)
    ratio = (exact_log_evidence(vae.likelihood, bounds.x) - bounds.upper).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 3000**0.5 < 0.1


def test_what_a_sandwich_says_of_its_gap():
    bounds = torch.tensor([[-3.0, -1.0, -2.0, -2.0], [-2.0, -1.0, -1.0, -2.0]], dtype=torch.float64)
    sandwich = evidence.Sandwich(torch.zeros(4), *bounds, torch.full((4,), 0.8))
    assert sandwich.gap == pytest.approx(0.5)
    assert sandwich.gap_std_error == pytest.approx((1 / 3) ** 0.5 / 2)
    found = re.search(r"-2.000 to -1.500 nats \(\+- ([0-9.]+)", str(sandwich))
    assert float(found[1]) == pytest.approx(3.182 * (2 / 3) ** 0.5 / 2, rel=0.01)  # Student's, of 3 degrees
    assert "more temperatures" not in str(sandwich)
    assert "more temperatures" in str(replace(sandwich, upper=bounds[1] + 1))


def test_a_mode_in_which_hardly_a_chain_starts_is_in_the_error():
    """Chains from the prior's share of the start end in a second mode, with a weight near zero: but only one of dozens.

    Most samples of 16 chains have none such, and then all weights look alike and the estimate is too high.
    """
    far, narrow = torch.tensor([1.5, 0.0]), torch.tensor(0.15)
    modes = MixtureSameFamily(
        Categorical(logits=torch.tensor([0.0, -6.0])), Independent(Normal(torch.stack([far, -far]), narrow), 1)
    )

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(0.0, 1.0).mask(False), obs=x)
            pyro.factor("modes", modes.log_prob(z))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    # The product of two normals is a normal, times their density at the distance of their means.
    densities = Normal(0.0, (1 + narrow**2).sqrt()).log_prob(torch.stack([far, -far])).sum(-1)
    truth = (modes.mixture_distribution.logits + densities).logsumexp(0)
    torch.manual_seed(0)
    result = evidence.annealed(
        model,
        guide,
        torch.zeros(200),
        start="laplace",
        num_chains=16,
        num_temperatures=20,
        num_leapfrog=3,
        progress=False,
    )
    inside = ((result.log_prob - truth).abs() <= result.error).double().mean()
    assert inside >= 0.93
    assert result.error.median() < 8 * (result.log_prob - truth).square().mean().sqrt()

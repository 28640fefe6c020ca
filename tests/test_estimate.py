"""log p(x) by the method that each datapoint needs: on models with exact answers its errors cover the truth.

The models are those of ``known_evidence.py``.
"""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import known_evidence as known
import pyro
import pytest
import torch
from linear_gaussian import exact_log_evidence, random_instance
from many_linear_gaussians import ManyLinearGaussians
from pyro import distributions as dist
from scipy.stats import binom
from torch.testing import assert_close

from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors
from pyro_vae.evidence.estimators import certificate as certificate_module
from pyro_vae.evidence.estimators import climbing
from pyro_vae.evidence.ladder import laplace as laplace_module
from pyro_vae.evidence.ladder.annealing import Annealing
from pyro_vae.evidence.ladder.block import Block
from pyro_vae.evidence.ladder.laplace import Laplace
from pyro_vae.evidence.ladder.pilots import wanted_samples
from pyro_vae.evidence.ladder.settings import Settings
from pyro_vae.evidence.results import methods
from pyro_vae.evidence.results.certificate import Certificate
from pyro_vae.evidence.results.error_bars import expected_relative_variance
from pyro_vae.evidence.results.running_weights import RunningWeights
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained import laplace_proposal
from pyro_vae.evidence.unconstrained.annealed_path import Annealed
from pyro_vae.evidence.unconstrained.laplace_proposal import fit_block
from pyro_vae.evidence.unconstrained.log_joint import LogJoint

ROUNDING = 1e-6  # nats: of float64 sums, where the error is that small


def estimate(model, guide, x, **options):
    return evidence.estimate(model, guide, x, **{"progress": iter, **options})


def outside(result, exact, rounding=ROUNDING):
    low, high = result.interval()
    return ~((low - rounding <= exact) & (exact <= high + rounding))


def most_outside(n, share=0.05, false_alarm=1e-4):
    """So many of n datapoints may lie outside of their intervals, if the share is what it should be."""
    return int(binom.ppf(1 - false_alarm, n, share))


@pytest.mark.parametrize("off", [(0.0, 1.0), (4.0, 0.5)])
def test_five_hundred_linear_gaussian_models_with_a_good_guide_and_a_bad_one(off):
    """Intervals cover 93% or more, and are not merely wide."""
    models = ManyLinearGaussians(500, seed=1)
    exact = models.log_prob(models.x)
    result = estimate(models.model, models.guide(*off), models.x, max_temperatures=128)
    difference = result.log_prob - exact
    assert result.settled.all()
    assert outside(result, exact).double().mean() <= 0.07
    assert result.error.median() <= 4 * difference.square().mean().sqrt()
    assert abs(difference.mean()) <= result.mean_error < 0.05
    assert (result.method == methods.LAPLACE).double().mean() > 0.9


EASY = {  # (almost) all datapoints have a known error
    "linear-Gaussian, guide off": known.linear_gaussian,
    "two sites": known.two_sites,
    "log-normal scale": known.log_normal,
    "Gamma and Poisson": known.gamma_poisson,
    "Beta and binomial": known.beta_binomial,
    "Dirichlet and multinomial": known.dirichlet_multinomial,
    "uniform prior": known.uniform_prior,
    "Laplace prior": known.laplace_prior,
    "Student t prior": known.student_prior,
    "funnel": known.funnel,
    "flow as prior": known.flow_prior,
    "discrete latent": known.discrete,
    "sphere": known.sphere,
    "mixture prior, guide sees all": partial(known.mixture_prior, seen="wide"),
    "mixture prior, guide sees one mode": partial(known.mixture_prior, modes=2, dims=1),
    "square, guide sees one mode": known.both_signs,
    "square, guide between the modes": partial(known.both_signs, seen="between"),
}
HARD = {  # where the error may be infinite, but is not to be too small
    "Cauchy likelihood": known.cauchy_likelihood,
    "Cauchy posterior": known.cauchy_posterior,
    "hardly any data, Cauchy prior": known.vague_cauchy,
    "ring": known.ring,
    "banana": known.banana,
    "spike and slab": known.spike_and_slab,
    "mixture prior in 10 dimensions": partial(known.mixture_prior, dims=10),
    "a narrow mode and a wide one": partial(known.two_widths, dims=12, wide=1.0, apart=2.0),
    "guide between three modes": partial(known.mixture_prior, seen="between"),
    "four squares": known.many_signs,
}


@pytest.mark.parametrize("name", [*EASY, *HARD])
def test_the_truth_is_covered_as_often_as_the_intervals_say(name):
    """Of all datapoints, at most what 5% make likely (false alarm: 1 in 10^4); so does the mean, at twice its error."""
    n = 32 if name in EASY else 12
    model, guide, x, exact = {**EASY, **HARD}[name](n)
    result = estimate(model, guide, x, max_temperatures=128 if name in EASY else 32)
    wrong = outside(result, exact)
    assert wrong.sum() <= most_outside(n)
    assert abs((result.log_prob - exact).mean()) <= 2 * result.mean_error + ROUNDING
    assert result.log_prob.isfinite().all()
    if name in EASY:
        assert result.settled.double().mean() >= 0.9


@pytest.mark.parametrize("make", [known.linear_gaussian, known.gamma_poisson, known.both_signs, known.discrete])
@pytest.mark.parametrize("n", [1, 2, 10])
def test_few_datapoints(make, n):
    """Whatever n, the noise of the mean is below the tolerance: 5 errors (10 where the posterior is not normal)."""
    model, guide, x, exact = make(n)
    result = estimate(model, guide, x, max_temperatures=128)
    assert ((result.log_prob - exact).abs() <= 3 * result.error + ROUNDING).all()
    if result.settled.all():
        assert result.mean_error <= 0.15
        assert abs(result.mean - exact.mean()) <= 3 * result.mean_error + ROUNDING
    assert f"<th>datapoints</th><td>{n}, {int(result.settled.sum())} with" in result._repr_html_()


@pytest.mark.parametrize("make", [known.linear_gaussian, known.dirichlet_multinomial, known.discrete])
def test_in_single_precision(make):
    model, guide, x, exact = make(60)
    result = estimate(model, guide, x.float(), max_temperatures=64)
    assert result.log_prob.dtype == result.error.dtype == torch.float64
    assert outside(result, exact, rounding=1e-4).sum() <= most_outside(60)
    assert result.settled.double().mean() > 0.9


def test_a_neural_decoder_against_quadrature():
    vae = bent_vae().double()
    with torch.no_grad():
        x = vae.sample(40)
        line, log_weight = known.even_grid(-8, 8, 401)
        z = torch.cartesian_prod(line, line)
        log_prior = vae.prior().log_prob(z) + 2 * log_weight[1]
        logits = vae.likelihood.network(z).flatten(1)
        log_likelihood = x.flatten(1) @ logits.mT - torch.nn.functional.softplus(logits).sum(1)
        exact = (log_prior + log_likelihood).logsumexp(1)
    result = estimate(vae.model, vae.guide, x, max_temperatures=64)
    assert outside(result, exact).sum() <= most_outside(40)
    assert result.settled.double().mean() > 0.9


def bent_vae():
    torch.manual_seed(7)
    decoder, encoder = nn.mlp(2, [16], (1, 4, 4)), nn.mlp((1, 4, 4), [16], 4)
    with torch.no_grad():
        decoder[0].weight.mul_(3)
    return VAE(priors.StandardNormal(2), likelihoods.Bernoulli(decoder), posteriors.Normal(encoder))


@pytest.mark.parametrize(("dims", "sigma"), [(1, 0.4), (5, 0.7), (20, 0.8), (50, 0.8), (20, 1.2)])
def test_a_guide_that_is_too_narrow_or_too_wide(dims, sigma):
    """The posterior is the prior, and p(x) = 1."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(dims), 1.0).to_event(1))
            pyro.sample("x", dist.Delta(torch.zeros_like(x)), obs=torch.zeros_like(x))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), dims), sigma).to_event(1))

    result = estimate(model, guide, torch.zeros(200, dtype=torch.float64))
    assert outside(result, 0.0).sum() <= most_outside(200)
    assert result.settled.all()
    assert abs(result.mean) <= 2 * result.mean_error < 0.1


def test_fifty_dimensions_on_scales_from_3_to_95_hundredths():
    sd = torch.logspace(-1.5, 0.5, 50, dtype=torch.float64)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(50), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, sd).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            q = dist.Normal(x / (1 + sd**2), 0.8 * sd / (1 + sd**2).sqrt())
            pyro.sample("z", q.to_event(1))

    x = torch.randn(100, 50, dtype=torch.float64) * (1 + sd**2).sqrt()
    exact = dist.Normal(0.0, (1 + sd**2).sqrt()).to_event(1).log_prob(x)
    result = estimate(model, guide, x)
    assert outside(result, exact).sum() <= most_outside(100)
    assert result.settled.all()
    assert abs(result.mean - exact.mean()) <= 2 * result.mean_error < 0.1


def test_no_error_is_below_the_rounding_of_log_p():
    """Of which all is the sum of a million nats in single precision, in both a large and a small one."""
    for many in (1.0, 1e6):

        def model(x, many=many):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)
                pyro.factor("more", torch.full_like(x, -many))

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

        result = estimate(model, guide, torch.randn(4), max_temperatures=8)
        assert (result.error >= torch.finfo(torch.float32).eps * result.log_prob.abs()).all()


def test_a_smaller_tolerance_gives_smaller_errors():
    model, guide, x, exact = known.gamma_poisson(60)
    errors, off = [], []
    for tolerance in (0.4, 0.003):
        torch.manual_seed(1)
        result = estimate(model, guide, x, tolerance=tolerance)
        errors.append(result.error.median())
        off.append((result.log_prob - exact).square().mean())
        assert result.mean_error < 2 * tolerance
        assert result.bias.mean() < tolerance
        assert outside(result, exact).sum() <= most_outside(60)
    assert errors[1] < errors[0]
    assert off[1] < off[0]


def test_with_too_few_temperatures_the_error_is_infinite():
    model, guide, x, exact = known.ring(20, dims=20, noise=0.01)
    result = estimate(model, guide, x, max_temperatures=2)
    assert result.log_prob.isfinite().all()
    assert (~result.settled).any()
    assert outside(result, exact).sum() <= most_outside(20)
    assert (result.num_temperatures[result.method >= methods.ANNEALED] <= 2).all()
    assert "lower bound" in result.summary()


def a_block(n=3):
    """For which nothing has been done."""
    vae, x = random_instance(seed=3, latent=2, event=3, n=n)
    settings = Settings(tolerance=0.05, max_temperatures=32, num_datapoints=n)
    return Block(Programs(vae.model, vae.guide, x), x, settings)


def log_joint_of(block):
    programs = block.programs
    return LogJoint(programs.model, block.x, programs.layout, programs.chunk_size)


def laplace_of(block, **changes):
    log_joint = log_joint_of(block)
    return Laplace(block, log_joint, fit_block(log_joint, block.programs.guide)._replace(**changes))


def weights_of(log_weights):
    running = RunningWeights(log_weights.shape[1], len(log_weights))
    running.update(log_weights)
    return running


def test_an_estimate_below_what_another_has_seen_is_taken_back():
    """Until something better comes; one that is higher, or lower by chance, is not."""
    log_weights = 0.3 * torch.randn(400, 3, dtype=torch.float64)
    block, rows = a_block(), torch.arange(3)
    block.floor.raise_by(rows, weights_of(log_weights + torch.tensor([5.0, 0.0, -5.0])))
    assert (
        (block.floor.value < torch.tensor([5.05, 0.05, -4.95])) & (block.floor.value > torch.tensor([4.5, -0.5, -5.5]))
    ).all()
    block.report(methods.LAPLACE, rows, weights_of(log_weights), samples=400)
    assert block.contradicted.tolist() == [True, False, False]
    for name in ("error", "bias"):
        assert block.columns[name].isinf().tolist() == [True, False, False]
    assert block.unsettled.tolist() == [0]
    low = block.columns["log_prob"].clone()
    block.report(methods.FROM_PRIOR, rows, weights_of(log_weights + 5), samples=400)
    assert block.columns["error"].isfinite().all()
    assert block.columns["method"][0] == methods.FROM_PRIOR
    assert block.columns["log_prob"][0] > low[0] + 4.9


def test_a_floor_leaves_room_for_its_own_error():
    """Twice the error, at least a twentieth of a nat; where none is known, ten standard errors and a nat."""
    block, rows = a_block(), torch.arange(3)
    sure = weights_of(1e-3 * torch.randn(400, 3, dtype=torch.float64))
    block.floor.raise_by(rows, sure)
    assert_close(block.floor.value, sure.log_mean - 0.05)
    block, unsure = a_block(), weights_of(1e-3 * torch.randn(3, 3, dtype=torch.float64))
    block.floor.raise_by(rows, unsure)
    assert_close(block.floor.value, unsure.log_mean - 1)
    block, wild = a_block(), weights_of(6 * torch.randn(400, 3, dtype=torch.float64))
    block.floor.raise_by(rows, wild)
    assert (block.floor.value <= wild.log_mean - (10 * wild.std_error).clamp_min(1) + 1e-9).all()
    block.floor.raise_by(rows, sure)
    assert (block.floor.value >= sure.log_mean - 0.05 - 1e-9).all()  # it only rises


@pytest.mark.parametrize(("wanted", "complete"), [(0.0, True), (0.0, False), (256.0, False), (256.0, True)])
def test_what_a_pilot_has_refused_has_no_error_of_its_own(monkeypatch, wanted, complete):
    """Nor have samples of normals that may lack modes: whatever they say themselves."""
    block = a_block()
    monkeypatch.setattr(laplace_module, "wanted_samples", lambda *_: torch.full((3,), wanted).double())
    laplace = laplace_of(block, complete=torch.full((3,), complete))
    # Otherwise there are more samples where the pilot has refused.
    laplace.few_dims = False
    monkeypatch.setattr(laplace_module, "LITTLE_INFORMATION", -torch.inf)
    laplace.run()
    assert block.columns["log_prob"].isfinite().all()
    assert block.columns["error"].isfinite().tolist() == [wanted > 0 and complete] * 3


def test_a_pilot_asks_for_as_many_samples_as_its_variance_needs():
    """Powers of two, and none where more than is allowed would be needed."""
    settings = a_block().settings
    pilot = weights_of(torch.tensor([0.1, 0.8, 3.0]) * torch.randn(4000, 3, dtype=torch.float64))
    expected = expected_relative_variance(pilot.moments())
    wanted = wanted_samples(pilot, settings, torch.inf)
    assert (expected / wanted <= settings.variance_for_bias).all()
    assert torch.equal(wanted.log2(), wanted.log2().round())
    assert wanted[0] == 256
    assert wanted_samples(pilot, settings, 1.0).gt(0).tolist() == [True, True, False]


def test_a_guide_without_a_class_is_found_out():
    """Of discrete latents: its own weights do not vary at all."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5]).to(x)))
            pyro.sample("x", dist.Normal(4 * z.to(x), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(torch.tensor([1.0, 0.0]).to(x).expand(len(x), 2)))

    x = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    exact = torch.stack([dist.Normal(mean, 1.0).log_prob(x) - math.log(2) for mean in (0.0, 4.0)]).logsumexp(0)
    result = estimate(model, guide, x)
    assert ((result.log_prob - exact).abs() <= 2 * result.error).all()


def test_fresh_samples_are_not_better_than_their_pilot(monkeypatch):
    block = a_block()
    laplace = laplace_of(block)
    pilot = weights_of(9 * torch.randn(1024, 3, dtype=torch.float64) - 100)
    monkeypatch.setattr(laplace, "pilot", lambda *_: (pilot, torch.zeros(3), torch.zeros(3)))
    counts = torch.full((3,), 256.0).double()
    monkeypatch.setattr(laplace_module, "wanted_samples", lambda *_: counts)
    reported = []
    monkeypatch.setattr(block, "report", lambda *args, **_: reported.append(args))
    block.columns["bias"] = torch.zeros(3).double()
    block.columns["error"] = torch.zeros(3).double()
    laplace.run()
    assert len(reported) == 1
    assert_close(reported[0][3].log_mean, pilot.log_mean)


def test_a_bias_above_twice_the_tolerance_wants_something_better():
    block = a_block()
    block.columns["error"][:] = 0.5
    block.columns["bias"] = torch.tensor([0.09, 0.11, torch.nan]).double()
    assert block.unsettled.tolist() == [1, 2]


@pytest.mark.parametrize("n", [1, 10, 10_000])
def test_the_variance_that_is_aimed_at_is_small_enough_for_bias_and_noise(n):
    """The bias of a log-mean is half of its variance; the mean over n has an nth of it, and two of its deviations."""
    settings = Settings(tolerance=0.05, max_temperatures=1, num_datapoints=n)
    assert 0 < settings.variance_for_bias / 2 <= settings.tolerance / 4
    assert 0 < settings.variance <= settings.variance_for_bias
    assert 2 * (settings.variance / n) ** 0.5 <= settings.tolerance * (1 + 1e-9)


class Standstill:
    """A path and its schedule: chains that find nothing but the normals they come from."""

    def some(self, index):
        self.count = len(index)
        return self

    rows = some

    def resized(self, num_temperatures):  # noqa: ARG002
        return self

    def forward(self, num_chains, schedule):  # noqa: ARG002
        log_weights = 1e-3 * torch.randn(num_chains, self.count, dtype=torch.float64)
        return Annealed(log_weights, torch.zeros(num_chains, self.count, 2), torch.ones(self.count))


def test_chains_that_do_not_see_why_weights_of_their_normals_vary_are_not_believed():
    block, rows, index = a_block(), torch.arange(3), torch.tensor([0, 2])
    laplace = laplace_of(block)
    variance = torch.tensor([100.0, 100.0, 0.0]).double()
    annealing = Annealing(block, laplace.log_joint, laplace.fit.normals, variance)
    for method, believed in ((methods.ANNEALED, [False, True]), (methods.FROM_PRIOR, [True, True])):
        annealing.paths[method] = rows, Standstill(), Standstill()
        annealing.run_chains(method, index, torch.tensor([24, 24]), 32)
        assert block.columns["error"][index].isfinite().tolist() == believed


def test_a_budget_stops_it_and_says_what_was_left(monkeypatch):
    """Its search for modes is not repeated, though every point of a ring is one."""
    model, guide, x, exact = known.ring(3, dims=3, noise=0.1)
    searches, search = [], laplace_proposal.fit_normals
    monkeypatch.setattr(laplace_proposal, "fit_normals", lambda *args: searches.append(1) or search(*args))
    result = estimate(model, guide, x, budget=1e-6)
    assert len(searches) == 1
    assert result.log_prob.isfinite().all()
    assert result.stopped_by_budget > 0
    assert (~result.settled).any()
    assert (result.log_prob <= exact + 2).all()
    model, guide, x, _ = known.gamma_poisson(10)
    assert estimate(model, guide, x, budget=1e9, max_temperatures=4).stopped_by_budget == 0


@pytest.mark.parametrize("make", [known.linear_gaussian, known.both_signs, known.dirichlet_multinomial, known.discrete])
def test_a_certificate_encloses_log_p_on_data_of_the_model_itself(make):
    """Its bounds against the truth at its own data: 4 standard errors of the means (false alarm: 3 in 10^5 each)."""
    model, guide, x, _ = make(10)
    result = estimate(model, guide, x, certify=20, max_temperatures=32)
    certificate = result.certificate
    assert len(certificate.lower) == len(certificate.upper) == len(certificate.error) == 20
    assert certificate.gap > -4 * certificate.gap_std_error
    assert certificate.upper.isfinite().all()
    if make is not known.discrete:
        assert certificate.gap < 0.3 + 4 * certificate.gap_std_error
    for words in (str(certificate), certificate._repr_html_()):
        assert f"{certificate.gap:.3f}" in words
    certificate.plot()


def test_the_bounds_of_a_certificate_are_on_either_side_of_the_truth():
    vae, x = random_instance(seed=3, latent=3, event=4, n=10, shift=1.0, widen=0.6)
    drawn = []

    def model(x):
        if len(x) == 80:
            drawn.append(x)
        return vae.model(x)

    certificate = estimate(model, vae.guide, x, certify=80).certificate
    exact = exact_log_evidence(vae.likelihood, drawn[-1])
    for excess in (exact - certificate.lower, certificate.upper - exact):
        assert excess.mean() > -4 * excess.std() / 80**0.5 - ROUNDING
    assert ((certificate.lower - exact).abs() <= 3 * certificate.error).all()
    assert "80 datapoints drawn from the model" in str(certificate)


class Echo:
    """A ladder that gives back what it was given: x as lower bounds, the exact draws as upper ones."""

    def __init__(self, programs, x, settings, fast):
        assert fast is None
        assert len(x) <= settings.num_datapoints < len(programs.x)
        self.x = x

    def climb(self):
        return {"log_prob": self.x, "error": torch.zeros_like(self.x)}

    def upper_bound(self, latents):
        return latents["z"]


def test_the_exact_draws_of_a_certificate_belong_to_their_datapoints(monkeypatch):
    """In every block: x is z to a thousandth."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            pyro.sample("x", dist.Normal(z, 1e-3), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1e-3))

    monkeypatch.setattr(certificate_module, "Ladder", Echo)
    programs = Programs(model, guide, torch.randn(5, dtype=torch.float64))
    certificate = certificate_module.certified(programs, Settings(0.1, 8, 5), 12, rows=4)
    assert len(certificate.lower.unique()) == 12
    assert_close(certificate.upper, certificate.lower, rtol=0, atol=0.01)


def test_the_error_of_the_gap_of_a_certificate_is_that_of_a_mean():
    bounds = torch.tensor([[-3.0, -1.0, -2.0, -2.0], [-2.0, -1.0, -1.0, -2.0]], dtype=torch.float64)
    error = torch.tensor([0.1, math.inf, 0.1, 0.1], dtype=torch.float64)
    certificate = Certificate(*bounds, error)
    assert certificate.gap == pytest.approx(0.5)
    assert certificate.gap_std_error == pytest.approx((1 / 3) ** 0.5 / 2)
    assert certificate.settled == pytest.approx(0.75)
    assert "25.0% of these datapoints have no known error" in str(certificate)
    assert Certificate(*bounds[:, :1], error[:1]).gap_std_error == math.inf


def test_a_budget_is_shared_out_among_the_blocks_that_are_left(monkeypatch):
    """In proportion to their datapoints, from when the first of them begins: a run may go on from the 20th."""
    monkeypatch.setattr(climbing, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    clock = climbing.Clock(60.0, 50)
    assert [clock.deadline(first, 10) for first in (20, 30, 40)] == pytest.approx([1020.0, 1040.0, 1060.0])
    assert climbing.Clock(None, 50).deadline(0, 10) == math.inf


def test_matrices_of_a_block_stay_small(vae, x):
    """Four matrices of each datapoint: in a few dimensions it is the number of datapoints that is limited."""
    programs = Programs(vae.model, vae.guide, x)
    assert programs.latent_size == 2
    for size, chunk_size in ((2, 2**16), (100, 2**16), (400, 2**16), (5000, 2**16), (100, 30)):
        programs.latent_size, programs.chunk_size = size, chunk_size
        rows = climbing.block_rows(programs)
        assert 1 <= rows <= chunk_size
        assert rows <= 8 or 4 * rows * size**2 <= 2**25
    programs.latent_size, programs.chunk_size = 2, 2**16
    assert climbing.block_rows(programs) == 1024


def test_the_same_seed_gives_the_same_result_and_chunks_only_round():
    """If they hold so many pairs that as many are drawn at once; the numbers of smaller ones agree within errors."""
    model, guide, x, _ = known.both_signs(20)
    results = []
    for chunk_size in (2048, 2048, 4096, 1024, 160):
        torch.manual_seed(3)
        results.append(estimate(model, guide, x, chunk_size=chunk_size, max_temperatures=64))
    first, again, *others, small = results
    for name in ("log_prob", "error", "method", "num_samples", "num_temperatures", "ess"):
        assert torch.equal(getattr(first, name).nan_to_num(-1), getattr(again, name).nan_to_num(-1))
    for other in others:
        assert_close(other.log_prob, first.log_prob, rtol=0, atol=1e-6)
        assert torch.equal(other.method, first.method)
    assert ((small.log_prob - first.log_prob).abs() <= small.error + first.error).all()
    assert not torch.equal(small.log_prob, first.log_prob)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("validation", [False, True])
def test_in_every_mode_of_autograd_with_validation_and_without(vae, x, mode, validation):
    vae.eval()
    parameters = [parameter.clone() for parameter in vae.parameters()]
    torch.manual_seed(3)
    expected = estimate(vae.model, vae.guide, x, max_temperatures=16)
    torch.manual_seed(3)
    with mode(), pyro.validation_enabled(validation):
        result = estimate(vae.model, vae.guide, x, max_temperatures=16)
    assert_close(result.log_prob, expected.log_prob)
    assert all(
        torch.equal(old, new) and new.grad is None for old, new in zip(parameters, vae.parameters(), strict=True)
    )
    assert not vae.training


def test_data_made_in_inference_mode(vae):
    with torch.inference_mode():
        x = torch.rand(5, 1, 4, 4).bernoulli()
        result = estimate(vae.model, vae.guide, x, certify=4, max_temperatures=16)
    assert result.settled.all()


def test_what_it_says(vae, x):
    result = estimate(vae.model, vae.guide, x)
    assert len(result.method) == len(result.num_samples) == len(result.acceptance) == len(x)
    assert len(result.seconds_by_method) == len(methods.METHODS)
    assert result.seconds_by_method[methods.LAPLACE] > 0
    assert result.settled.all()
    assert result.summary().startswith("log p(x) = ")
    assert "nan" not in result.summary() + result._repr_html_()
    low, high = result.interval(0.5)
    assert (high - low <= 2 * result.error).all()
    result.plot()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0}, "tolerance is 0"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"tolerance": math.nan}, "tolerance is nan"),
        ({"max_temperatures": 0}, "max_temperatures is 0"),
        ({"certify": -1}, "certify is -1"),
        ({"budget": 0.0}, "budget is 0.0"),
    ],
)
def test_bad_settings(vae, x, options, message):
    with pytest.raises(ValueError, match=message):
        estimate(vae.model, vae.guide, x, **options)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.nan, "site 'broken' of the model has a log-density that is NaN"),
        (torch.inf, "datapoint 200 has"),
        (-torch.inf, "datapoint 200 has"),
    ],
)
def test_weights_that_cannot_be_used(value, message):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.sample("broken", dist.Unit(torch.where(x == 9, value, 0.0), validate_args=False), obs=x.new_empty(0))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    x = torch.randn(300)
    x[200] = 9
    with pytest.raises(ValueError, match=message):
        estimate(model, guide, x, max_temperatures=4)

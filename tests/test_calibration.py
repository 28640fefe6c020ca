"""Simulation-based calibration: exact posteriors pass, wrong ones fail and are named for what they are."""

from __future__ import annotations

import pyro
import pytest
import torch
from linear_gaussian import random_instance
from matplotlib.figure import Figure
from pyro import distributions as dist
from scipy.stats import binom, chisquare
from torch.testing import assert_close

from pyro_vae.evidence import Calibration, calibrate
from pyro_vae.evidence.diagnostics.calibration.plot import uniform_band
from pyro_vae.evidence.diagnostics.calibration.ranks import projection_ranks, ranks_among
from pyro_vae.system.interrupts import Interrupted


def two_sites(x):
    """w ~ N(0, 1); v_j ~ N(0, 1), x_j ~ N(w + v_j, 1/4) for j = 1, 2, of which x is ``[n, 2]``."""
    with pyro.plate("data", len(x), dim=-1):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("features", 2, dim=-2):
            v = pyro.sample("v", dist.Normal(torch.zeros(2, 1), 1.0))
            pyro.sample("x", dist.Normal(w + v, 0.5), obs=x.T)


def two_sites_guide(x, w_scale=1.0, v_shift=0.0):
    """The exact posterior q(w) q(v | w), with w rescaled and v_2 shifted, in standard deviations."""
    with pyro.plate("data", len(x), dim=-1):
        precision = 1 + 2 / 1.25
        w = pyro.sample("w", dist.Normal(x.sum(1) / 1.25 / precision, w_scale * precision**-0.5))
        with pyro.plate("features", 2, dim=-2):
            shift = v_shift * 0.2**0.5 * torch.tensor([[0.0], [1.0]])
            pyro.sample("v", dist.Normal((x.T - w) / 1.25 + shift, 0.2**0.5))


def counts(x):
    """A positive latent, and data that are counts."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def counts_guide(x, factor=1.0):
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma(2 + x, 2.0 / factor))


def classes(x):
    """A discrete latent."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
        pyro.sample("x", dist.Normal(k.to(x.dtype), 0.7), obs=x)


def classes_guide(x, prior=(0.2, 0.5, 0.3)):
    with pyro.plate("data", len(x)):
        log_likelihood = dist.Normal(torch.arange(3.0), 0.7).log_prob(x[..., None])
        pyro.sample("k", dist.Categorical(logits=torch.tensor(prior).log() + log_likelihood))


@pytest.mark.parametrize("latent", [1, 4])
@pytest.mark.parametrize("chunk_size", [None, 700])
def test_the_exact_posterior_passes(latent, chunk_size):
    """False alarm: 1 in 10^4 for each of the 4 cases. Blocks of a few rows must find their own true latents."""
    vae, x = random_instance(seed=latent, latent=latent, event=3, n=400)
    result = calibrate(vae.model, vae.guide, x, chunk_size=chunk_size)
    assert result.ranks["z"].shape == (400, latent)
    assert not result.departures(false_alarm=1e-4)
    assert result.num_tests == {1: 2, 4: 4 + 1 + 8}[latent]
    assert result.departures(1e-4) == {}
    assert result.summary(1e-4).startswith("calibrated")
    assert f"all {latent} latent coordinates" in result.summary(1e-4)
    assert "log p(x, z)" in result.summary(1e-4)
    assert ("8 random projections" in result.summary(1e-4)) == (latent > 1)


@pytest.mark.parametrize(
    ("change", "right", "wrong"),
    [
        ({"widen": 0.6}, "q is too narrow", ("too wide", "too low", "too high")),
        ({"widen": 1.7}, "q is too wide", ("too narrow", "too low", "too high")),
        ({"shift": 0.7}, "q lies too high", ("too wide", "too narrow", "too low")),
        ({"shift": -0.7}, "q lies too low", ("too wide", "too narrow", "too high")),
        ({"shift": 4.0}, "q lies too high", ("too wide", "too narrow", "too low")),
    ],
)
def test_a_wrong_posterior_fails_and_is_named(change, right, wrong):
    """With 1000 datapoints each departure stands out by more than 8 standard errors."""
    vae, x = random_instance(seed=4, latent=2, event=3, n=1000, **change)
    result = calibrate(vae.model, vae.guide, x)
    assert not result.passed
    departures = result.departures(1e-6)
    assert set(departures) == {"z[0]", "z[1]"}
    for what in departures.values():
        assert right in what
        assert not any(word in what for word in wrong)
    assert result.summary().startswith("NOT calibrated")
    assert right in result.summary()


def test_shifted_and_narrow_at_once():
    vae, x = random_instance(seed=4, latent=1, event=3, n=1000, shift=0.5, widen=0.5)
    (what,) = calibrate(vae.model, vae.guide, x).departures().values()
    assert "q lies too high" in what
    assert "q is too narrow" in what


def test_the_prior_fails_on_the_log_joint_alone():
    """It ignores x, and has the right ranks for every function of z alone. False alarm: 1 in 10^4."""

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("w", dist.Normal(0.0, 1.0))
            with pyro.plate("features", 2, dim=-2):
                pyro.sample("v", dist.Normal(torch.zeros(2, 1), 1.0))

    result = calibrate(two_sites, guide, torch.zeros(300, 2))
    assert all((p > 1e-5).all() for p in result.p_values.values())
    assert list(result.departures(1e-6)) == ["log p(x, z)"]
    assert "likelier than q's median draw" in result.departures()["log p(x, z)"]


def bivariate(correlation):
    """z ~ N(0, I), x ~ N(A z, I), of which the posterior has this correlation in two dimensions, and variances 1/2."""
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64) / 2
    a = torch.linalg.cholesky(torch.linalg.inv(covariance) - torch.eye(2), upper=True)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ a.T, 1.0).to_event(1), obs=x)

    def guide(x, correlation=correlation):
        wanted = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64) / 2
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(x @ a @ covariance, wanted))

    return model, guide


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize(("true", "believed"), [(0.8, 0.0), (0.8, -0.8), (0.0, 0.8), (-0.6, 0.6)])
def test_right_marginals_and_a_wrong_dependence_are_found_out(n, true, believed):
    """Each coordinate is exact: with false alarms of 1 in 10^4, only functions of both depart; the right one passes."""
    model, guide = bivariate(true)
    x = torch.zeros(n, 2, dtype=torch.float64)
    assert not calibrate(model, guide, x).departures(1e-4)
    result = calibrate(model, lambda x: guide(x, believed), x)
    assert all((p > 1e-5).all() for p in result.p_values.values())
    found = result.departures(1e-4)
    assert found
    assert all(label == "log p(x, z)" or label.startswith("random projection[") for label in found)
    assert result.summary().startswith("NOT calibrated")
    assert "Each latent coordinate by itself has the right ranks" in result.summary()


def test_projections_see_a_weak_dependence_that_the_log_joint_does_not():
    """The posterior is round, so that the density says little of how q is turned."""
    model, guide = bivariate(0.0)
    result = calibrate(model, lambda x: guide(x, 0.4), torch.zeros(1000, 2, dtype=torch.float64))
    assert result.joint_p_values["log p(x, z)"] > 1e-4
    assert result.joint_p_values["random projection"].min() < 1e-12
    assert result.departures(1e-10)


def several_classes(x):
    """Two discrete latents, of nine possible values together: most draws are equal, and so are their densities."""
    with pyro.plate("data", len(x), dim=-1):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
        j = pyro.sample("j", dist.Categorical(torch.tensor([0.6, 0.3, 0.1])))
        loc = 0.2 * (k + j).to(x.dtype)[..., None].expand(*k.shape, 200)
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def several_classes_guide(x, independent=False):
    """The exact posterior, one after the other, or each by itself."""
    with pyro.plate("data", len(x), dim=-1):
        sums = torch.arange(3.0)[:, None] + torch.arange(3.0)
        prior = torch.tensor([0.2, 0.5, 0.3])[:, None] * torch.tensor([0.6, 0.3, 0.1])
        joint = prior.log() + 0.2 * sums * x.sum(-1)[..., None, None] - 200 * (0.2 * sums) ** 2 / 2
        k = pyro.sample("k", dist.Categorical(logits=joint.logsumexp(-1)))
        given_k = joint.expand(*k.shape, 3, 3).gather(-2, k[..., None, None].expand(*k.shape, 1, 3))[..., 0, :]
        pyro.sample("j", dist.Categorical(logits=joint.logsumexp(-2) if independent else given_k))


def test_equal_draws_have_equal_densities_and_projections():
    """Without ties broken at random their ranks are far from uniform. False alarm: 1 in 10^4."""
    x = torch.zeros(3000, 200)
    result = calibrate(several_classes, several_classes_guide, x, num_draws=4)
    assert set(result.joint_ranks) == {"log p(x, z)", "random projection"}
    assert result.joint_ranks["random projection"].shape == (3000, 8)
    assert not result.departures(1e-4), result.summary(1e-4)
    wrong = calibrate(several_classes, lambda x: several_classes_guide(x, independent=True), x, num_draws=20)
    assert wrong.departures(1e-6)
    assert not set(wrong.departures(1e-6)) & {"k", "j"}


def test_values_that_differ_by_rounding_get_any_rank():
    """As on a GPU, where the true latents are in a batch of another size than the draws. False alarm: 1 in 10^6."""
    true = torch.full((5000,), -500.0)
    draws = torch.stack([true * (1 + 1e-7), true * (1 + 1e-7), true + 1, true - 1])
    ranks = ranks_among(true, draws, torch.full_like(true, 1e-3))
    assert chisquare(ranks.bincount(minlength=5)[1:4].numpy()).pvalue > 1e-6
    assert (ranks >= 1).all()
    assert (ranks <= 3).all()
    assert (ranks_among(true, draws) == 3).all()


def test_functions_of_all_latents_are_ranked_exactly():
    """Of 4000 datapoints with the exact posterior, by Pearson's test of 5 ranks each. False alarms: 1 in 10^4."""
    vae, x = random_instance(seed=6, latent=3, event=4, n=4000)
    result = calibrate(vae.model, vae.guide, x, num_draws=4)
    every = [result.joint_ranks["log p(x, z)"], *result.joint_ranks["random projection"].unbind(1)]
    for ranks in every:
        assert ranks.min() >= 0
        assert chisquare(ranks.bincount(minlength=5).numpy()).pvalue > 1e-4 / len(every)


def test_projections_do_not_depend_on_the_units_of_a_coordinate():
    """Two coordinates, one of them in units of a thousandth and from another origin: the same ranks."""
    true, draws = torch.randn(300, 2), torch.randn(20, 300, 2)
    ranks = projection_ranks({"z": true}, {"z": draws})
    units, origin = torch.tensor([1.0, 1024.0]), torch.tensor([0.0, 5000.0])
    others = projection_ranks({"z": true * units + origin}, {"z": draws * units + origin})
    assert (ranks != others).double().mean() < 0.01  # where rounding has changed the order
    split = projection_ranks({"a": true[:, 0], "b": true[:, 1:]}, {"a": draws[..., 0], "b": draws[..., 1:]})
    assert torch.equal(split, ranks)
    constant = projection_ranks({"z": torch.ones(50, 2)}, {"z": torch.ones(9, 50, 2)})
    assert 3 < constant.double().mean() < 6  # ties


def test_impossible_draws_have_the_lowest_density():
    """A normal guide for a positive latent: its log p(x, z) is minus infinity below zero, and no error."""

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
            pyro.sample("x", dist.Normal(0 * rate, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Normal(torch.where(x == 1, 5.0, -5.0), 0.1))  # of what is simulated, none is 1

    ranks = calibrate(model, guide, torch.ones(60), num_draws=9).joint_ranks
    assert set(ranks) == {"log p(x, z)"}  # with one coordinate there is nothing to project
    assert (ranks["log p(x, z)"] == 9).all()


def test_two_sites_and_a_plate():
    """False alarm: 1 in 10^4; only what is wrong is found, with a shift of 14 standard errors."""
    x = torch.zeros(600, 2)
    right = calibrate(two_sites, two_sites_guide, x)
    assert {name: list(ranks.shape) for name, ranks in right.ranks.items()} == {"w": [600, 1], "v": [600, 2]}
    assert {name: list(p.shape) for name, p in right.p_values.items()} == {"w": [1], "v": [2]}
    assert not right.departures(1e-4)
    shifted = calibrate(two_sites, lambda x: two_sites_guide(x, v_shift=-1.0), x)
    assert list(shifted.departures(1e-4)) == ["v[1]"]
    assert "too low" in shifted.departures()["v[1]"]
    narrow = calibrate(two_sites, lambda x: two_sites_guide(x, w_scale=0.5), x)
    assert next(iter(narrow.departures(1e-4))) == "w[0]"  # v is drawn given w, and suffers too
    assert "too narrow" in narrow.departures()["w[0]"]


@pytest.mark.parametrize(
    ("model", "guide", "wrong"),
    [
        (counts, counts_guide, lambda x: counts_guide(x, factor=1.3)),
        (classes, classes_guide, lambda x: classes_guide(x, prior=(0.4, 0.4, 0.2))),
    ],
)
def test_discrete_data_and_discrete_latents(model, guide, wrong):
    """False alarm: 1 in 10^4. Without ties broken at random the ranks of a discrete latent are far from uniform."""
    x = torch.ones(1000)
    assert not calibrate(model, guide, x).departures(1e-4)
    assert calibrate(model, wrong, x).departures(1e-4)


def test_a_rank_counts_the_draws_below():
    """The true values are uniform on [0, 3], and the draws on [1, 2]."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(0.0, 3.0))
            pyro.sample("x", dist.Delta(z, log_density=0.0), obs=x)  # x is the true value

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(torch.ones(()), 2.0))
            true.append(x)

    true = []
    ranks = calibrate(model, guide, torch.ones(100), num_draws=200).ranks["z"]
    z = true[-1]
    assert (ranks[z < 1] == 0).all()
    assert (ranks[z > 2] == 200).all()
    # Binomial: beyond 6 standard errors once in 10^9, for each of about 33 datapoints.
    between = (z > 1) & (z < 2)
    assert between.sum() > 10
    assert (ranks[between] / 200 - (z[between] - 1)).abs().max() < 6 * 0.5 / 200**0.5


def test_ties_get_any_rank():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(1)))

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(1)))
            pyro.sample("x", dist.Normal(k.to(x.dtype), 1.0), obs=x)

    ranks = calibrate(model, guide, torch.zeros(1000), num_draws=4).ranks["k"]
    # All draws are equal: each of the 5 ranks has 200 +- 13 of the 1000; beyond 5 standard errors 6 times in 10^7.
    assert (ranks.bincount(minlength=5) - 200).abs().max() < 65


def test_with_4_draws_the_test_is_pearsons():
    """Four orthonormal polynomials and the constant span all functions of five ranks."""
    ranks = torch.randint(5, (200, 3, 2)).clamp_min(torch.tensor([0, 1]))
    p_values = Calibration({"z": ranks}, num_draws=4).p_values["z"]
    for i in range(3):
        for j in range(2):
            expected = chisquare(ranks[:, i, j].bincount(minlength=5).numpy()).pvalue
            assert p_values[i, j].item() == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("num_draws", [9, 99, 250])
@pytest.mark.parametrize("n", [50, 300])
def test_false_alarms_come_as_often_as_they_say(n, num_draws):
    """Of 10000 coordinates with uniform ranks; bounds that fail once in 10^6, with a tenth of the rate for the tail."""
    ranks = torch.randint(num_draws + 1, (n, 10_000))
    p_values = Calibration({"z": ranks}, num_draws).p_values["z"]
    for rate in (0.5, 0.1, 0.01):
        low, high = binom.ppf(5e-7, 10_000, 0.9 * rate), binom.ppf(1 - 5e-7, 10_000, 1.1 * rate)
        assert low <= (p_values < rate).sum().item() <= high


def test_bonferroni_over_all_coordinates_of_all_sites():
    ranks = torch.arange(100).repeat(3)
    uneven = torch.cat([ranks[:-30], ranks[:30] // 2])
    alone = Calibration({"z": uneven[:, None]}, 99)
    p_value = alone.p_values["z"].item()
    assert alone.departures(2 * p_value)
    assert not alone.departures(p_value / 2)
    assert alone.passed == (p_value > 0.01)
    assert Calibration({"y": ranks}, 99).passed
    among_many = Calibration({"z": torch.stack([uneven, ranks], 1), "y": ranks}, 99)
    assert not among_many.departures(2.9 * p_value)
    assert list(among_many.departures(3.1 * p_value)) == ["z[0]"]
    joint = {"log p(x, z)": ranks, "random projection": torch.stack([ranks] * 8, 1)}
    with_functions = Calibration(among_many.ranks, 99, joint)
    assert with_functions.num_tests == 12
    assert not with_functions.departures(11.9 * p_value)
    assert list(with_functions.departures(12.1 * p_value)) == ["z[0]"]
    of_functions = Calibration({"y": ranks}, 99, joint | {"log p(x, z)": uneven})
    assert not of_functions.departures(9.9 * p_value)
    assert list(of_functions.departures(10.1 * p_value)) == ["log p(x, z)"]


@pytest.mark.parametrize("num_draws", [17, 101])
def test_draws_as_many_as_it_says_and_never_more_at_once(num_draws):
    vae, x = random_instance(seed=1, latent=2, event=3, n=100)
    seen = []

    def guide(x):
        seen.append(vae.guide(x)[..., 0].numel())

    def progress(blocks):
        seen.clear()  # of the checks beforehand
        return blocks

    result = calibrate(vae.model, guide, x, num_draws=num_draws, chunk_size=40, progress=progress)
    assert max(seen) <= 40
    assert sum(seen) == (num_draws + 1) * 100  # once more, to find out what the programs observe
    assert result.num_draws == num_draws
    assert 0 <= result.ranks["z"].min() < result.ranks["z"].max() <= num_draws


def test_same_seed_same_result():
    vae, x = random_instance(seed=1, latent=2, event=3, n=60)
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(calibrate(vae.model, vae.guide, x).ranks["z"])
    assert torch.equal(*results)


def test_pit_lies_in_the_interval_of_its_rank():
    result = Calibration({"z": torch.randint(10, (500, 2))}, num_draws=9)
    state = torch.get_rng_state()
    first, second = result.pit()["z"], result.pit()["z"]
    assert torch.equal(torch.get_rng_state(), state)
    assert_close(first, second, rtol=0, atol=0)
    assert torch.equal((first * 10).floor().long(), result.ranks["z"])
    assert len(first.unique()) == 1000


def test_an_interruption_leaves_what_was_done():
    vae, x = random_instance(seed=1, latent=2, event=3, n=100)

    def progress(blocks):
        yield blocks[0]
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="of 100 datapoints were done") as caught:
        calibrate(vae.model, vae.guide, x, chunk_size=500, progress=progress)
    partial = caught.value.result
    assert 0 < partial.num_datapoints < 50
    assert "fewer than 50 datapoints" in partial.summary()
    assert "calibrated" not in partial.summary()
    for verdict in (lambda: partial.passed, partial.departures):
        with pytest.raises(ValueError, match="too few to tell whether they are uniform; expected at least 50"):
            verdict()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": torch.zeros(49)}, ValueError, "x has 49 datapoints, too few .*: repeat its rows"),
        ({"x": torch.zeros(1)}, ValueError, "x has 1 datapoint, too few"),
        ({"x": [0.0]}, TypeError, "x has batches of"),
        ({"x": -torch.ones(60)}, ValueError, "support"),
        ({"num_draws": 3}, ValueError, "num_draws is 3; expected an integer of at least 4"),
        ({"chunk_size": 0}, ValueError, "chunk_size is 0"),
        ({"guide": lambda x: classes_guide(x)}, ValueError, "latent site 'rate' of the model is not in the guide"),
    ],
)
def test_bad_input_is_named(options, error, message):
    with pytest.raises(error, match=message):
        calibrate(counts, **{"guide": counts_guide, "x": torch.ones(60), **options})


def test_a_guide_that_draws_nan_is_named():
    at = None

    def progress(blocks):
        nonlocal at
        for at, block in enumerate(blocks):  # noqa: B007
            yield block

    def guide(x):
        with pyro.plate("data", len(x)) as index:
            # What is simulated is not zero, as the data are.
            scale = torch.where((x != 0) & (index == 2) & (at == 6), torch.nan, 1.0)
            pyro.sample("z", dist.Normal(x / 2, scale, validate_args=False))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="site 'z' of the guide draws NaN at simulated datapoint 32"):
        calibrate(model, guide, torch.zeros(100), num_draws=10, chunk_size=50, progress=progress)


@pytest.mark.parametrize("false_alarm", [0.0, 1.0])
def test_a_false_alarm_rate_is_a_probability(false_alarm):
    result = Calibration({"z": torch.randint(10, (50,))}, num_draws=9)
    with pytest.raises(ValueError, match="false_alarm is"):
        result.departures(false_alarm)
    with pytest.raises(ValueError, match="prob is"):
        result.plot(prob=false_alarm)
    with pytest.raises(ValueError, match="max_plots is 0"):
        result.plot(max_plots=0)


def test_the_plot_shows_the_worst_coordinates_and_their_bands():
    ranks = torch.randint(100, (200, 3, 2))
    ranks[:, 1, 1] //= 2
    ranks[:, 2, 0] = 40 + ranks[:, 2, 0] // 5
    result = Calibration({"z": ranks, "y": torch.randint(100, (200,))}, num_draws=99)
    figure = result.plot(max_plots=2)
    assert isinstance(figure, Figure)
    panels = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title() for axes in panels] == ["z[1, 1]", "z[2, 0]"]
    for axes, index in zip(panels, [(1, 1), (2, 0)], strict=True):
        line = max(axes.lines, key=lambda line: len(line.get_xdata()))
        y = torch.as_tensor(line.get_ydata().copy())
        u = (ranks[:, *index] + 0.5) / 100
        expected = torch.stack([(u < at).double().mean() - at for at in torch.linspace(0.01, 0.99, 99)])
        assert y.max().item() == pytest.approx(expected.max().item(), abs=0.02)
        assert y.min().item() == pytest.approx(expected.min().item(), abs=0.02)
        assert axes.collections or axes.patches  # the band
        low, high = axes.get_ylim()
        assert low < y.min()
        assert y.max() < high
    assert len([axes for axes in result.plot().axes if axes.lines]) == 7


def test_to_arviz():
    result = Calibration({"z": torch.randint(10, (60, 2)), "y": torch.randint(10, (60,))}, num_draws=9)
    group = result.to_arviz()["prior_sbc"]
    assert dict(group.sizes) == {"chain": 1, "draw": 60, "z_dim_0": 2}
    assert_close(torch.as_tensor(group["z"].values[0]), result.pit()["z"])
    assert group["y"].dims == ("chain", "draw")


def test_functions_of_all_latents_are_drawn_and_exported_too():
    result = calibrate(*bivariate(0.5), torch.zeros(50, 2, dtype=torch.float64), num_draws=9)
    assert set(result.pit()) == {"z", "log p(x, z)", "random projection"}
    assert set(result.to_arviz()["prior_sbc"].data_vars) == set(result.pit())
    titles = [axes.get_title() for axes in result.plot().axes if axes.lines]
    assert titles == ["z[0]", "z[1]", "log p(x, z)", *(f"random projection[{i}]" for i in range(8))]


@pytest.mark.parametrize("prob", [0.5, 0.95])
@pytest.mark.parametrize(("n", "num_draws"), [(50, 9), (300, 99)])
def test_a_band_holds_the_whole_line_as_often_as_it_says(n, num_draws, prob):
    """2000 lines; bounds that fail once in 10^6, with the noise of the 1000 simulations and of ties in the band."""
    low, high = uniform_band(n, num_draws, prob)
    ranks = torch.randint(num_draws + 1, (2000, n))
    below = torch.nn.functional.one_hot(ranks, num_draws + 1).sum(1).cumsum(1)[:, :-1] / n
    inside = ((below >= low - 1e-9) & (below <= high + 1e-9)).all(1).double().mean().item()
    noise = 4.9 * (prob * (1 - prob) * (1 / 2000 + 1 / 1000)) ** 0.5
    assert prob - noise < inside < prob + noise + 0.1 * (1 - prob) + 0.02

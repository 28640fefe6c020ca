"""Normals at the modes of p(x, z): exact where the posterior is normal, and never an exception where it is not."""

from __future__ import annotations

import math
from types import SimpleNamespace

import known_evidence
import pyro
import pytest
import torch
from linear_gaussian import exact_log_evidence, exact_posterior, random_instance
from pyro import distributions as dist
from torch import nn
from torch.testing import assert_close

from pyro_vae import evidence
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained import laplace_proposal as laplace_module
from pyro_vae.evidence.unconstrained import modes as modes_module
from pyro_vae.evidence.unconstrained.approximate_likelihood import informed
from pyro_vae.evidence.unconstrained.laplace_proposal import find_modes, fit_block
from pyro_vae.evidence.unconstrained.latent_draws import latent_draws
from pyro_vae.evidence.unconstrained.log_joint import FastDensities, LogJoint
from pyro_vae.evidence.unconstrained.normal_mixture import NormalMixture
from pyro_vae.evidence.unconstrained.posterior_means import at_means
from pyro_vae.evidence.unconstrained.starts import center_and_scale, prior_scale


def joint_of(model, guide, x, chunk_size=None):
    programs = Programs(model, guide, x, chunk_size)
    return LogJoint(model, x, programs.layout, programs.chunk_size)


def fit(model, guide, x, chunk_size=None):
    return fit_block(joint_of(model, guide, x, chunk_size), guide).normals


def covariances(normals):
    return normals.factor @ normals.factor.mT


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-2)])
@pytest.mark.parametrize("latent", [1, 3, 12])
def test_mean_and_covariance_of_a_normal_posterior(latent, dtype, tolerance):
    vae, x = random_instance(seed=3, latent=latent, event=latent + 2, n=20, shift=3.0, widen=0.5)
    exact = exact_posterior(vae.likelihood, x)
    vae, x = vae.to(dtype), x.to(dtype)
    normals = fit(vae.model, vae.guide, x)
    assert len(normals.center) == 1
    assert normals.found.all()
    assert normals.center.dtype == dtype
    sd = exact.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    assert ((normals.center[0] - exact.loc).abs() <= tolerance * sd).all()
    # In the exact posterior's own coordinates the covariance is the identity.
    white = torch.linalg.solve_triangular(exact.scale_tril, normals.factor[0].double(), upper=False)
    assert_close(white @ white.mT, torch.eye(latent).double().expand(20, -1, -1), rtol=0, atol=10 * tolerance)
    identity = torch.eye(latent, dtype=dtype).expand(20, -1, -1)
    assert_close(normals.factor[0] @ normals.inverse[0], identity, rtol=0, atol=10 * tolerance)
    assert_close(torch.linalg.slogdet(normals.factor[0]).logabsdet, normals.log_det[0], rtol=1e-4, atol=tolerance)


def test_weights_from_there_do_not_vary():
    """All but those of the tails: log p(x) is exact to the variance of the proposal's own mixture."""
    vae, x = random_instance(seed=8, latent=5, event=9, n=30, shift=5.0, widen=0.3)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=400, proposal=evidence.laplace())
    off = result.log_prob - exact_log_evidence(vae.likelihood, x)
    assert (off.abs() < 0.15).all()
    assert (result.ess > 150).all()


def test_another_call_does_not_fit_again():
    vae, x = random_instance(seed=8, latent=2, event=3, n=5)
    proposal, calls = evidence.laplace(), []

    def model(x):
        calls.append(1)
        return vae.model(x)

    counts = []
    for _ in range(2):
        calls.clear()
        evidence.importance(model, vae.guide, x, num_samples=10, proposal=proposal)
        counts.append(len(calls))
    assert counts[1] < counts[0] / 3
    # Unless the data are others.
    calls.clear()
    x += 1
    result = evidence.importance(model, vae.guide, x, num_samples=300, proposal=proposal)
    assert len(calls) > counts[1]
    assert ((result.log_prob - exact_log_evidence(vae.likelihood, x)).abs() < 0.15).all()


def test_two_sites():
    """z = (a, b) with x observed: the covariance of (a_1, a_2, b) given x. The coordinates of b depend on a."""
    model, guide, x, _ = known_evidence.two_sites(10)
    log_joint = informed(joint_of(model, guide, x), guide)
    normals = fit_block(log_joint, guide).normals

    def latents(vectors):
        a, b = log_joint.to_latents(vectors[None])[0].values()
        return torch.cat([a[0], b[0].reshape(10, 1)], dim=-1)

    slopes = torch.autograd.functional.jacobian(lambda v: latents(v).sum(0), normals.center[0]).permute(1, 0, 2)
    joint = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 2]], dtype=torch.float64)
    with_x = torch.tensor([1.0, 0, 2], dtype=torch.float64)
    assert_close(latents(normals.center[0]), x[:, None] / 2.25 * with_x, rtol=0, atol=1e-6)
    covariance = slopes @ covariances(normals)[0] @ slopes.mT
    assert_close(covariance[0], joint - with_x.outer(with_x) / 2.25, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        known_evidence.gamma_poisson,
        known_evidence.beta_binomial,
        known_evidence.dirichlet_multinomial,
        known_evidence.log_normal,
        known_evidence.uniform_prior,
    ],
)
def test_latents_with_bounds(make):
    """In free coordinates: the gradient is zero at the centers, and the covariance is the inverse Hessian's."""
    model, guide, x, exact = make(40)
    joint = joint_of(model, guide, x)
    normals = find_modes(joint, guide).normals
    _, gradient = joint.gradient(normals.center[:1], torch.arange(len(x)))
    white = (normals.factor[0].mT @ gradient[0, ..., None])[..., 0]
    assert (white.abs().amax(1) < 0.05).double().mean() > 0.95
    hessian = torch.autograd.functional.hessian(
        lambda z: joint._log_joint(z[None, None], x[:1])[0, 0], normals.center[0, 0]
    )
    assert_close(
        normals.factor[0, 0].T @ -hessian @ normals.factor[0, 0], torch.eye(joint.dims).double(), rtol=0, atol=0.1
    )
    result = evidence.importance(model, guide, x, num_samples=1000, proposal=evidence.laplace())
    assert ((result.log_prob - exact).abs() < 0.2).all()


def test_normals_are_moved_from_the_mode_to_the_mean():
    """u = log(z) for z ~ Gamma(a, b): the mode is log(a / b), the mean digamma(a) - log(b), the width a ** -0.5."""
    model, guide, x, _ = known_evidence.gamma_poisson(60)
    joint = joint_of(model, guide, x)
    shape, rate = x + 1.5, 1.5
    mean, width = shape.digamma() - math.log(rate), shape.rsqrt()
    modes, means = (find(joint, guide).normals.center[0, :, 0] for find in (find_modes, fit_block))
    assert_close(modes, (shape / rate).log(), rtol=0, atol=1e-4)
    many = shape > 3  # with fewer, the posterior is far from normal
    assert ((means - mean).abs() < 0.25 * (modes - mean).abs())[many].all()
    assert ((means - mean).abs() < 0.1 * width)[many].all()


def test_in_many_dimensions_as_well():
    """Sixteen random directions tell the shift in all fifty, to about a third."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(50), 1).to_event(1))
            pyro.factor("skew", (2 * z - z.exp()).sum(-1))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(50), 1).to_event(1))

    grid = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    density = (-grid.square() / 2 + 2 * grid - grid.exp()).softmax(0)
    mean = (density * grid).sum()
    joint = joint_of(model, guide, torch.zeros(8, 1, dtype=torch.float64))
    modes, means = (find(joint, guide).normals.center[0] for find in (find_modes, fit_block))
    assert (modes - mean).norm(dim=-1).amin() > 2 * (means - mean).norm(dim=-1).amax()


def test_both_modes_of_a_square():
    """x | z ~ N(z^2, s^2) with x = 2: modes at the two roots, each with half of the mass."""
    x = torch.full((6,), 2.0, dtype=torch.float64)
    for seen in ("one", "between"):
        model, guide, _, _ = known_evidence.both_signs(2, seen)
        normals = find_modes(joint_of(model, guide, x), guide).normals
        assert (normals.num_modes(0.1) == 2).all()
        found = torch.where(normals.log_weight.isfinite(), normals.center[..., 0], torch.nan)
        root = (2 - 0.5 * 0.3**2) ** 0.5  # of -z^2 / 2 - (x - z^2)^2 / (2 s^2)
        assert ((found.nan_to_num(-9) - root).abs().amin(0) < 1e-3).all()
        assert ((found.nan_to_num(9) + root).abs().amin(0) < 1e-3).all()
        assert_close(
            normals.log_weight.nan_to_num(neginf=-99).topk(2, dim=0).values.exp(),
            torch.full((2, 6), 0.5).double(),
            rtol=0,
            atol=0.01,
        )


@pytest.mark.parametrize("modes", [2, 3, 4, 5, 6])
def test_the_modes_of_a_mixture(modes):
    """In two dimensions, with components as far apart as 8 of their standard deviations, and of equal shares."""
    angle = 2 * torch.pi * torch.arange(modes) / modes
    loc = 8 * torch.stack([angle.cos(), angle.sin()], 1).double()

    def model(x):
        with pyro.plate("data", len(x)):
            each = dist.Normal(loc, 0.5).to_event(1)
            z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=loc.new_zeros(modes)), each))
            pyro.sample("x", dist.Normal(z.sum(-1), 50.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[0].expand(len(x), 2), 0.5).to_event(1))

    normals = fit(model, guide, torch.randn(30, dtype=torch.float64))
    distance = (normals.center[:, :, None] - loc).norm(dim=-1)  # [found, n, modes]
    seen = (distance.masked_fill(normals.log_weight.isneginf()[..., None], torch.inf).amin(0) < 0.1).sum(-1)
    assert (seen == modes).double().mean() > 0.8
    assert (normals.num_modes(1e-3) <= modes).all()  # none of them twice


def test_a_bend_is_not_taken_for_a_valley():
    """A posterior along a parabola: symmetric, with one mode or two."""
    model, guide, x, _ = known_evidence.banana(12)
    found = find_modes(joint_of(model, guide, x), guide).normals.log_weight.isfinite().sum(0)
    assert (found <= 2).all()


def test_a_mode_with_a_hundredth_of_the_mass_is_kept():
    loc, share = torch.tensor([-5.0, 5.0]).double(), torch.tensor([0.99, 0.01]).double()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(share), dist.Normal(loc, 0.5)))
            pyro.sample("x", dist.Normal(z, 1000.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[1].expand(len(x)), 0.5))

    normals = find_modes(joint_of(model, guide, x := torch.zeros(4, dtype=torch.float64)), guide).normals
    low, high = normals.center[..., 0].aminmax(dim=0)
    assert normals.log_weight.isfinite().all()
    assert_close(low, loc[0].expand_as(x), rtol=0, atol=0.01)
    assert_close(high, loc[1].expand_as(x), rtol=0, atol=0.01)


def test_the_share_of_a_mode_is_its_mass_and_not_its_height():
    """A wide component and a narrow one, ten times as high, with half of the mass each."""
    loc, scale = torch.tensor([-9.0, 9.0]).double(), torch.tensor([2.0, 0.2]).double()

    def model(x):
        with pyro.plate("data", len(x)):
            half = dist.Categorical(torch.ones(2).double())
            z = pyro.sample("z", dist.MixtureSameFamily(half, dist.Normal(loc, scale)))
            pyro.sample("x", dist.Normal(z, 1e4), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[1].expand(len(x)), 0.2))

    for seed in range(2, 6):  # which draws from the prior there are must not matter
        torch.manual_seed(seed)
        normals = find_modes(joint_of(model, guide, torch.zeros(3, dtype=torch.float64)), guide).normals
        assert_close(normals.log_weight.exp(), torch.full((2, 3), 0.5).double(), rtol=0, atol=0.01)


def test_the_width_of_a_prior_of_many_latents():
    """More numbers than torch.quantile takes, and the same as it finds for a few of them."""
    draws = torch.randn(32, 1100, 500)
    scale = prior_scale(SimpleNamespace(draw=lambda *_: draws, model=None))
    low, high = draws[:, :20].quantile(torch.tensor([0.05, 0.95]), dim=0)
    expected = torch.maximum(center_and_scale(draws[:, :20])[1], (high - low) / (2 * 1.6449))
    assert_close(scale[:20], expected)


def test_a_step_to_where_the_density_is_lower_is_taken_back():
    """A normal that is three times too wide, beside the mean: Newton's step leads far beyond it."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1e3), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))

    x, eye = torch.zeros(3, dtype=torch.float64), torch.eye(2, dtype=torch.float64).expand(1, 3, 2, 2)
    normals = NormalMixture(
        center=x.new_full((1, 3, 2), 0.3),
        factor=3 * eye,
        inverse=eye / 3,
        log_det=x.new_full((1, 3), 2 * math.log(3)),
        log_weight=x.new_zeros(1, 3),
    )
    assert_close(at_means(joint_of(model, guide, x), normals, torch.arange(3)).center, normals.center)


def test_more_starts_lose_no_mode_that_is_known():
    x = torch.full((3,), 2.0, dtype=torch.float64)
    model, guide, _, _ = known_evidence.both_signs(2)
    joint = joint_of(model, guide, x)
    known = find_modes(joint, guide)
    rows = torch.tensor([2, 0])
    again = laplace_module.refit(joint, known, rows, torch.full((4, 2, 1), 1.5, dtype=torch.float64)).normals
    assert (known.normals.num_modes(0.1) == 2).all()
    assert (again.num_modes(0.1) == 2).all()


def test_one_step_leads_to_the_mean_of_a_normal():
    """From one standard deviation beside it in every direction of the posterior's own coordinates."""
    vae, x = random_instance(seed=3, latent=3, event=5, n=6)
    joint = joint_of(vae.model, vae.guide, x)
    normals = find_modes(joint, vae.guide).normals
    exact = exact_posterior(vae.likelihood, x)
    factor = exact.scale_tril.detach()[None]
    beside = normals._replace(center=exact.loc.detach()[None] + factor.sum(-1), factor=factor)
    assert_close(at_means(joint, beside, torch.arange(6)).center[0], exact.loc.detach(), rtol=0, atol=1e-6)


def test_a_slope_that_is_not_finite_moves_nothing():
    """Even where the density seems to rise: the second time that it is asked for."""
    calls = []

    def gradient(position, rows):  # noqa: ARG001
        calls.append(1)
        slope = torch.full_like(position, 0.5 if len(calls) == 1 else torch.nan)
        return torch.full_like(position[..., 0], float(len(calls))), slope

    eye = torch.eye(2).expand(1, 3, 2, 2)
    normals = NormalMixture(torch.zeros(1, 3, 2), eye, eye, torch.zeros(1, 3), torch.zeros(1, 3))
    assert at_means(SimpleNamespace(gradient=gradient), normals, torch.arange(3)).center.isfinite().all()


@pytest.mark.parametrize(("even", "dims"), [(False, 6), (True, 6), (True, 2)])
@pytest.mark.parametrize("is_late", [False, True])
def test_modes_that_grow_in_number_with_the_starts_are_not_complete(monkeypatch, even, dims, is_late):
    """Of z^2 in six dimensions there are 64 modes, for which at most 32 starts are taken; in two dimensions, four.

    Of z there is one. Where there is no time to take more starts, it is not known whether several modes are all.
    """
    monkeypatch.setattr(laplace_module, "MOST_STARTS", 8)
    taken, search = [], laplace_module.fit_normals
    monkeypatch.setattr(laplace_module, "fit_normals", lambda *args: taken.append(len(args[1])) or search(*args))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(dims), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z**2 if even else z, 0.2).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), dims), 1.0).to_event(1))

    x = torch.ones(2, dims, dtype=torch.float64)
    found = find_modes(joint_of(model, guide, x), guide, lambda: is_late)
    assert found.complete.tolist() == [not even or (dims == 2 and not is_late)] * 2
    assert taken == [8, 16, 32][: 1 if is_late or not even else 3]


@pytest.mark.parametrize("sizes", [(64,), (16, 64)])
@pytest.mark.parametrize("count", [1, 10, 64, 91])
def test_densities_that_are_recorded_for_batches_of_some_sizes_are_those_of_each_pair(count, sizes):
    """Full batches, what is left over and filled up, and few that are not worth it; each pair has its own numbers."""
    vae, x = random_instance(seed=1, latent=3, event=4, n=13)
    layout, rows = Programs(vae.model, vae.guide, x).layout, torch.arange(count) % 13
    slow = LogJoint(vae.model, x, layout, 1000)
    fast = LogJoint(vae.model, x, layout, 1000, FastDensities(lambda function, *_: function, sizes=sizes, after=0))
    position = torch.randn(1, count, 3, dtype=torch.float64)
    for name in ("densities", "gradient", "parts"):
        assert_close(getattr(fast, name)(position, rows), getattr(slow, name)(position, rows))


def test_densities_are_recorded_after_a_number_of_calls():
    """Of each function and block by itself. Then the model runs no more."""
    vae, x = random_instance(seed=1, latent=3, event=4, n=13)
    runs = []

    def model(x):
        runs.append(len(x))
        return vae.model(x)

    layout, rows, fast = Programs(vae.model, vae.guide, x).layout, torch.arange(13), FastDensities(sizes=(13,), after=3)
    position = torch.randn(1, 13, 3, dtype=torch.float64)
    ran, values = [], []
    for block in (x, x + 1):
        joint = LogJoint(model, block, layout, 1000, fast)
        for name in ("densities", "gradient"):
            for _ in range(6):
                runs.clear()
                values.append(getattr(joint, name)(position, rows)[-1 if name == "densities" else 0])
                ran.append(len(runs) > 0)
    assert ran == 2 * [True, True, True, True, False, False] + 2 * [True, True, True, False, False, False]
    assert_close(torch.stack(values[:12]), values[0].expand(12, -1, -1))
    assert_close(torch.stack(values[12:]), values[12].expand(12, -1, -1))


def test_a_center_moves_at_most_three_standard_deviations_at_a_time():
    """Where a normal does not fit, its gradient means little: the posterior is 30 of its deviations away."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 0.1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))

    x = torch.tensor([3.0, -3.0, 0.0], dtype=torch.float64)
    size, eye = 0.1, torch.eye(2, dtype=torch.float64).expand(1, 3, 2, 2)
    normals = NormalMixture(
        center=x.new_zeros(1, 3, 2),
        factor=size * eye,
        inverse=eye / size,
        log_det=x.new_full((1, 3), 2 * math.log(size)),
        log_weight=x.new_zeros(1, 3),
    )
    moved = at_means(joint_of(model, guide, x), normals, torch.arange(3)).center[0]
    distance = moved.norm(dim=-1) / size
    assert (distance <= 2 * 3 + 1e-6).all()
    assert (distance[:2] > 5).all()
    assert (moved[:, 0] * x >= 0).all()


def test_draws_of_latents_run_no_decoder():
    """They stop a program after its last latent site, and leave nothing of it on Pyro's stack."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("other", dist.Normal(x, 1.0), obs=x)
            a = pyro.sample("a", dist.Normal(x, 1.0))
            pyro.sample("b", dist.Normal(a, 1e-6))
            raise AssertionError("this is the decoder")

    drawn = latent_draws(model, torch.zeros(50), ["a", "b"])
    assert drawn.keys() == {"a", "b"}
    assert_close(drawn["a"], drawn["b"], rtol=0, atol=1e-4)
    assert len(drawn["a"].unique()) == 50
    assert not pyro.poutine.runtime._PYRO_STACK
    with pyro.plate("data", 3, dim=-1):  # the dimension of the plate is free again
        pass
    with pytest.raises(AssertionError, match="decoder"):
        latent_draws(model, torch.zeros(50), ["a", "b", "c"])


def nan_beyond(limit):
    """A likelihood that is NaN for large z."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = torch.where(z.sum(-1) > limit, torch.nan, z.sum(-1))
            pyro.sample("x", dist.Normal(loc, 0.5, validate_args=False), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2) - 1, 0.1).to_event(1))

    return model, guide


@pytest.mark.parametrize("limit", [0.0, 1.0, 3.0])
def test_a_likelihood_that_is_nan_somewhere(limit):
    model, guide = nan_beyond(limit)
    x = torch.linspace(-3, 3, 12)
    normals = fit(model, guide, x)
    assert all(part[:, normals.found].isfinite().all() for part in normals[:-1])
    result = evidence.estimate(model, guide, x, progress=iter, max_temperatures=16)
    assert result.log_prob.isfinite().all()


@pytest.mark.parametrize(
    "log_likelihood",
    [
        lambda z: -(z.abs() ** 0.5),  # a cusp: the Hessian is infinite at the mode
        lambda z: z * 0,  # nothing to see
        lambda z: 0.4 * z**2,  # nearly flat
        lambda z: 3 * z**2,  # no mode, and no evidence either
        lambda z: z**4,
        lambda z: torch.where(z > 0, -torch.inf, 0.0),  # a wall
        lambda z: torch.log(z),  # NaN for half of the prior
        lambda z: (1e8 * z).sin(),  # of which no finite difference means anything
        lambda z: -1e12 * z**2,  # extremely narrow
        lambda z: -(z**2) / (1 - z.abs()).clamp_min(0),  # infinite at the edge
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odd_curvature_never_raises(log_likelihood, dtype):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 1], 1.0), obs=x)
            pyro.sample("odd", dist.Unit(log_likelihood(z[..., 0]), validate_args=False), obs=x.new_empty(0))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_full((len(x), 3), 0.5), 0.1).to_event(1))

    x = torch.randn(2, dtype=dtype)
    normals = fit(model, guide, x)
    assert all(part[:, normals.found].isfinite().all() for part in normals[:-1])
    shares = normals.log_weight[:, normals.found].exp().sum(0)
    assert_close(shares, torch.ones_like(shares))


def test_in_very_many_dimensions_normals_are_diagonal(monkeypatch):
    """And log p(x) is still covered, by annealing if need be."""
    monkeypatch.setattr(modes_module, "MOST_DIMS", 3)
    model, guide, x, exact = known_evidence.linear_gaussian(15, dims=5)
    normals = fit(model, guide, x)
    assert normals.factor.shape == normals.inverse.shape == (1, 15, 5)
    assert_close(normals.factor * normals.inverse, torch.ones_like(normals.factor))
    assert_close(normals.factor.log().sum(-1), normals.log_det)
    result = evidence.estimate(model, guide, x, progress=iter)
    outside = (result.log_prob - exact).abs() > result.error
    assert outside.sum() <= 4  # of 15: if 5% were outside, 6 in 10^4
    assert result.settled.double().mean() > 0.9


class RowsWithParameters(nn.Module):
    """Each datapoint has a mean and a guide of its own."""

    def __init__(self, n):
        super().__init__()
        self.loc = nn.Parameter(torch.linspace(-2, 2, n, dtype=torch.float64))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.loc, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("q", self.loc.detach().clone()), 0.5))


def test_rows_that_have_parameters_of_their_own():
    programs, x = RowsWithParameters(7), torch.randn(7, dtype=torch.float64)
    joint = joint_of(programs.model, programs.guide, x)
    assert not joint.by_pairs
    normals = fit_block(joint, programs.guide).normals
    mean = (programs.loc + x / 0.25) / (1 + 1 / 0.25)
    assert_close(normals.center[0, :, 0], mean.detach(), rtol=0, atol=1e-5)
    some = torch.tensor([5, 2])
    position = torch.randn(3, 2, 1, dtype=torch.float64)
    value, gradient = joint.gradient(position, some)
    log_joint = dist.Normal(programs.loc[some], 1.0).log_prob(position[..., 0]) + dist.Normal(
        position[..., 0], 0.5
    ).log_prob(x[some])
    assert_close(value, log_joint.detach())
    slope = (programs.loc[some] - position[..., 0]) + (x[some] - position[..., 0]) / 0.25
    assert_close(gradient[..., 0], slope.detach())
    result = evidence.estimate(programs.model, programs.guide, x, progress=iter)
    exact = dist.Normal(programs.loc, 1.25**0.5).log_prob(x).detach()
    assert ((result.log_prob - exact).abs() <= 2 * result.error).all()
    assert (result.error < 0.2).all()


def test_batch_statistics_are_those_of_all_rows():
    """A decoder with batch normalization in training mode: each row depends on the others."""
    torch.manual_seed(5)
    norm = nn.BatchNorm1d(2, track_running_stats=False).double()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            scale = norm(x).exp()
            pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0).to_event(1))

    x = torch.randn(9, 2, dtype=torch.float64)
    joint = joint_of(model, guide, x)
    assert not joint.by_pairs
    exact = dist.Normal(0.0, (1 + norm(x).exp() ** 2).sqrt()).to_event(1).log_prob(x).detach()
    result = evidence.estimate(model, guide, x, progress=iter)
    assert ((result.log_prob - exact).abs() <= 2 * result.error).all()
    assert (result.error < 0.2).all()


def test_pairs_are_the_same_as_all_rows_at_once():
    vae, x = random_instance(seed=1, latent=3, event=4, n=10)
    small, large = (joint_of(vae.model, vae.guide, x, chunk_size) for chunk_size in (7, 1000))
    assert small.by_pairs
    rows = torch.tensor([8, 8, 1])
    position = torch.randn(4, 3, 3, dtype=torch.float64)
    for name in ("densities", "gradient", "parts"):
        few, many = getattr(small, name)(position, rows), getattr(large, name)(position, rows)
        assert_close(few, many)
    large.by_pairs = False
    everything = torch.randn(4, 10, 3, dtype=torch.float64)
    whole = large.gradient(everything, torch.arange(10))
    large.by_pairs = True
    assert_close(large.gradient(everything, torch.arange(10)), whole)
    prior, likelihood, prior_gradient, likelihood_gradient = small.parts(position, rows)
    value, gradient = small.gradient(position, rows)
    assert_close(prior + likelihood, value)
    assert_close(prior_gradient + likelihood_gradient, gradient)
    free = position.clone().requires_grad_()
    assert_close(torch.autograd.grad(small._log_joint(free, x[rows]).sum(), free)[0], gradient)

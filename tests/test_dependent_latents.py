"""Latents whose distributions depend on other latents: their coordinates, and log p(x) of models that are made of them."""

from __future__ import annotations

import math

import known_evidence as known
import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from test_estimate import most_outside, outside
from torch.testing import assert_close

from pyro_vae import BottomUp, HierarchicalVAE, TopDown, evidence, likelihoods, nn, posteriors, priors
from pyro_vae.distributions.bijections import bijection
from pyro_vae.evidence.draws import settled_draws as settled_draws_module
from pyro_vae.evidence.results import methods
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained.approximate_likelihood import informed
from pyro_vae.evidence.unconstrained.log_joint import LogJoint
from pyro_vae.evidence.unconstrained.units import units
from pyro_vae.infer.recording.record import record


def joint_of(model, guide, x):
    programs = Programs(model, guide, x, None)
    return LogJoint(model, x, programs.layout, programs.chunk_size)


def chain(a, tau, noise):
    """z2 ~ N(0, 1), z1 | z2 ~ N(a z2, tau^2), x | z1 ~ N(z1, noise^2), each of two elements."""

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(a * z2, tau).to_event(1))
            pyro.sample("x", dist.Normal(z1, noise).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z2", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
            pyro.sample("z1", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))

    return model, guide


@pytest.mark.parametrize("tau", [1e-2, 1.0, 1e2])
@pytest.mark.parametrize("noise", [1e-2, 1.0, 1e2])
def test_what_the_data_say_in_a_chain_of_normals(tau, noise):
    """The precision of the data is 1 / noise^2, and in the new coordinates z1 is a standard normal that needs no z2."""
    model, guide = chain(0.7, tau, noise)
    x = 3 * torch.randn(5, 2, dtype=torch.float64)
    joint = informed(joint_of(model, guide, x), guide)
    columns = joint.vectors.columns("z1")
    precision, weighted = joint.data[1][..., columns].unbind(1)
    assert_close(precision, torch.full_like(x, noise**-2), rtol=1e-3, atol=1e-6 * tau**-2)
    assert_close(weighted, x / noise**2, rtol=1e-3, atol=1e-5 * tau**-2)
    position = joint.draw(guide, 40)
    _, slope = joint.gradient(position, torch.arange(5))
    assert_close(slope[..., columns], -position[..., columns], rtol=2e-3, atol=2e-3)


def test_what_the_data_say_two_layers_above():
    """p(x | z2) of three layers, with z1 integrated out."""
    tau, noise = 0.4, 0.3

    def model(x):
        with pyro.plate("data", len(x)):
            z3 = pyro.sample("z3", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z2 = pyro.sample("z2", dist.Normal(-0.5 * z3, 0.2).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(2 * z2, tau).to_event(1))
            pyro.sample("x", dist.Normal(z1, noise).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            for name in ("z3", "z2", "z1"):
                pyro.sample(name, dist.Normal(torch.zeros_like(x), 1.0).to_event(1))

    x = torch.randn(4, 2, dtype=torch.float64)
    joint = informed(joint_of(model, guide, x), guide)
    assert joint.vectors.dependent == ["z2", "z1"]
    precision, weighted = joint.data[1][..., joint.vectors.columns("z2")].unbind(1)
    exact = 4 / (tau**2 + noise**2)
    assert_close(precision, torch.full_like(x, exact), rtol=1e-3, atol=0)
    assert_close(weighted, exact * x / 2, rtol=1e-3, atol=1e-4)
    assert not joint.data[1][..., joint.vectors.columns("z3")].any()


def bounded(x):
    """Of every kind: in units of location and scale, of mean and deviation, with bounds that move, and with none."""
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.LogNormal(x, 1.0))
        free = pyro.sample("free", dist.Normal(top[..., None], top[..., None].expand(*top.shape, 3)).to_event(1))
        pyro.sample("below", dist.Uniform(0 * top, top))
        pyro.sample("rate", dist.Gamma(top, 1 / top))
        pyro.sample("simplex", dist.Dirichlet(free.exp()))
        pyro.sample("alone", dist.Gamma(torch.full_like(x, 2.0), 1.0))


@settings(max_examples=40)
@given(seed=st.integers(0, 2**30), informative=st.booleans())
def test_vectors_and_back_with_the_determinant(seed, informative):
    torch.manual_seed(seed)
    x = torch.randn(3, dtype=torch.float64)
    joint = joint_of(bounded, bounded, x)
    vectors = joint.vectors
    assert vectors.dependent == ["free", "below", "rate", "simplex"]
    if informative:
        precision = torch.rand(3, joint.dims, dtype=torch.float64).mul(4).exp()
        joint = joint.with_likelihood(torch.stack([precision, precision * torch.randn_like(precision)], dim=1))
    u = torch.randn(2, 3, joint.dims, dtype=torch.float64)
    latents, log_det = joint.to_latents(u)
    assert log_det.shape == (2, 3)
    assert_close(joint.to_vectors(latents), u, rtol=1e-6, atol=1e-6)

    def all_free(v):
        latents, _ = joint.to_latents(v)
        return torch.cat([each[:, :, :2] if each.ndim == 3 and name == "simplex" else each.reshape(2, 3, -1)
                          for name, each in latents.items()], dim=-1)[0, 0]  # fmt: skip

    jacobian = torch.autograd.functional.jacobian(all_free, u)[:, 0, 0]
    assert_close(jacobian.det().abs().log(), log_det[0, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fn", "location", "scale"),
    [
        (dist.Normal(3.0, 0.5), 3.0, 0.5),
        (dist.Cauchy(3.0, 0.5), 3.0, 0.5),
        (dist.LogNormal(3.0, 2.5), 3.0, 2.5),
        (dist.Normal(torch.full((2,), 3.0), 0.5).to_event(1).mask(True), 3.0, 0.5),
        (dist.MultivariateNormal(torch.full((2,), 3.0), 0.25 * torch.eye(2)), 3.0, 0.5),
        (dist.Gamma(100.0, 50.0), math.log(2), 0.1),  # the deviation is a tenth of the mean
        (dist.Beta(50.0, 50.0), 0.0, 4 * math.sqrt(0.25 / 101)),
        (dist.Uniform(-1.0, 3.0), 0.0, 4 / math.sqrt(12)),
        (dist.HalfCauchy(1.0), 0.0, 1.0),  # of no mean
    ],
)
def test_location_and_scale(fn, location, scale):
    found = units(fn, bijection(fn))
    assert_close(found[0], torch.full_like(found[0], location), rtol=1e-5, atol=1e-6)
    assert_close(found[1], torch.full_like(found[1], scale), rtol=1e-5, atol=1e-6)


def test_no_units_where_elements_are_mixed():
    fn = dist.Dirichlet(torch.ones(3))
    assert units(fn, bijection(fn)) is None


LAYERS = {  # the width of p(z1 | z2), that of p(x | z1), and the number of elements of z1
    "narrow z1": (0.02, 0.3, 20),
    "z1 a little narrower than its likelihood": (0.3, 1.0, 20),
    "both alike, few": (0.3, 0.3, 6),
    "wide z1": (1.0, 0.05, 20),
    "wide z1, few": (1.0, 0.05, 6),
}


@pytest.mark.parametrize("name", LAYERS)
def test_two_layers_against_quadrature(name):
    """As many intervals miss as 5% make likely (false alarm: 1 in 10^4); the guide knows nothing of z2."""
    n = 16
    width, noise, dims = LAYERS[name]
    model, guide, x, exact = known.two_layers(n, width, noise, dims)
    result = evidence.estimate(model, guide, x, max_temperatures=256, progress=iter)
    assert result.settled.double().mean() >= 0.9
    assert outside(result, exact).sum() <= most_outside(n)
    assert abs((result.log_prob - exact).mean()) <= 2 * result.mean_error


@pytest.mark.parametrize("start", ["prior", "laplace"])
def test_annealed_chains_and_the_sandwich_use_the_same_coordinates(start):
    """Both bounds of data of the model enclose log p(x), up to noise; a narrow z1."""
    model, guide, x, exact = known.two_layers(12, 0.02, 0.3, 6)
    settings = {"num_chains": 32, "num_temperatures": 40, "num_leapfrog": 3, "start": start, "progress": iter}
    result = evidence.annealed(model, guide, x, **settings)
    assert_close(result.log_prob, exact, rtol=0, atol=0.5)
    both = evidence.sandwich(model, guide, x, **settings)
    gap = both.upper - both.lower
    assert -0.1 < gap.mean() < 0.5


def test_annealed_chains_from_a_guide():
    model, guide = chain(0.7, 0.3, 1.0)
    scale = math.sqrt(0.7**2 + 0.3**2 + 1)
    x = scale * torch.randn(10, 2, dtype=torch.float64)
    settings = {"num_chains": 64, "num_temperatures": 150, "num_leapfrog": 3, "start": "guide", "progress": iter}
    result = evidence.annealed(model, guide, x, **settings)
    assert_close(result.log_prob, dist.Normal(0.0, scale).log_prob(x).sum(-1), rtol=0, atol=0.2)


def test_bounds_that_are_latents():
    """z ~ U(0, top), by quadrature over both."""
    model, guide, x, exact = known.uniform_below_a_latent(30)
    result = evidence.estimate(model, guide, x, max_temperatures=128, progress=iter)
    assert outside(result, exact).sum() <= most_outside(30)
    assert result.settled.double().mean() >= 0.9


def test_densities_with_bounds_that_are_latents_can_be_recorded():
    """Their bijections look at no value."""
    model, guide, x, _ = known.uniform_below_a_latent(4)
    joint = joint_of(model, guide, x)
    position = joint.draw(model, 1)
    with pyro.validation_enabled(False):
        graph = record(lambda position, x: joint._densities(position, x), position, x)
        for moved in (position, 0.5 * position):
            assert_close(graph(moved, x), joint._densities(moved, x))


def hierarchical(kind):
    torch.manual_seed(1)
    layer = posteriors.Normal(nn.mlp(3, [16], 2 * 4))
    with torch.no_grad():
        layer.network[-1].bias[4:] -= 4  # narrow
    x_net, z_net = nn.mlp((1, 4, 4), [16], 2 * 4), nn.mlp(4, [16], 2 * 3)
    ladder = TopDown(
        [nn.mlp((1, 4, 4), [16], 8), nn.mlp(8, [16], 8)], [posteriors.Normal(nn.mlp(8, [], 2 * d)) for d in (4, 3)]
    )
    posterior = {"bottom-up": BottomUp([posteriors.Normal(x_net), posteriors.Normal(z_net)]), "ladder": ladder}[kind]
    return HierarchicalVAE(
        priors.StandardNormal(3), [layer], likelihoods.Bernoulli(nn.mlp(4, [16], (1, 4, 4))), posterior
    )


@pytest.mark.parametrize(("kind", "fast"), [("ladder", "auto"), ("bottom-up", "auto"), ("ladder", False)])
def test_a_hierarchical_vae_recorded_and_plain(kind, fast):
    """All agree with many samples from the prior, which are right in so few dimensions."""
    vae = hierarchical(kind)
    x = vae.sample(12)
    result = evidence.estimate(vae.model, vae.guide, x, compile=fast, progress=iter)
    with torch.no_grad():
        z = vae.layers[0](vae.prior().sample((40_000,))).sample()
        log_weights = torch.stack([vae.likelihood(z).log_prob(row) for row in x]).double()
    reference = log_weights.logsumexp(1) - math.log(len(z))
    noise = (log_weights - reference[:, None]).exp().std(1) / math.sqrt(len(z))
    assert result.settled.all()
    assert ((result.log_prob - reference).abs() <= result.error + 4 * noise).all()


class Bend(torch.distributions.Transform):
    """Adds a multiple of the square of the first element to all others, which it narrows before."""

    domain = codomain = dist.constraints.independent(dist.constraints.real, 1)
    bijective = True

    def _call(self, y):
        return torch.cat([y[..., :1], 0.02 * y[..., 1:] + 3 * y[..., :1].square()], dim=-1)

    def _inverse(self, z):
        return torch.cat([z[..., :1], (z[..., 1:] - 3 * z[..., :1].square()) / 0.02], dim=-1)

    def log_abs_det_jacobian(self, y, z):  # noqa: ARG002
        return (y.shape[-1] - 1) * math.log(0.02) + 0 * y[..., 0]


def bent(first, width):
    """A tube of twenty dimensions around a parabola, with a normal as its first element."""
    loc, scale = (torch.cat([each[..., None], torch.full_like(first, v)[..., None].expand(*first.shape, 19)], -1)
                  for each, v in ((first, 0.0), (width + 0 * first, 1.0)))  # fmt: skip
    return dist.TransformedDistribution(dist.Normal(loc, scale).to_event(1), [Bend()])


def along_the_tube(noise):
    """A model of the tube, of whose first element x is a noisy observation, and the exact log p(x)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", bent(torch.zeros_like(x), 1.0))
            pyro.sample("x", dist.Normal(z[..., 0], noise), obs=x)

    return model, dist.Normal(0.0, math.sqrt(1 + noise**2)).log_prob


def test_chains_along_a_narrow_bent_posterior_are_not_believed_when_they_reach_a_part_of_it():
    """From normals at its mode, 8 of 16 intervals were wrong, by up to 1.7 nats. The guide knows nothing of the tube."""
    model, log_prob = along_the_tube(0.3)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), 20), 1.0).to_event(1))

    ends = torch.linspace(1, 2, 8, dtype=torch.float64)
    x = torch.cat([-ends, ends])
    result = evidence.estimate(model, guide, x, progress=iter)
    assert outside(result, log_prob(x)).sum() <= most_outside(16)
    assert result.settled.double().mean() >= 0.4


def test_where_no_error_is_known_the_guide_is_the_lower_bound_if_it_is_higher(monkeypatch):
    """Chains of one temperature along the tube. The guide is the posterior, so it is exact."""
    noise = 0.03
    model, log_prob = along_the_tube(noise)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", bent(x / (1 + noise**2), noise / math.sqrt(1 + noise**2)))

    x = torch.linspace(-2, 2, 40, dtype=torch.float64)
    exact = log_prob(x)
    result = evidence.estimate(model, guide, x, max_temperatures=1, progress=iter)
    guided = result.method == methods.GUIDE
    assert guided.any()
    assert result.error[guided].isinf().all()
    assert_close(result.log_prob[guided], exact[guided], rtol=0, atol=1e-6)
    assert (result.log_prob >= exact - 1.01)[~result.settled].all()
    programs = Programs(model, guide, x, None)
    few = settled_draws_module.SETTINGS._replace(max_temperatures=1)
    monkeypatch.setattr(settled_draws_module, "SETTINGS", few)
    drawn = settled_draws_module.settled_draws(programs, x, 400)
    assert_close(drawn.latents["z"][..., 0].mean(0), x / (1 + noise**2), rtol=0, atol=noise)

"""Every distribution of torch, Pyro and zuko as a latent: annealing and Laplace take it, or say in a sentence why not.

What is taken is mapped from real vectors. Two laws say whether the map is right, whatever the name of the support: the
density of the vectors, which is that of the distribution times the Jacobian, integrates to 1; and the map leads back
to every draw.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.distributions as torch_dist
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import transforms as pyro_transforms
from torch.distributions import transforms as t

from pyro_vae import evidence
from pyro_vae.distributions.bijections import bijection
from pyro_vae.distributions.zuko_import import zuko

zd = zuko.distributions
ONE = torch.tensor(1.0, dtype=torch.float64)


def of(value, *more):
    return torch.tensor([value, *more] if more else value, dtype=torch.float64)


def normal(*shape):
    return dist.Normal(torch.zeros(shape, dtype=torch.float64), ONE)


def transformed(base, *steps):
    return dist.TransformedDistribution(base, list(steps))


def mixture(components, weights=(0.3, 0.7)):
    return dist.MixtureSameFamily(torch_dist.Categorical(of(*weights), validate_args=False), components)


NUMBERS = {  # distributions of a single number
    "AffineBeta": lambda: dist.AffineBeta(of(2.0), of(3.0), of(-1.0), of(4.0)),
    "AsymmetricLaplace": lambda: dist.AsymmetricLaplace(of(0.5), ONE, of(1.5)),
    "Beta": lambda: dist.Beta(of(2.0), of(3.0)),
    "Cauchy": lambda: dist.Cauchy(of(0.5), of(0.7)),
    "Chi2": lambda: dist.Chi2(of(3.0)),
    "ContinuousBernoulli": lambda: dist.ContinuousBernoulli(of(0.3)),
    "Exponential": lambda: dist.Exponential(of(2.0)),
    "FisherSnedecor": lambda: dist.FisherSnedecor(of(5.0), of(7.0)),
    "FoldedDistribution": lambda: dist.FoldedDistribution(dist.Normal(of(0.4), ONE)),
    "Gamma": lambda: dist.Gamma(of(2.0), of(1.5)),
    "Gumbel": lambda: dist.Gumbel(of(0.5), of(0.8)),
    "HalfCauchy": lambda: dist.HalfCauchy(of(0.7)),
    "HalfNormal": lambda: dist.HalfNormal(of(0.7)),
    "InverseGamma": lambda: dist.InverseGamma(of(3.0), of(2.0)),
    "Kumaraswamy": lambda: dist.Kumaraswamy(of(2.0), of(3.0)),
    "Laplace": lambda: dist.Laplace(of(0.5), of(0.7)),
    "LogNormal": lambda: dist.LogNormal(of(0.2), of(0.6)),
    "Logistic": lambda: dist.Logistic(of(0.5), of(0.4)),
    "MaskedDistribution": lambda: normal().mask(True),
    "MaskedMixture": lambda: dist.MaskedMixture(torch.tensor(True), normal(), dist.Normal(ONE, ONE)),
    "MixtureSameFamily of normals": lambda: mixture(dist.Normal(of(-1.0, 2.0), of(0.5, 0.8))),
    "MixtureSameFamily of gammas": lambda: mixture(dist.Gamma(of(2.0, 4.0), of(1.0, 3.0))),
    "MixtureSameFamily of betas": lambda: mixture(dist.Beta(of(2.0, 5.0), of(4.0, 2.0))),
    "MixtureSameFamily of angles": lambda: mixture(dist.VonMises(of(-1.0, 2.0), of(2.0, 4.0))),
    "MixtureSameFamily of intervals": lambda: mixture(
        torch_dist.Uniform(of(0.0, 1.0), of(2.0, 4.0), validate_args=False)
    ),
    "MixtureSameFamily of mixtures": lambda: mixture(
        mixture(dist.Gamma(of(2.0, 3.0).expand(2, 2), ONE), ((0.5, 0.5), (0.2, 0.8)))
    ),
    "MixtureSameFamily of transformed": lambda: mixture(
        transformed(dist.Normal(of(-1.0, 1.0), of(0.5, 0.5)), t.ExpTransform())
    ),
    "NanMaskedNormal": lambda: dist.NanMaskedNormal(of(0.3), of(0.8)),
    "Normal": lambda: dist.Normal(of(0.3), of(0.8)),
    "Pareto": lambda: dist.Pareto(of(1.5), of(3.0)),
    "Rejector": lambda: dist.Rejector(dist.Gamma(of(2.0), ONE), lambda z: 0 * z, of(0.0)),
    "RelaxedBernoulli": lambda: dist.RelaxedBernoulli(of(0.7), of(0.4)),
    "SkewLogistic": lambda: dist.SkewLogistic(of(0.5), of(0.4), of(2.0)),
    "SoftAsymmetricLaplace": lambda: dist.SoftAsymmetricLaplace(of(0.5), of(0.7), of(1.3)),
    "SoftLaplace": lambda: dist.SoftLaplace(of(0.5), of(0.7)),
    "StableWithLogProb": lambda: dist.StableWithLogProb(of(1.8), of(0.1)),
    "StudentT": lambda: dist.StudentT(of(4.0), of(0.5), of(0.7)),
    "Uniform": lambda: dist.Uniform(of(-1.0), of(2.0)),
    "VonMises": lambda: dist.VonMises(of(2.0), of(3.0)),
    "Weibull": lambda: dist.Weibull(of(1.0), of(2.0)),
    "TransformedDistribution: exp": lambda: transformed(normal(), t.ExpTransform()),
    "TransformedDistribution: exp, shifted": lambda: transformed(
        normal(), t.ExpTransform(), t.AffineTransform(1.0, 2.0)
    ),
    "TransformedDistribution: exp, turned": lambda: transformed(
        normal(), t.ExpTransform(), t.AffineTransform(0.0, -1.0)
    ),
    "TransformedDistribution: composed": lambda: transformed(
        normal(), t.ComposeTransform([t.SigmoidTransform(), t.AffineTransform(-1.0, 3.0)])
    ),
    "TransformedDistribution: shifted gamma": lambda: transformed(
        dist.Gamma(of(2.0), ONE), t.AffineTransform(3.0, 1.0)
    ),
    "TransformedDistribution: log of a gamma": lambda: transformed(dist.Gamma(of(2.0), ONE), t.ExpTransform().inv),
    "TransformedDistribution: exp of an interval": lambda: transformed(
        dist.AffineBeta(of(2.0), of(2.0), of(-1.0), of(2.0)), t.ExpTransform()
    ),
    "TransformedDistribution: tanh": lambda: transformed(normal(), t.TanhTransform()),
    "TransformedDistribution: softplus": lambda: transformed(normal(), t.SoftplusTransform()),
    "TransformedDistribution: power": lambda: transformed(dist.Gamma(of(2.0), ONE), t.PowerTransform(of(2.0))),
    "TransformedDistribution: affine": lambda: transformed(normal(), t.AffineTransform(1.0, 2.0)),
    "zuko.GeneralizedNormal": lambda: zd.GeneralizedNormal(of(2.5)),
    "zuko.Maximum": lambda: zd.Maximum(torch_dist.Normal(of(0.0), ONE), 3),
    "zuko.Minimum": lambda: zd.Minimum(torch_dist.Exponential(ONE), 3),
    "zuko.Mixture": lambda: zd.Mixture(torch_dist.Gamma(of(2.0, 4.0), of(1.0, 3.0)), of(0.3, 0.7)),
    "zuko.NormalizingFlow": lambda: zd.NormalizingFlow(t.ExpTransform(), torch_dist.Gamma(of(2.0), ONE)),
    "zuko.NormalizingFlow, bounded": lambda: zd.NormalizingFlow(
        t.ComposeTransform([t.AffineTransform(1.0, 2.0), t.ExpTransform()]), torch_dist.Beta(of(2.0), of(3.0))
    ),
    "zuko.TransformedUniform": lambda: zd.TransformedUniform(t.ExpTransform(), of(-1.0), of(1.0)),
    "zuko.Truncated": lambda: zd.Truncated(torch_dist.Normal(of(0.5), ONE), of(-1.0), of(1.5)),
    "zuko.Truncated on one side": lambda: zd.Truncated(torch_dist.Normal(of(0.5), ONE), of(-1.0), of(math.inf)),
}
if hasattr(dist, "GeneralizedPareto"):  # older versions of torch have none
    NUMBERS |= {
        "GeneralizedPareto": lambda: dist.GeneralizedPareto(*torch.tensor([0.5, 1.0, -0.4])),  # of float32 in torch
        "GeneralizedPareto, without end": lambda: dist.GeneralizedPareto(*torch.tensor([0.5, 1.0, 0.3])),
    }
PAIRS = {  # of two free numbers
    "AVFMultivariateNormal": lambda: dist.AVFMultivariateNormal(
        of(0.1, 0.2), torch.eye(2).double(), torch.zeros(2, 1, 2).double()
    ),
    "Dirichlet": lambda: dist.Dirichlet(of(2.0, 3.0, 2.5)),
    "Independent": lambda: dist.Gamma(of(2.0, 3.0), ONE).to_event(1),
    "Independent mixture": lambda: mixture(
        dist.Normal(of(-1.0, 1.0).expand(2, 2), ONE), ((0.3, 0.7), (0.5, 0.5))
    ).to_event(1),
    "LogisticNormal": lambda: dist.LogisticNormal(of(0.2, -0.3), of(0.8, 0.6)),
    "LowRankMultivariateNormal": lambda: dist.LowRankMultivariateNormal(
        of(0.1, 0.2), of(0.5, 0.5)[:, None], of(0.5, 0.4)
    ),
    "MixtureOfDiagNormals": lambda: dist.MixtureOfDiagNormals(
        torch.eye(2).double(), torch.ones(2, 2).double(), of(0.2, 0.1)
    ),
    "MixtureOfDiagNormalsSharedCovariance": lambda: dist.MixtureOfDiagNormalsSharedCovariance(
        torch.eye(2).double(), of(1.0, 0.7), of(0.2, 0.1)
    ),
    "MixtureSameFamily of vectors": lambda: mixture(dist.Beta(of(2.0, 3.0)[:, None].expand(2, 2), of(2.0)).to_event(1)),
    "MixtureSameFamily on the simplex": lambda: mixture(
        dist.Dirichlet(torch.tensor([[2.0, 3, 2], [4, 2, 3]]).double())
    ),
    "MultivariateNormal": lambda: dist.MultivariateNormal(
        of(0.1, 0.2), torch.tensor([[1.0, 0.5], [0.5, 0.8]]).double()
    ),
    "MultivariateStudentT": lambda: dist.MultivariateStudentT(of(5.0), of(0.1, 0.2), torch.eye(2).double()),
    "NanMaskedMultivariateNormal": lambda: dist.NanMaskedMultivariateNormal(of(0.1, 0.2), torch.eye(2).double()),
    "OMTMultivariateNormal": lambda: dist.OMTMultivariateNormal(of(0.1, 0.2), torch.eye(2).double()),
    "RelaxedOneHotCategorical": lambda: dist.RelaxedOneHotCategorical(of(1.5), of(0.3, 0.3, 0.4)),
    "SineBivariateVonMises": lambda: dist.SineBivariateVonMises(of(1.0), of(-2.0), of(2.0), of(3.0), of(0.5)),
    "SineSkewed": lambda: dist.SineSkewed(dist.VonMises(of(1.0, -2.0), of(2.0)).to_event(1), of(0.3, -0.2)),
    "TransformedDistribution: simplex": lambda: transformed(normal(2).to_event(1), t.StickBreakingTransform()),
    "TransformedDistribution: ordered": lambda: transformed(normal(2).to_event(1), pyro_transforms.OrderedTransform()),
    "TransformedDistribution: side by side": lambda: transformed(
        normal(2).to_event(1), t.CatTransform([t.ExpTransform(), t.identity_transform], -1, [1, 1])
    ),
    "TransformedDistribution: another shape": lambda: transformed(
        normal(2).to_event(1), t.ReshapeTransform((2,), (2, 1))
    ),
    "zuko.BoxUniform": lambda: zd.BoxUniform(of(-1.0, 0.0), of(1.0, 3.0)),
    "zuko.DiagNormal": lambda: zd.DiagNormal(of(0.5, 1.0), of(0.5, 0.8)),
    "zuko.Joint": lambda: zd.Joint(torch_dist.Gamma(of(2.0), ONE), torch_dist.Beta(of(2.0), of(3.0))),
    "zuko.Sort": lambda: zd.Sort(torch_dist.Normal(of(0.0), ONE), 2),
    "zuko.Sort, descending": lambda: zd.Sort(torch_dist.Exponential(ONE), 2, descending=True),
    "zuko.TopK": lambda: zd.TopK(torch_dist.Normal(of(0.0), ONE), 2, 3),
}
ONES = {  # matrices of correlations, of one free number
    "LKJ": lambda: dist.LKJ(2, of(2.0)),
    "LKJCholesky": lambda: dist.LKJCholesky(2, of(2.0)),
    "LKJCorrCholesky": lambda: dist.LKJCorrCholesky(2, of(2.0)),
}
REFUSED = {  # continuous in name, but without a map: what the sentence says
    "CoalescentTimes": (lambda: dist.CoalescentTimes(torch.zeros(3)), "has support"),
    "Delta": (lambda: dist.Delta(of(0.5)), "single points have mass"),
    "Delta in an event": (lambda: dist.Delta(of(0.5, 1.0)).to_event(1), "single points have mass"),
    "Empirical": (lambda: dist.Empirical(of(0.5, 1.0), of(0.0, 0.0)), "single points have mass"),
    "MaskedMixture": (
        lambda: dist.MaskedMixture(torch.tensor(True), dist.Gamma(ONE, ONE), dist.LogNormal(ONE, ONE)),
        "has support",
    ),
    "MixtureSameFamily": (
        lambda: mixture(transformed(normal(2), t.ExpTransform(), t.AffineTransform(1.0, 1.0))),
        "mixture of transformed",
    ),
    "ProjectedNormal": (lambda: dist.ProjectedNormal(torch.ones(3)), "has support Sphere"),
    "RelaxedBernoulliStraightThrough": (
        lambda: dist.RelaxedBernoulliStraightThrough(of(0.5), of(0.3)),
        "draws discrete values",
    ),
    "RelaxedOneHotCategoricalStraightThrough": (
        lambda: dist.RelaxedOneHotCategoricalStraightThrough(of(0.5), of(0.3, 0.7)),
        "draws discrete values",
    ),
    "TransformedDistribution": (lambda: transformed(normal(), t.AbsTransform()), "not one-to-one"),
    "VonMises3D": (lambda: dist.VonMises3D(torch.ones(3)), "has support Sphere"),
    "Wishart": (lambda: dist.Wishart(of(4.0), torch.eye(2).double()), "has support PositiveDefinite"),
    "ZeroInflatedDistribution": (
        lambda: dist.ZeroInflatedDistribution(dist.Gamma(ONE, ONE), gate=of(0.2)),
        "single points have mass",
    ),
    "zuko.Joint": (
        lambda: zd.Joint(torch_dist.Dirichlet(of(1.0, 1.0)), torch_dist.Gamma(ONE, ONE)),
        "a site for each of them",
    ),
}
DISCRETE = {
    *(
        "Bernoulli",
        "BetaBinomial",
        "Binomial",
        "Categorical",
        "DirichletMultinomial",
        "DiscreteHMM",
        "ExtendedBinomial",
    ),
    *("ExtendedBetaBinomial", "GammaPoisson", "Geometric", "LogNormalNegativeBinomial", "Multinomial"),
    *("NegativeBinomial", "OneHotCategorical", "OneHotCategoricalStraightThrough", "OneOneMatching", "OneTwoMatching"),
    *("OrderedLogistic", "Poisson", "SpanningTree", "ZeroInflatedNegativeBinomial", "ZeroInflatedPoisson"),
}
NO_LATENTS = {  # without draws or densities, or of sequences that have no plate; and what is no distribution
    *("CoalescentRateLikelihood", "CoalescentTimesWithRate", "GammaGaussianHMM", "GaussianHMM", "GaussianMRF"),
    *("GroupedNormalNormal", "ImproperUniform", "IndependentHMM", "LinearHMM", "Stable", "Unit"),
    *("GaussianScaleMixture", "TruncatedPolyaGamma"),  # whose densities are checked with other means by Pyro
    *("Distribution", "ExponentialFamily", "ConditionalDistribution", "ConditionalTransformedDistribution"),
    *("ExpandedDistribution", "TorchDistribution"),
}


def test_every_distribution_there_is_has_its_place_here():
    """So that one that is new is noticed."""
    there = {
        name for module in (torch_dist, dist) for name in module.__all__ if isinstance(getattr(module, name), type)
    }
    there = {name for name in there if not name.endswith(("Transform", "TransformModule"))} - {"Transform"}
    there |= {f"zuko.{name}" for name in zd.__all__}
    known = {*NUMBERS, *PAIRS, *ONES, *REFUSED}
    tried = {name.split(":")[0].split(",")[0].split(" ")[0] for name in known}
    assert there - tried - DISCRETE - NO_LATENTS == set()


@pytest.fixture(autouse=True)
def _unvalidated():
    """As zuko wants it, of which some cannot be made else; some of torch take no value outside of one component."""
    with pyro.validation_enabled(False):
        yield


def mass(distribution, dims, steps, half_width):
    """The integral of the density over real vectors, on a grid; where numbers end, far out, there may be NaN."""
    transform = bijection(distribution)
    line = torch.linspace(-half_width, half_width, steps, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(*[line] * dims, indexing="ij"), -1).reshape(-1, dims)
    draw = transform.inv(distribution.sample((1,)))
    vectors = grid.reshape(-1, *draw.shape[1:]).to(draw)
    values = transform(vectors)
    jacobian = transform.log_abs_det_jacobian(vectors, values).reshape(len(vectors), -1).sum(-1)
    density = distribution.log_prob(values).reshape(len(vectors), -1).sum(-1) + jacobian
    assert not density[grid.abs().amax(-1) < 5].isnan().any()
    return density.double().nan_to_num(nan=-math.inf).exp().sum().item() * (line[1] - line[0]).item() ** dims


@pytest.mark.parametrize("name", [*NUMBERS, *ONES])
def test_densities_of_numbers_integrate_to_one(name):
    """The tails beyond the grid, of Cauchy and the like, have a mass of up to 0.002 on real lines."""
    wide = 400.0 if name in ("Cauchy", "StudentT", "StableWithLogProb") else 40.0
    assert mass({**NUMBERS, **ONES}[name](), 1, 8_001, wide) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", PAIRS)
def test_densities_of_pairs_integrate_to_one(name):
    assert mass(PAIRS[name](), 2, 601, 25.0) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", [*NUMBERS, *PAIRS, *ONES])
def test_the_map_leads_back_to_every_draw(name):
    torch.manual_seed(0)
    distribution = {**NUMBERS, **PAIRS, **ONES}[name]()
    draws = distribution.sample((500,))
    transform = bijection(distribution)
    vectors = transform.inv(draws)
    assert vectors.isfinite().all()
    torch.testing.assert_close(transform(vectors), draws, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_taken_is_refused_in_a_sentence(name):
    make, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        bijection(make())


# Evidence with such latents


def programs(distribution):
    """x from a normal at the arc tangent of a number, which is anywhere; the guide draws from the prior."""
    if type(distribution).__module__.startswith("zuko"):
        distribution = ZukoToPyro(distribution)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", distribution)
            pyro.sample("x", dist.Normal(torch.atan(z), 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", distribution)

    return model, guide


def exact(distribution, x):
    """log p(x) by quadrature over the real line."""
    transform = bijection(distribution)
    line = torch.linspace(-40, 40, 40_001, dtype=torch.float64)
    values = transform(line)
    density = distribution.log_prob(values) + transform.log_abs_det_jacobian(line, values)
    likelihood = torch_dist.Normal(torch.atan(values), 0.5).log_prob(x[:, None])
    return (density.nan_to_num(nan=-math.inf) + likelihood).logsumexp(-1) + math.log(80 / 40_000)


HARD = [  # where the support is not what torch says, or what the map depends on
    "GeneralizedPareto, without end",
    "MixtureSameFamily of angles",
    "MixtureSameFamily of gammas",
    "MixtureSameFamily of mixtures",
    "TransformedDistribution: exp, shifted",
    "TransformedDistribution: exp of an interval",
    "VonMises",
    "zuko.NormalizingFlow, bounded",
    "zuko.Truncated",
]


@pytest.mark.parametrize("name", [name for name in HARD if name in NUMBERS])
@pytest.mark.parametrize("method", ["annealed", "laplace"])
def test_evidence_with_such_latents_is_that_of_quadrature(name, method):
    """The mean of 60 estimates of the same log p(x) lies within 5 standard errors of it, and 0.01: 1 in 10^6 each."""
    distribution, x = NUMBERS[name](), torch.tensor([0.3], dtype=torch.float64).expand(60)
    if name.startswith("GeneralizedPareto"):
        x = x.float()
    model, guide = programs(distribution)
    torch.manual_seed(1)
    if method == "annealed":
        found = evidence.annealed(model, guide, x, num_chains=32, num_temperatures=40, num_leapfrog=3, progress=iter)
    else:
        found = evidence.importance(
            model, guide, x, num_samples=400, proposal=evidence.laplace(), compile=False, progress=iter
        )
    difference = found.log_prob.double() - exact(distribution, x[:1].double())
    assert difference.mean().abs() < 5 * difference.std() / math.sqrt(60) + 0.01


@pytest.mark.parametrize("name", ["Delta", "RelaxedBernoulliStraightThrough", "ZeroInflatedDistribution"])
def test_what_is_not_taken_is_named(name):
    model, guide = programs(REFUSED[name][0]())
    with pytest.raises(ValueError, match=f"latent site 'z' is of class {name}, .* mass|latent site 'z' .* discrete"):
        evidence.annealed(model, guide, torch.zeros(3, dtype=torch.float64), progress=iter)


def test_what_cannot_be_drawn_is_said():
    model, _ = programs(dist.ImproperUniform(dist.constraints.positive, (), ()))
    _, guide = programs(dist.LogNormal(of(0.0), ONE))
    with pytest.raises(ValueError, match=r"a latent site that cannot be drawn: ImproperUniform does not support"):
        evidence.annealed(model, guide, torch.zeros(3, dtype=torch.float64), progress=iter)


def test_a_shift_that_is_another_latent():
    """Of which torch knows nothing: it says that the support is real. x is a normal plus an exponential number."""

    def model(x):
        with pyro.plate("data", len(x)):
            least = pyro.sample("least", dist.Normal(torch.zeros_like(x), 3.0))
            z = pyro.sample("z", transformed(dist.Exponential(torch.ones_like(x)), t.AffineTransform(least, 1.0)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            least = pyro.sample("least", dist.Normal(torch.zeros_like(x), 3.0))
            pyro.sample("z", transformed(dist.Exponential(torch.ones_like(x)), t.AffineTransform(least, 1.0)))

    torch.manual_seed(0)
    x = math.sqrt(10) * torch.randn(5, dtype=torch.float64) + torch.rand(5, dtype=torch.float64).log().neg()
    exact = 5 - x + torch.special.log_ndtr((x - 10) / math.sqrt(10))
    result = evidence.annealed(model, guide, x, num_chains=512, num_temperatures=50, progress=iter)
    torch.testing.assert_close(result.log_prob, exact, rtol=0, atol=0.2)


@pytest.mark.parametrize("lower", [-torch.inf, -1.0])
@pytest.mark.parametrize("upper", [torch.inf, 2.0])
def test_intervals_with_and_without_ends(lower, upper):
    """The map stays inside and can be undone, and its log-determinant is the log of its derivative."""

    class Between(dist.Normal):
        support = dist.constraints.interval(of(lower), of(upper))

    between = bijection(Between(of(0.0), ONE))
    x = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    y = between(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert ((lower < y) & (y < upper)).all()
    torch.testing.assert_close(between.inv(y), x)
    torch.testing.assert_close(between.log_abs_det_jacobian(x, y), slope.log())

"""The contract of parts, over every combination. A new part is a new row in one of the tables of ``parts.py``."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from itertools import product

import parts
import pyro
import pytest
import torch
from parts import EVENT, LATENT, LIKELIHOODS, POSTERIORS, PRIORS, TorchPrior
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch.testing import assert_close

from pyro_vae import VAE, evidence, load, nn, save, weights
from pyro_vae.infer.recording.compiled import compiled

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def make(prior, likelihood, posterior):
    q = POSTERIORS[posterior]()
    return PRIORS[prior](q), LIKELIHOODS[likelihood](), q


@cache
def on_the_sphere(table, name):
    """Whether a prior or posterior draws latents of length one."""
    q = POSTERIORS[name if table == "posterior" else "Normal"]()
    with torch.no_grad():
        p = q(torch.ones(1, *EVENT)) if table == "posterior" else PRIORS[name](q)()
        return bool(((p.sample((20,)).norm(dim=-1) - 1).abs() < 1e-5).all())


def fits(prior, posterior):
    if on_the_sphere("posterior", posterior):  # a prior that shares its posterior is where that is
        return prior == "VampPrior" or on_the_sphere("prior", prior)
    return not on_the_sphere("prior", prior)


COMBINATIONS = list(product(PRIORS, LIKELIHOODS, POSTERIORS))
FITTING = [names for names in COMBINATIONS if fits(names[0], names[2])]


def pairs(names):
    """The three pairs of parts that meet in a combination."""
    return {(i, names[i], j, names[j]) for i in range(3) for j in range(i)}


def every_pair(combinations):
    """So many of the combinations that every pair of parts that fit together meets in one of them."""
    left, chosen = set().union(*map(pairs, combinations)), []
    while left:
        best = max(combinations, key=lambda names: len(pairs(names) & left))
        chosen.append(best)
        left -= pairs(best)
    return chosen


PAIRS = every_pair(FITTING)
OTHERS = sorted({(prior, posterior) for prior, _, posterior in COMBINATIONS if not fits(prior, posterior)})
# Every part once: for what is about one part, or takes longer.
ONCE = [
    *((prior, "Bernoulli", next(q for q in POSTERIORS if fits(prior, q))) for prior in PRIORS),
    *(("StandardNormal", likelihood, "Normal") for likelihood in LIKELIHOODS),
    *((next(p for p in PRIORS if fits(p, posterior)), "Bernoulli", posterior) for posterior in POSTERIORS),
]
ONCE = list(dict.fromkeys(ONCE))


def in_few(combinations):
    """A few combinations that together have every part: the next one is always that with the most new parts."""
    chosen, new = [], {part for names in combinations for part in enumerate(names)}
    while new:
        chosen.append(max(combinations, key=lambda names, new=new: len(new & set(enumerate(names)))))
        new = new - set(enumerate(chosen[-1]))
    return chosen


FEW = in_few(FITTING)
COMPILED = slice(1, 6)  # combinations that are compiled, all at once


def identify(names):
    return " / ".join(names)


def test_every_pair_of_parts_meets():
    assert set().union(*map(pairs, PAIRS)) == set().union(*map(pairs, FITTING))
    assert len(PAIRS) < len(FITTING) / 4


@pytest.mark.parametrize("names", PAIRS, ids=identify)
def test_every_combination(names):
    parts = make(*names)
    vae = VAE(*parts)
    x = vae.sample(5)
    _shapes_under_leading_dimensions(vae)
    log_w = _log_weights_are_pyros_trace_sums(vae, x)
    _a_gradient_reaches_every_parameter(vae, log_w)
    _the_state_survives(vae, x)
    for device in DEVICES:
        _the_same_elsewhere(vae, x, device)
    vae = vae.double()
    _evidence_equals_quadrature(vae, x[:3].double() if x.is_floating_point() else x[:3])


# Rows with a module that is not of the library, which cannot be described in a file.
OF_THE_TESTS = {"torch's own", "zuko flow", "linear normal", "one covariance"}
OF_THE_TESTS |= {"LinearGaussian", "ProductOfExperts", "Categorical", "ZeroInflated"}  # a module inside them is


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("names", ONCE, ids=identify)
def test_every_part_is_saved_and_loaded(names, device, tmp_path, monkeypatch):
    """Rebuilt from the folder alone, or into a VAE that is made again if a part is of these tests."""
    if names[1] != "Categorical":  # whose data need the encoder of these tests
        monkeypatch.setattr(parts, "encoder", lambda outputs: nn.mlp(EVENT, [8], outputs))
    vae = VAE(*make(*names)).to(device)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        save(vae, tmp_path)
    loaded = load(tmp_path, VAE(*make(*names)) if said else None)
    assert bool(said) == bool(OF_THE_TESTS & set(names))
    for each in said:
        assert str(each.message).startswith("the weights are saved in ")
    assert vae.training
    assert not loaded.training
    state, before = loaded.state_dict(), vae.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(state[name], tensor.cpu()) for name, tensor in before.items())


def _shapes_under_leading_dimensions(vae):
    assert (vae.latent_shape, vae.event_shape) == ((LATENT,), EVENT)
    for batch in ((5,), (2, 1, 5)):
        z = vae.prior().sample(batch)
        x = vae.likelihood(z).sample()
        assert z.shape == (*batch, LATENT)
        assert x.shape == (*batch, *EVENT)
        assert vae.prior().log_prob(z).shape == batch
        assert vae.likelihood(z).log_prob(x).shape == batch
        assert vae.posterior(x).log_prob(z).shape == batch
        # A leading dimension only repeats what happens without it.
        last = (0,) * (len(batch) - 1)
        assert_close(vae.posterior(x).log_prob(z)[last], vae.posterior(x[last]).log_prob(z[last]), rtol=1e-4, atol=1e-4)
        assert_close(vae.likelihood(z).log_prob(x)[last], vae.likelihood(z[last]).log_prob(x[last]))


def _log_weights_are_pyros_trace_sums(vae, x):
    torch.manual_seed(1)
    log_w = weights.log_weights(vae.model, vae.guide, x, 4)
    torch.manual_seed(1)
    loss = Trace_ELBO(4, vectorize_particles=True, max_plate_nesting=1).loss(vae.model, vae.guide, x)
    assert log_w.isfinite().all()
    assert_close(-log_w.mean(0).sum().item(), loss, rtol=1e-5, atol=1e-4)
    return log_w


def _a_gradient_reaches_every_parameter(vae, log_w):
    log_w.mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def _elbo(vae, x):
    torch.manual_seed(2)
    with torch.no_grad():
        return weights.log_weights(vae.model, vae.guide, x, 3)


def _the_state_survives(vae, x):
    before = _elbo(vae, x)
    other = copy.deepcopy(vae)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    if list(vae.parameters()):
        assert not torch.equal(_elbo(other, x), before)
    other.load_state_dict(vae.state_dict())
    assert torch.equal(_elbo(other, x), before)


@torch.no_grad()
def _the_same_elsewhere(vae, x, device):
    """At the same latents, on another device and in float64."""
    layout = weights.find_layout(vae.model, vae.guide, x)
    other = copy.deepcopy(vae).to(device, torch.float64)
    same_x = x.to(device, torch.float64) if x.is_floating_point() else x.to(device)
    z = other.posterior(same_x).sample((2,))
    there = weights.terms_at(other.model, other.guide, same_x, {"z": z}, 2, layout)
    here = weights.terms_at(vae.model, vae.guide, x, {"z": z.to("cpu", torch.float32)}, 2, layout)
    for a, b in zip(here[:3], there[:3], strict=True):
        assert b.dtype == torch.float64
        assert b.device.type == device
        assert_close(a.double(), b.cpu(), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def _evidence_equals_quadrature(vae, x):
    z, log_area = _grid(on_sphere=bool(((vae.prior().sample((20,)).norm(dim=-1) - 1).abs() < 1e-5).all()))
    log_prior = vae.prior().log_prob(z) + log_area
    # The density of the prior integrates to one, and with the likelihood to the evidence. Densities with a kink
    # (Laplace, splines) leave an error of 10^-3 on this grid.
    assert log_prior.logsumexp(0).exp().item() == pytest.approx(1, abs=3e-3)
    p_x = vae.likelihood(z)
    exact = torch.stack([(log_prior + p_x.log_prob(row)).logsumexp(0) for row in x])
    # With half of the draws from the prior no weight exceeds twice the likelihood, so that errors are normal: beyond 6
    # standard errors once in 10^9, where k-hat does not say that there were too few samples.
    result = evidence.importance(vae.model, vae.guide, x, num_samples=2000, proposal=evidence.defensive(0.5))
    believable = ~result.doubtful
    assert believable.any()
    assert ((result.log_prob - exact).abs() <= 6 * result.std_error + 3e-3)[believable].all()


def _grid(on_sphere):
    """Latents, and the log of the area that each stands for."""
    if on_sphere:
        angle = torch.linspace(0, 2 * torch.pi, 721, dtype=torch.float64)[:-1]
        return torch.stack([angle.cos(), angle.sin()], -1), (angle[1] - angle[0]).log()
    line = torch.linspace(-10, 10, 200, dtype=torch.float64)
    return torch.cartesian_prod(line, line), 2 * (line[1] - line[0]).log()


@pytest.mark.parametrize(("prior", "posterior"), OTHERS)
def test_latents_of_different_kinds_are_refused(prior, posterior):
    with pytest.raises(ValueError, match="lie outside of the support of"):
        VAE(*make(prior, "Bernoulli", posterior))


@pytest.mark.parametrize("names", ONCE, ids=identify)
def test_svi_trains_it(names):
    vae = VAE(*make(*names))
    x = vae.sample(30)

    def elbo():
        torch.manual_seed(3)
        return weights.log_weights(vae.model, vae.guide, x, 200).mean().item()

    before = elbo()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    for _ in range(30):
        svi.step(x)
    assert elbo() > before


@pytest.mark.parametrize("names", ONCE, ids=identify)
def test_sampling_and_density_agree(names):
    """E[d log p / d theta] = 0 where x is drawn from p: the score of every part vanishes on average."""
    vae = VAE(*make(*names)).double()
    n = 4000
    example = vae.sample(1)[0]
    for part, inputs in (
        (vae.prior, ()),
        (vae.likelihood, (torch.ones(LATENT, dtype=torch.float64),)),
        (vae.posterior, (example,)),
    ):
        parameters = list(part.parameters())
        if not parameters:
            continue
        draws = part(*inputs).sample((n,)).detach()
        # The error by the central limit theorem, from the scores of blocks of draws.
        blocks = [
            torch.autograd.grad(part(*inputs).log_prob(block).mean(), parameters, allow_unused=True)
            for block in draws.split(n // 40)
        ]
        for scores in zip(*blocks, strict=True):
            if scores[0] is not None:
                score = torch.stack(scores)
                error = score.std(0) / 40**0.5
                assert (score.mean(0).abs() <= 7 * error + 1e-5).all()


@pytest.mark.parametrize("names", ONCE, ids=identify)
def test_both_of_pyros_elbos_and_ours_agree(names):
    vae = VAE(*make(*names))
    check = evidence.check_elbo(vae.model, vae.guide, vae.sample(50), num_particles=40)
    assert check.passed, check.summary()


def test_they_can_be_compiled(by_inductor):
    """Inductor makes machine code of them that gives the same numbers: of several together, since it takes seconds."""
    vaes = [VAE(*make(*names)) for names in FEW[COMPILED]]
    data, others = ([vae.sample(4) for vae in vaes] for _ in range(2))
    layouts = [weights.find_layout(vae.model, vae.guide, x) for vae, x in zip(vaes, data, strict=True)]

    def log_weights(*data):
        every = zip(vaes, data, layouts, strict=True)
        return tuple(weights.terms(vae.model, vae.guide, x, 3, layout).log_weights for vae, x, layout in every)

    with warnings.catch_warnings(), pyro.validation_enabled(False):
        warnings.simplefilter("error", UserWarning)
        fast = compiled(log_weights, tuple(data), tuple(others))
        assert by_inductor == [fast]
        torch.manual_seed(0)
        expected = log_weights(*data)
        torch.manual_seed(0)
        with torch.no_grad():
            for found, wanted in zip(fast(*data), expected, strict=True):
                assert_close(found, wanted.detach())


def test_an_analytic_divergence_is_found_in_torchs_own_distributions():
    """Wrapped for Pyro, Independent(Normal) still has a KL divergence: no noise, and what check_elbo computes."""
    vae = VAE(TorchPrior(), LIKELIHOODS["Bernoulli"](), POSTERIORS["Normal"]())
    check = evidence.check_elbo(vae.model, vae.guide, vae.sample(20))
    assert check.analytic is not None
    assert check.mean_field.value == pytest.approx(check.analytic.value, rel=1e-6)
    assert check.mean_field.value != pytest.approx(check.trace.value, rel=1e-5)
    assert TraceMeanField_ELBO().loss(vae.model, vae.guide, vae.sample(3)) > 0

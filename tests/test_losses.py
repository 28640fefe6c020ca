"""Losses on the log-weights, against integrals over the noise of their particles, and against each other."""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path

import pyro
import pytest
import torch
from linear_gaussian import exact_log_evidence, exact_posterior, random_instance
from pyro import distributions as dist
from pyro.infer import ReweightedWakeSleep, Trace_ELBO
from scalar_model import GUIDE, MODEL, ScalarModel

from pyro_vae import (
    SVI,
    VAE,
    BottomUp,
    HierarchicalVAE,
    TopDown,
    fit,
    likelihoods,
    nn,
    posteriors,
    priors,
)
from pyro_vae.infer import losses
from pyro_vae.infer.kl_weight import WeightedLatents
from pyro_vae.infer.losses import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    BetaELBO,
    BetaTC,
    Capacity,
    DReG,
    FreeBits,
    InfoVAE,
    Renyi,
    ScoreFunction,
    StickingTheLanding,
    WakeWake,
    leave_one_out,
)

X = 1.7  # the datapoint of the integrals


def mean_of(log_w):
    return log_w.mean(0)


def log_mean(log_w):
    return log_w.exp().mean(0).log()  # no logsumexp: these numbers are harmless, and this is another way


def power_mean(power):
    return lambda log_w: (power * log_w).exp().mean(0).log() / power


def mean_of_pairs(log_w):
    return (log_mean(log_w[:2]) + log_mean(log_w[2:])) / 2


# A loss; the number of particles; what the model maximizes as a function of their log-weights; what the guide does.
INTEGRALS = {
    "ELBO": (ELBO(), 1, mean_of, mean_of),
    "ELBO of two": (ELBO(2), 2, mean_of, mean_of),
    "sticking the landing": (StickingTheLanding(2), 2, mean_of, mean_of),
    "score function": (ScoreFunction(), 1, mean_of, mean_of),
    "score function, baseline": (ScoreFunction(3, leave_one_out), 3, mean_of, mean_of),
    "IWAE of one": (IWAE(1), 1, mean_of, mean_of),
    "IWAE": (IWAE(3), 3, log_mean, log_mean),
    "DReG of one": (DReG(1), 1, mean_of, mean_of),
    "DReG": (DReG(3), 3, log_mean, log_mean),
    "Renyi 1/2": (Renyi(0.5, 2), 2, power_mean(0.5), power_mean(0.5)),
    "Renyi 1": (Renyi(1, 2), 2, mean_of, mean_of),
    "Renyi 0": (Renyi(0, 2), 2, log_mean, log_mean),
    "Renyi -1": (Renyi(-1, 2), 2, power_mean(2.0), power_mean(2.0)),
    "Renyi 2": (Renyi(2, 2), 2, power_mean(-1.0), power_mean(-1.0)),
    "MIWAE": (MIWAE(2, 2), 4, mean_of_pairs, mean_of_pairs),
    "CIWAE": (CIWAE(0.3, 2), 2, *[lambda w: 0.3 * mean_of(w) + 0.7 * log_mean(w)] * 2),
    "PIWAE": (PIWAE(2, 2), 4, log_mean, mean_of_pairs),
    "CUBO": (CUBO(3), 3, None, lambda log_w: -power_mean(2.0)(log_w)),
}
NODES = {1: 60, 2: 60, 3: 40, 4: 20}
Z = 5.5  # standard errors; with 99 degrees of freedom 3e-7, and 5e-5 for the 150 comparisons of all cases


def integral(scalar, num_particles, objective, nodes):
    def at(noise):
        z = scalar.draw(X, noise)
        return objective(scalar.log_joint(X, z) - scalar.log_posterior(X, z))

    return scalar.expectation(at, num_particles, nodes)


def gradient(value, leaves):
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    return torch.stack([torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True)])


def in_blocks(loss, scalar, blocks=100, rows=1000):
    """Values and gradients of the mean loss of many draws for the same datapoint, ``[blocks, 1 + parameters]``."""
    leaves, x = scalar.parameters_of(MODEL + GUIDE), torch.full((rows,), X, dtype=torch.float64)
    values = []
    for _ in range(blocks):
        value = loss(scalar.model, scalar.guide, x) / rows
        values.append(torch.cat([value.detach()[None], gradient(value, leaves)]))
    return torch.stack(values)


def assert_means(samples, exact):
    """Means of blocks ``[blocks, ...]`` equal exact values, within Z standard errors where there is any noise."""
    difference = samples.mean(0) - exact
    error = samples.std(0) / math.sqrt(len(samples))
    assert (difference.abs() <= Z * error + 1e-6 * (1 + exact.abs())).all(), (difference / error, exact)


@pytest.mark.parametrize("name", INTEGRALS)
def test_value_and_gradient_are_integrals(name):
    loss, num_particles, of_model, of_guide = INTEGRALS[name]
    scalar, nodes = ScalarModel(), NODES[num_particles]
    value = integral(scalar, num_particles, of_model or of_guide, nodes)
    assert abs(value - integral(scalar, num_particles, of_model or of_guide, nodes - 4)) < 1e-4  # which has converged
    exact = torch.cat([
        -value.detach()[None],
        -gradient(value, scalar.parameters_of(MODEL)) * (of_model is not None),
        -gradient(integral(scalar, num_particles, of_guide, nodes), scalar.parameters_of(GUIDE)),
    ])  # fmt: skip
    assert_means(in_blocks(loss, scalar), exact)


def test_wake_wake_gradient_of_the_guide_is_an_integral():
    scalar = ScalarModel()

    def weighted_log_posterior(noise):
        z = scalar.draw(X, noise).detach()
        log_q = scalar.log_posterior(X, z)
        weights = (scalar.log_joint(X, z) - log_q).exp().detach()
        return (weights / weights.sum(0) * log_q).sum(0)

    bound = integral(scalar, 3, log_mean, 40)
    exact = torch.cat([
        -bound.detach()[None],
        -gradient(bound, scalar.parameters_of(MODEL)),
        -gradient(scalar.expectation(weighted_log_posterior, 3, 40), scalar.parameters_of(GUIDE)),
    ])  # fmt: skip
    assert_means(in_blocks(WakeWake(3), scalar), exact)


def test_wake_wake_is_pyros_for_one_datapoint_but_not_for_several():
    scalar = ScalarModel()
    leaves = scalar.parameters_of(MODEL + GUIDE)
    for rows in (1, 2):
        x = torch.full((rows,), X, dtype=torch.float64)
        torch.manual_seed(3)
        model_loss, guide_loss = ReweightedWakeSleep(4, max_plate_nesting=1)._loss(scalar.model, scalar.guide, (x,), {})
        theirs = gradient(model_loss + guide_loss, leaves)
        torch.manual_seed(3)
        ours = WakeWake(4)(scalar.model, scalar.guide, x)
        same = torch.allclose(gradient(ours, leaves), theirs) and torch.allclose(ours, model_loss)
        assert same == (rows == 1)


@pytest.mark.parametrize("loss", [StickingTheLanding(3), DReG(3)])
def test_path_derivatives_vanish_at_the_posterior(loss):
    """For every draw, as Roeder et al. 2017 say; those of the ELBO do not."""
    vae, x = random_instance(0, 2, 3, 5)
    exact = exact_posterior(vae.likelihood, x)
    loc, scale_tril = (tensor.detach().requires_grad_() for tensor in (exact.loc, exact.scale_tril))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=scale_tril))

    def largest(loss):
        gradients = torch.autograd.grad(loss(vae.model, guide, x), [loc, scale_tril])
        return max(each.abs().max().item() for each in gradients)

    assert largest(loss) < 1e-10
    assert largest(ELBO(3)) > 0.1
    assert largest(IWAE(3)) > 0.1 or isinstance(loss, DReG)  # which has none either: all weights are equal


def test_bounds_are_in_order():
    """ELBO <= IWAE-5 <= IWAE-50 <= log p(x) <= CUBO, each by more than 5 standard errors of the difference."""
    vae, x = random_instance(1, 2, 3, 20, shift=1.0, widen=1.5)
    log_px = exact_log_evidence(vae.likelihood, x).sum()
    twice = torch.cat([x, x])  # two draws at once, of which the mean is taken
    with torch.no_grad():
        *draws, upper = [
            sign / 2 * torch.stack([loss(vae.model, vae.guide, twice) for _ in range(100)])
            for sign, loss in ((-1, ELBO()), (-1, IWAE(5)), (-1, IWAE(50)), (1, CUBO(1000)))
        ]
    for lower, higher in zip([*draws, log_px.expand(100)], [*draws[1:], log_px.expand(100), upper], strict=True):
        difference = higher - lower
        assert difference.mean() > 5 * difference.std() / math.sqrt(len(difference))
    # A bound of many particles is what its definition says: log E w^2, for normals in closed form.
    assert (upper.mean() - exact_cubo(vae, x)).abs() < 5 * upper.std() / math.sqrt(100) + 1e-3 * abs(log_px)


def exact_cubo(vae, x):
    """The sum of log p(x) + 0.5 log E_q[(p(z | x) / q)^2]."""
    posterior, q = exact_posterior(vae.likelihood, x), vae.posterior(x)
    # p^2 / q of normals with means m, l and precisions P, Q is a normal's shape of precision 2 P - Q.
    p_precision, q_precision = posterior.precision_matrix, q.precision_matrix
    precision = 2 * p_precision - q_precision
    shift = (posterior.loc - q.loc)[..., None]
    middle = p_precision @ torch.linalg.inv(precision) @ q_precision
    quadratic = (shift.mT @ middle @ shift)[..., 0, 0]
    log_chi = torch.logdet(p_precision) - 0.5 * torch.logdet(q_precision) - 0.5 * torch.logdet(precision) + quadratic
    return (exact_log_evidence(vae.likelihood, x) + 0.5 * log_chi).sum().detach()


def small(posterior, latent=2):
    return VAE(priors.StandardNormal(latent), likelihoods.Normal(nn.mlp(latent, [6], 3), 0.7), posterior)


def hierarchy(posterior):
    return HierarchicalVAE(
        prior=priors.StandardNormal(1),
        layers=[posteriors.Normal(nn.mlp(1, [5], 2 * 2))],
        likelihood=likelihoods.Normal(nn.mlp(2, [6], 3), 0.7),
        posterior=posterior,
    )


BUILD = {
    "inverse autoregressive": lambda: small(posteriors.InverseAutoregressive(nn.mlp(3, [6], 4 + 2), 2, 2)),
    "full normal": lambda: small(posteriors.FullNormal(nn.mlp(3, [6], 2 + 3))),
    "bottom-up": lambda: hierarchy(
        BottomUp([posteriors.Normal(nn.mlp(3, [6], 4)), posteriors.Normal(nn.mlp(2, [6], 2))])
    ),
    "top-down": lambda: hierarchy(
        TopDown(
            features=[nn.mlp(3, [6], 4), nn.mlp(4, [6], 4)],
            layers=[posteriors.Normal(nn.mlp(4, [], 2 * size)) for size in (2, 1)],
        )
    ),
}


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize(("one", "other"), [(ELBO(2), StickingTheLanding(2)), (IWAE(2), DReG(2))])
def test_estimators_of_one_gradient_have_one_mean(name, one, other):
    """For guides of dependent latents, where what is left out of log q is easily too much."""
    vae = BUILD[name]().double()
    leaves = list(vae.parameters())
    x = torch.randn(3, dtype=torch.float64).expand(500, 3)

    def gradients(loss):
        blocks = (torch.autograd.grad(loss(vae.model, vae.guide, x), leaves) for _ in range(40))
        return torch.stack([torch.cat([each.flatten() for each in block]) / len(x) for block in blocks])

    a, b = gradients(one), gradients(other)
    assert_means(a - b, torch.zeros(a.shape[1], dtype=torch.float64))
    parameters = sum(leaf.numel() for leaf in vae.posterior.parameters())
    assert not torch.allclose(a[:, -parameters:], b[:, -parameters:])


# The contract: what goes for every loss.

LOSSES = {
    "ELBO": ELBO(2),
    "IWAE": IWAE(3),
    "DReG": DReG(3),
    "StickingTheLanding": StickingTheLanding(2),
    "ScoreFunction": ScoreFunction(2, leave_one_out),
    "WakeWake": WakeWake(3),
    "Renyi": Renyi(0.5, 3),
    "CUBO": CUBO(3),
    "MIWAE": MIWAE(2, 2),
    "PIWAE": PIWAE(2, 2),
    "CIWAE": CIWAE(0.5, 2),
    "BetaELBO": BetaELBO(4.0),
    "BetaELBO of IWAE": BetaELBO(4.0, IWAE(3)),
    "BetaTC": BetaTC(4.0, 100),
    "Capacity": Capacity(10.0, 0.5),
    "FreeBits": FreeBits(0.1),
    "InfoVAE": InfoVAE(10.0, 0.5),
}


def new_vae():
    torch.manual_seed(1)
    return small(posteriors.Normal(nn.mlp(3, [6], 4)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("error")
def test_steps_are_those_of_pyro(name):
    """The same losses and parameters as in Pyro's own SVI on the same seed, with steps that are recorded."""
    x = torch.randn(12, 3)
    runs = []
    for kind, options in ((pyro.infer.SVI, {}), (SVI, {"compile": "graph"})):
        vae = new_vae()
        svi = kind(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), LOSSES[name], **options)
        torch.manual_seed(2)
        losses = [svi.step(x) for _ in range(6)]
        runs.append((losses, svi.evaluate_loss(x), torch.cat([p.detach().flatten() for p in vae.parameters()])))
        pyro.clear_param_store()
    (theirs, value, parameters), (ours, our_value, our_parameters) = runs
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert our_value == pytest.approx(value, rel=1e-4)
    assert torch.allclose(our_parameters, parameters, atol=1e-4)
    assert not torch.equal(our_parameters, torch.cat([p.detach().flatten() for p in new_vae().parameters()]))


@pytest.mark.parametrize("name", LOSSES)
def test_fit_takes_it_with_a_weight_of_the_kl_and_in_parts(name):
    loss = pickle.loads(pickle.dumps(LOSSES[name]))  # as for processes
    run = fit(
        new_vae(), torch.randn(19, 3), epochs=2, batch_size=8, loss=loss, kl_weight=lambda _: 0.5, accumulate=2,
        compile=False, seed=0, progress=False,
    )  # fmt: skip
    assert math.isfinite(run.history[-1]["train_loss"])


@pytest.mark.parametrize("name", LOSSES)
def test_it_weighs_a_subsampled_plate_and_takes_further_arguments(name):
    scalar, x = ScalarModel(), torch.randn(6, dtype=torch.float64)

    class Shifted:  # by another argument
        def __init__(self, num_data):
            self.num_data = num_data

        def model(self, x, shift):
            with pyro.plate("data", self.num_data, subsample=x):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1).double(), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z[..., 0] + shift, 1.0), obs=x)

        def guide(self, x, shift):
            with pyro.plate("data", self.num_data, subsample=x):
                pyro.sample("z", dist.Normal(scalar.c * x[..., None] + shift, 1.0).to_event(1))

    values = []
    for num_data in (6, 60):
        programs = Shifted(num_data)
        torch.manual_seed(0)
        values.append(LOSSES[name](programs.model, programs.guide, x, torch.tensor(0.5).double()))
    assert torch.allclose(values[1], 10 * values[0], rtol=1e-6)


def test_a_weight_of_the_kl_is_inside_of_the_log_weights():
    scalar, x = ScalarModel(), torch.full((5,), X, dtype=torch.float64)
    torch.manual_seed(0)
    loss = IWAE(4)(WeightedLatents(scalar.model, 0.3), WeightedLatents(scalar.guide, 0.3), x)
    torch.manual_seed(0)
    z = scalar.draw(X, torch.randn(4, 5, dtype=torch.float64))
    kl = scalar.log_posterior(X, z) - dist.Normal(0.0, 1.0).log_prob(z)
    log_likelihood = scalar.log_joint(X, z) - dist.Normal(0.0, 1.0).log_prob(z)
    assert torch.allclose(loss, -log_mean(log_likelihood - 0.3 * kl).sum())


def test_elbo_is_pyros():
    vae, x = new_vae(), torch.randn(7, 3)
    values = []
    for loss in (ELBO(3), Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=1).differentiable_loss):
        torch.manual_seed(0)
        value = loss(vae.model, vae.guide, x)
        values.append([value, *torch.autograd.grad(value, list(vae.parameters()))])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*values, strict=True))


@pytest.mark.parametrize("loss", [IWAE(3), DReG(3), StickingTheLanding(), ELBO()])
def test_discrete_latents_are_refused_where_gradients_go_through_draws(loss):
    logit = torch.zeros((), requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logit + x))

    x = torch.randn(4)
    with pytest.raises(ValueError, match=r"site 'z' of the guide is not reparameterized.*ScoreFunction and WakeWake"):
        loss(model, guide, x)
    for other in (ScoreFunction(2, leave_one_out), WakeWake(2)):
        (at_logit,) = torch.autograd.grad(other(model, guide, x), [logit])
        assert at_logit != 0


def test_leave_one_out_is_the_mean_of_the_others():
    log_weights = torch.tensor([[1.0, -2.0], [3.0, 0.0], [8.0, 4.0]])
    assert torch.equal(leave_one_out(log_weights), torch.tensor([[5.5, 2.0], [4.5, 1.0], [2.0, -1.0]]))


def test_score_function_of_a_discrete_latent_has_the_gradient_of_the_sum_over_its_values():
    logit = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    log_p = torch.tensor([-1.0, 0.5], dtype=torch.float64)  # log p(x, z) for z = 0, 1

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5).double()))
            pyro.sample("x", dist.Delta(x.expand(z.shape), log_density=log_p[z.long()] - math.log(0.5)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logit.expand(len(x))))

    q = torch.stack([1 - torch.sigmoid(logit), torch.sigmoid(logit)])
    (exact,) = torch.autograd.grad(-(q * (log_p - q.log())).sum(), [logit])
    x = torch.zeros(1000, dtype=torch.float64)
    for loss in (ScoreFunction(), ScoreFunction(2, leave_one_out)):
        blocks = [torch.autograd.grad(loss(model, guide, x) / 1000, [logit])[0] for _ in range(100)]
        assert_means(torch.stack(blocks), exact)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IWAE(0), "num_particles is 0"),
        (lambda: IWAE(2.5), "num_particles is 2.5"),
        (lambda: MIWAE(0, 2), "num_bounds is 0"),
        (lambda: CIWAE(1.5, 2), "elbo_share is 1.5; expected a number from 0 to 1"),
        (lambda: CUBO(2, order=0), "order is 0"),
        (lambda: WakeWake(1), "num_particles is 1; expected an integer of at least 2"),
        (lambda: ScoreFunction(1, leave_one_out), "num_particles is 1; expected at least 2"),
        (lambda: Renyi(math.nan, 2), "alpha is nan"),
        (lambda: BetaELBO(0), "beta is 0"),
        (lambda: BetaTC(1.0, 0), "num_data is 0"),
        (lambda: Capacity(-1.0, 1.0), "weight is -1.0"),
        (lambda: InfoVAE(0.0), "mmd_weight is 0.0"),
        (lambda: InfoVAE(1.0, -1.0), "kl_weight is -1.0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [IWAE, DReG, CUBO, WakeWake])
def test_bounds_of_several_particles_need_their_number(kind):
    """With a default of one particle they would be the ELBO, without a word."""
    with pytest.raises(TypeError, match="num_particles"):
        kind()


def test_fit_takes_pyros_reweighted_wake_sleep():
    """Whose loss is a tuple, one for the model and one for the guide."""
    vae = new_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    run = fit(vae, torch.randn(20, 3), epochs=2, batch_size=5, loss=ReweightedWakeSleep(4), seed=0, progress=False)
    assert math.isfinite(run.history[-1]["train_loss"])
    assert all(not torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_the_list_of_objectives_is_complete(capsys):
    """Every public loss has a row, and the example runs."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "objectives.md").read_text()
    for name in set(losses.__all__) - {"LogWeightLoss", "leave_one_out"}:
        assert f"| `{name}(" in text, name
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "objectives.md", "exec"), {})
    assert "score function: total variance" in capsys.readouterr().out


def test_one_loss_takes_programs_of_different_plates_in_turn():
    scalar, x = ScalarModel(), torch.randn(4, dtype=torch.float64)

    def model(x):  # a second plate to the right of that of the data, and one value in it
        with pyro.plate("data", len(x), dim=-2), pyro.plate("copies", 1, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x)[:, None], 1.0))
            pyro.sample("x", dist.Normal(scalar.a * z + scalar.b, scalar.log_s.exp()), obs=x[:, None])

    def guide(x):
        with pyro.plate("data", len(x), dim=-2), pyro.plate("copies", 1, dim=-1):
            pyro.sample("z", dist.Normal(scalar.c * x[:, None] + scalar.d, scalar.log_r.exp()))

    loss, values = IWAE(3), []
    for programs in ((model, guide), (scalar.model, scalar.guide), (model, guide)):
        torch.manual_seed(0)
        values.append(loss(*programs, x))
    assert torch.allclose(torch.stack(values), values[0])
    torch.manual_seed(0)
    assert torch.allclose(pickle.loads(pickle.dumps(loss))(model, guide, x), values[0])  # these are local functions


def test_programs_without_a_data_plate_are_refused():
    def program(_):
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="there is no data plate"):
        IWAE(2)(program, program, torch.zeros(3))

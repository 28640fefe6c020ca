"""``ReweightedWakeSleep`` of Pyro with a sleep phase, in which the guide looks at what the model dreams."""

from __future__ import annotations

import pyro
import pytest
import torch
from conftest import small_vae
from pyro.infer import ReweightedWakeSleep
from torch.nn.functional import one_hot
from torch.testing import assert_close

from pyro_vae import (
    SVI,
    BottomUp,
    ConditionalVAE,
    HierarchicalVAE,
    SemiSupervisedVAE,
    fit,
    likelihoods,
    nn,
    posteriors,
    priors,
)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("particles", [1, 3])
def test_the_loss_of_sleep_is_minus_log_q_at_draws_from_the_model(particles, at_once):
    vae, x = small_vae(), torch.rand(7, 1, 4, 4).bernoulli()
    sleep = ReweightedWakeSleep(
        num_sleep_particles=particles,
        insomnia=0.0,
        vectorize_particles=at_once,
        model_has_params=False,
        max_plate_nesting=2,
    )
    torch.manual_seed(1)
    _, loss = sleep.loss(vae.model, vae.guide, x)
    torch.manual_seed(1)
    expected = 0.0
    for shape in [(particles, 7)] if at_once else [(7,)] * particles:
        z = vae.prior().sample(shape)
        expected -= vae.posterior(vae.likelihood(z).sample()).log_prob(z).sum() / particles
    assert_close(loss, expected.detach())


def parts():
    return priors.StandardNormal(2), likelihoods.Bernoulli(nn.mlp(5, [8], 6)), posteriors.Normal(nn.mlp(9, [8], 4))


def hierarchical():
    posterior = BottomUp([posteriors.Normal(nn.mlp(6, [8], 6)), posteriors.Normal(nn.mlp(3, [8], 4))])
    likelihood = likelihoods.Bernoulli(nn.mlp(3, [8], 6))
    return HierarchicalVAE(priors.StandardNormal(2), [posteriors.Normal(nn.mlp(2, [], 6))], likelihood, posterior)


LABELS = torch.arange(10) % 3
PROGRAMS = {
    "HierarchicalVAE": lambda: (hierarchical(), ()),
    "ConditionalVAE": lambda: (ConditionalVAE(*parts(), conditions=3), (one_hot(LABELS, 3).float(),)),
    "SemiSupervisedVAE": lambda: (SemiSupervisedVAE(*parts(), classifier=nn.mlp(6, [8], 3), classes=3), (LABELS,)),
}


@pytest.mark.parametrize("insomnia", [0.0, 0.5])
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_pair_of_programs_sleeps(program, insomnia):
    """In sleep the guide learns and the model does not; the gradient does not depend on the data."""
    vae, others = PROGRAMS[program]()
    loss = ReweightedWakeSleep(num_particles=2, insomnia=insomnia, model_has_params=insomnia > 0, max_plate_nesting=2)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), loss)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    for _ in range(4):
        svi.step(torch.rand(10, 6).bernoulli(), *others)
    moved = {name for name, value in vae.state_dict().items() if not torch.equal(before[name], value)}
    assert any("posterior" in name for name in moved)
    assert any("likelihood" in name for name in moved) == (insomnia > 0)


def test_fit_takes_it():
    vae = small_vae()
    before = vae.posterior.network[1].weight.detach().clone()
    loss = ReweightedWakeSleep(num_particles=2, insomnia=0.5, max_plate_nesting=2)
    fit(vae, torch.rand(20, 1, 4, 4).bernoulli(), epochs=1, batch_size=10, loss=loss, progress=False)
    assert not torch.equal(before, vae.posterior.network[1].weight)

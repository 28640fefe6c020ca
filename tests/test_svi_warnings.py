"""What trains nothing, or something else, or slowly: SVI says so, once, at the line that called it."""

from __future__ import annotations

import warnings

import pyro
import pytest
import torch
from conftest import small_vae
from programs_for_svi import Direct, Tutorial
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO, TraceTailAdaptive_ELBO
from torch import nn as torch_nn
from torch.testing import assert_close

from pyro_vae import SVI, VAE, fit, likelihoods, nn, priors
from pyro_vae.infer import gradient_variance, losses

STEPS = 40


def svi_of(vae, loss=None):
    return SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), loss or Trace_ELBO())


def warned(steps):
    """The warnings of what is done, which are all at a line of this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        steps()
    assert {warning.filename for warning in caught} <= {__file__}
    return [str(warning.message) for warning in caught]


# --- Modules of one name ------------------------------------------------------------------------------------------------


def test_a_second_model_of_the_same_names_is_not_trained_and_warns():
    x = torch.randn(6, 3)

    def train(vae):
        svi = svi_of(vae)
        for _ in range(6):
            svi.step(x)

    first, second = Tutorial(), Tutorial()
    before = [parameter.clone() for parameter in second.parameters()]
    assert warned(lambda: train(first)) == []
    (message,) = warned(lambda: train(second))
    assert "is not trained" in message
    assert "clear_param_store" in message
    assert all(torch.equal(a, b) for a, b in zip(before, second.parameters(), strict=True))
    pyro.clear_param_store()
    assert warned(lambda: train(second)) == []
    assert not any(torch.equal(a, b) for a, b in zip(before, second.parameters(), strict=True))


def test_modules_that_an_optimizer_of_torch_steps_do_not_warn():
    for _ in range(2):
        vae = Tutorial()
        svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO())
        assert warned(lambda svi=svi: [svi.step(torch.randn(6, 3)) for _ in range(4)]) == []


# --- Numbers that change ------------------------------------------------------------------------------------------------


def test_a_number_that_is_another_at_every_step_warns_once():
    svi, x = svi_of(Tutorial()), torch.randn(6, 3)
    (message,) = warned(lambda: [svi.step(x, 0.1 + 0.01 * i) for i in range(STEPS)])
    assert "torch.tensor" in message


def test_an_attribute_that_is_another_number_at_every_step_warns_once():
    vae, x = Direct(0.1), torch.randn(6, 3)
    svi = svi_of(vae)

    def steps():
        for i in range(STEPS):
            vae.beta = 0.1 + 0.01 * i
            svi.step(x)

    (message,) = warned(steps)
    assert "attribute" in message


def test_numbers_that_stay_for_a_while_and_tensors_do_not_warn():
    svi, x = svi_of(Tutorial()), torch.randn(6, 3)
    assert warned(lambda: [svi.step(x, 0.1 + 0.1 * (i // 10)) for i in range(STEPS)]) == []
    assert warned(lambda: [svi.step(x, torch.tensor(0.1 + 0.01 * i)) for i in range(STEPS)]) == []
    assert warned(lambda: [svi.step(torch.randn(1 + i, 3)) for i in range(30)]) == []


# --- Draws without gradients --------------------------------------------------------------------------------------------


class MixturePosterior(torch_nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.mlp(6, [8], (3, 5))

    def forward(self, x):
        a = self.network(x)
        components = dist.Normal(a[..., :2], a[..., 2:4].exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=a[..., 4]), components)


class Bits(torch_nn.Module):
    """Discrete latents: their divergence has a closed form, their draws have no gradient."""

    def __init__(self, network=None):
        super().__init__()
        self.network = network

    def forward(self, *x):
        logits = self.network(*x) if x else torch.zeros(2)
        return dist.Bernoulli(logits=logits).to_event(1)


def with_mixture():
    return VAE(priors.StandardNormal(2), likelihoods.Bernoulli(nn.mlp(2, [8], 6)), MixturePosterior())


def with_bits():
    return VAE(Bits(), likelihoods.Bernoulli(nn.mlp(2, [8], 6)), Bits(nn.mlp(6, [8], 2)))


THROUGH_DRAWS = {
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "TraceTailAdaptive_ELBO": lambda: TraceTailAdaptive_ELBO(
        num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
    "BetaELBO": lambda: losses.BetaELBO(2.0),
    "FreeBits": lambda: losses.FreeBits(0.1),
    "Capacity": lambda: losses.Capacity(10.0, 1.0),
    "InfoVAE": lambda: losses.InfoVAE(0.5, 2.0),
    "ELBO": lambda: losses.ELBO(2),
}


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("loss", THROUGH_DRAWS)
@pytest.mark.parametrize("build", [with_mixture, with_bits])
def test_a_guide_without_reparameterization_is_refused_by_name(build, loss, validation):
    vae = build()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with (
        pyro.validation_enabled(validation),
        pytest.raises(ValueError, match=r"site 'z' of the guide is not reparameterized.*ScoreFunction and WakeWake"),
    ):
        svi_of(vae, THROUGH_DRAWS[loss]()).step(torch.rand(5, 6).bernoulli())
    assert_close(vae.state_dict(), before)


@pytest.mark.parametrize("build", [with_mixture, with_bits])
def test_fit_refuses_it_by_name_and_takes_the_losses_it_names(build):
    x = torch.rand(20, 6).bernoulli()
    with pytest.raises(ValueError, match=r"site 'z' of the guide is not reparameterized.*Trace_ELBO"):
        fit(build(), x, epochs=1, progress=False)
    for loss in (Trace_ELBO(), losses.ScoreFunction(2), losses.WakeWake(2)):
        run = fit(build(), x, epochs=1, loss=loss, progress=False)
        assert run.history[-1]["train_loss"] > 0


# --- Without gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_steps_are_the_same_where_gradients_are_switched_off(mode):
    def train(mode):
        torch.manual_seed(0)
        vae, data = small_vae(), torch.rand(9, 1, 4, 4).bernoulli()
        svi = svi_of(vae, TraceMeanField_ELBO())
        with mode():
            x = data.clone()  # in inference mode, a tensor that gradients cannot be taken with
            steps = [svi.step(x) for _ in range(6)]
        return steps, vae.state_dict()

    assert_close(train(mode), train(torch.enable_grad))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_variance_of_gradients_is_the_same_there(mode):
    vae, data = small_vae(), torch.rand(9, 1, 4, 4).bernoulli()

    def variances(mode):
        with mode():
            torch.manual_seed(1)
            both = {"Pyro's": Trace_ELBO(), "ours": losses.ELBO(2)}
            return [
                each.mean for each in gradient_variance(vae.model, vae.guide, data.clone(), both, num_draws=3).values()
            ]

    assert_close(variances(mode), variances(torch.enable_grad))

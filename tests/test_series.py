"""Networks for series: shapes, gaps and ends that must not matter, and a series model from end to end."""

import pytest
import torch

from pyro_vae import VAE, evidence, fit, likelihoods, nn, posteriors, priors, weights

ENCODERS = {"convolutional": nn.series_encoder, "recurrent": nn.recurrent_encoder}
DECODERS = {"convolutional": nn.series_decoder, "recurrent": nn.recurrent_decoder}


@pytest.mark.parametrize("steps", [5, 8, 21])
@pytest.mark.parametrize("name", ENCODERS)
def test_shapes_under_any_leading_dimensions(name, steps):
    encoder, decoder = ENCODERS[name]((steps, 2), (3, 2)), DECODERS[name](4, (steps, 2, 3))
    for batch in ((), (5,), (2, 1, 3)):
        assert encoder(torch.randn(*batch, steps, 2)).shape == (*batch, 3, 2)
        assert decoder(torch.randn(*batch, 4)).shape == (*batch, steps, 2, 3)


@pytest.mark.parametrize("name", ENCODERS)
def test_rows_do_not_depend_on_each_other_and_every_step_matters(name):
    torch.manual_seed(0)
    encoder, decoder = ENCODERS[name]((13, 2), 4).double(), DECODERS[name](3, (13, 2)).double()
    x, z = torch.randn(6, 13, 2, dtype=torch.float64, requires_grad=True), torch.randn(6, 3, dtype=torch.float64)
    assert torch.allclose(encoder(x)[2], encoder(x[2:3])[0])
    assert torch.allclose(decoder(z)[2], decoder(z[2:3])[0])
    (slope,) = torch.autograd.grad(encoder(x).square().sum(), x)
    assert (slope != 0).any(-1).all()
    assert (decoder(z)[:, :, :].std(0) > 0).all()  # every step of a series depends on z


def test_marks_tell_a_gap_from_a_zero():
    network = nn.MarkMissing(torch.nn.Identity())
    zero, gap = network(torch.zeros(1, 2)), network(torch.tensor([[0.0, torch.nan]]))
    assert zero.tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert gap.tolist() == [[0.0, 0.0, 1.0, 0.0]]


def model(name, steps=9):
    return VAE(
        priors.StandardNormal(2),
        likelihoods.Incomplete(likelihoods.HeteroscedasticNormal(DECODERS[name](2, (steps, 1, 2)))),
        posteriors.Normal(nn.MarkMissing(ENCODERS[name]((steps, 2), 4))),
    )


@pytest.mark.parametrize("name", ENCODERS)
def test_the_end_of_a_short_series_is_no_data(name):
    """log p(x) of a short series is that of its own steps: what a longer series has after them adds nothing."""
    torch.manual_seed(0)
    vae = model(name)
    x = vae.sample(4)
    x[:, 5:] = torch.nan
    z = torch.randn(4, 2)
    complete = vae.likelihood.likelihood(z).base_dist
    values = torch.where(x.isnan(), 0.0, x)
    assert torch.allclose(vae.likelihood(z).log_prob(x), complete.log_prob(values)[:, :5].sum((1, 2)), atol=1e-5)


def test_a_model_of_series_of_different_lengths_learns():
    torch.manual_seed(0)
    steps, n = 24, 300
    phase, amplitude = 6.28 * torch.rand(n, 1), 0.5 + torch.rand(n, 1)
    x = amplitude * torch.sin(phase + torch.arange(steps) * 0.5) + 0.1 * torch.randn(n, steps)
    x = x.masked_fill(torch.arange(steps) >= torch.randint(8, steps + 1, (n, 1)), torch.nan).unsqueeze(-1)
    vae = model("convolutional", steps)
    run = fit(vae, x, epochs=80, batch_size=50, lr=5e-3, seed=0, progress=False)
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"] / 2
    result = evidence.importance(vae.model, vae.guide, x[:50], num_samples=200, progress=False)
    assert result.log_prob.isfinite().all()
    observed = (~x[:50].isnan()).sum((1, 2))
    # Noise of 0.1 about a known curve has log p = 0.88 nats a value; a standard normal has -1.4.
    assert (result.log_prob / observed).mean() > 0


def test_recorded_steps_of_a_recurrent_model_are_pyros():
    torch.manual_seed(0)
    vae = model("recurrent", 4)
    x = vae.sample(8)
    log_w = weights.log_weights(vae.model, vae.guide, x, 3)
    assert log_w.shape == (3, 8)
    losses = []
    for mode in (False, "graph"):
        torch.manual_seed(1)
        again = model("recurrent", 4)
        losses.append(
            [
                row["train_loss"]
                for row in fit(again, x, epochs=3, batch_size=4, seed=2, compile=mode, progress=False).history
            ]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.series_encoder((9,), 4), r"inputs is \(9,\); expected the shape of a series, \(steps, features\)"),
        (lambda: nn.series_encoder((2, 3), 4), "inputs has 2 steps; expected more than 2 for 2 halvings"),
        (lambda: nn.series_decoder(4, (9, 2, 3, 1)), r"expected the shape of a series.* or \(steps, features, parameters\)"),
        (lambda: nn.recurrent_encoder((9,), 4), "expected the shape of a series"),
        (lambda: nn.recurrent_decoder(4, (9,)), "expected the shape of a series"),
        (lambda: nn.recurrent_decoder(4, (9, 2), hidden=0), "hidden is 0; expected an integer of at least 1"),
    ],
)  # fmt: skip
def test_shapes_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

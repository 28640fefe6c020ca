"""Counts: more zeros than a distribution has, totals that are known, and scVI with an independent log p(x)."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax, logsumexp

from pyro_vae import VAE, ConditionalVAE, evidence, likelihoods, nn, posteriors, priors


def test_additional_zeros_have_lamberts_density():
    torch.manual_seed(0)
    rates, gates = torch.nn.Linear(2, 5).double(), torch.nn.Linear(2, 5).double()
    z = torch.randn(7, 2, dtype=torch.float64)
    p = likelihoods.ZeroInflated(likelihoods.Poisson(rates), gates)(z)
    g, base = gates(z).sigmoid().detach().numpy(), stats.poisson(rates(z).exp().detach().numpy())
    for value in range(6):
        x = torch.full((7, 5), float(value), dtype=torch.float64)
        expected = np.log(g * (value == 0) + (1 - g) * base.pmf(value)).sum(1)
        assert p.log_prob(x).detach().numpy() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_gates_far_out_have_finite_gradients(logit):
    z = torch.zeros(1, 1)
    gate = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(gate.bias, logit)
    p = likelihoods.ZeroInflated(likelihoods.Poisson(torch.nn.Linear(1, 1)), gate)(z)
    for value in (0.0, 3.0):
        p.log_prob(torch.full((1, 1), value)).sum().backward(retain_graph=True)
        assert all(parameter.grad.isfinite().all() for parameter in gate.parameters())


def test_what_is_not_a_likelihood_of_independent_counts_is_refused():
    with pytest.raises(ValueError, match=r"logits of additional zeros have shape \[4, 2\]; expected \[4, 3\]"):
        likelihoods.ZeroInflated(likelihoods.Poisson(torch.nn.Linear(2, 3)), torch.nn.Linear(2, 2))(torch.zeros(4, 2))


def test_a_size_factor_scales_the_means_and_nothing_else():
    network = nn.SizeFactor(torch.nn.Linear(3, 4))
    inputs = torch.randn(5, 4)
    log_means = network(inputs)
    assert torch.allclose(log_means.logsumexp(-1), inputs[:, -1], atol=1e-5)
    larger = torch.cat([inputs[:, :-1], inputs[:, -1:] + 2], -1)
    assert torch.allclose(network(larger) - log_means, torch.full((5, 4), 2.0), atol=1e-5)


GENES, BATCHES, CELLS = 6, 2, 12


def scvi():
    """scVI (Lopez et al. 2018) with an observed size: counts of cells, given their batch and their total."""
    conditions = BATCHES + 1  # the batch, and the log of the total count
    return ConditionalVAE(
        priors.StandardNormal(1),
        likelihoods.ZeroInflated(
            likelihoods.NegativeBinomial(
                nn.SizeFactor(nn.mlp(1 + BATCHES, [8], GENES)), likelihoods.PositiveParameter(torch.ones(GENES))
            ),
            nn.mlp(1 + conditions, [8], GENES),
        ),
        posteriors.Normal(nn.mlp(GENES + conditions, [8], 2)),
        conditions,
    )


def independent_log_px(vae, x, y, steps=4001):
    """log p(x | y) with numpy and scipy alone: the trapezoidal rule over the one latent."""
    weights = {name: value.detach().double().numpy() for name, value in vae.likelihood.state_dict().items()}
    z = np.linspace(-9, 9, steps)

    def mlp(prefix, inputs):
        hidden = inputs @ weights[f"{prefix}.0.weight"].T + weights[f"{prefix}.0.bias"]
        hidden = hidden / (1 + np.exp(-hidden))
        return hidden @ weights[f"{prefix}.2.weight"].T + weights[f"{prefix}.2.bias"]

    r = 1e-3 + np.exp(weights["likelihood.inverse_dispersion.raw"])
    found = []
    for counts, condition in zip(x.double().numpy(), y.double().numpy(), strict=True):
        inputs = np.concatenate([z[:, None], np.broadcast_to(condition, (steps, len(condition)))], axis=1)
        mean = np.exp(log_softmax(mlp("likelihood.network.network", inputs[:, :-1]), axis=1) + condition[-1])
        gate = 1 / (1 + np.exp(-mlp("network", inputs)))
        density = (1 - gate) * stats.nbinom.pmf(counts, r, r / (r + mean)) + gate * (counts == 0)
        found.append(logsumexp(np.log(density).sum(1) + stats.norm.logpdf(z)) + math.log(18 / (steps - 1)))
    return torch.tensor(found)


def test_scvi_has_the_log_px_of_an_independent_computation():
    torch.manual_seed(0)
    vae = scvi().double()
    size = 20 + 200 * torch.rand(CELLS, dtype=torch.float64)
    batch = torch.eye(BATCHES, dtype=torch.float64)[torch.arange(CELLS) % BATCHES]
    y = torch.cat([batch, size.log().unsqueeze(-1)], dim=-1)
    x = vae.sample(y)
    result = evidence.estimate(vae.model, vae.guide, (x, y), progress=False)
    off = (result.log_prob - independent_log_px(vae, x, y)).abs()
    assert (off <= result.error + 1e-3).double().mean() >= 11 / 12
    assert off.max() < 0.3


LOG_SIZE, SPREAD = 5.0, 0.6  # of the log-normal prior of the sizes


def scvi_of_unknown_sizes():
    """scVI with latent sizes: the latents are z and the standardized log of the size."""
    return VAE(
        priors.StandardNormal(2),
        likelihoods.ZeroInflated(
            likelihoods.NegativeBinomial(
                nn.SizeFactor(nn.mlp(1, [8], GENES), LOG_SIZE, SPREAD),
                likelihoods.PositiveParameter(0.5 + torch.rand(GENES)),
            ),
            nn.mlp(2, [8], GENES),
        ),
        posteriors.Normal(nn.Log1p(nn.mlp(GENES, [8], 4))),
    )


def log_px_by_quadrature(vae, x, steps=801):
    """log p(x) in NumPy, by the trapezoidal rule over z and the log size, whose prior is that of scipy."""
    weights = {name: value.detach().double().numpy() for name, value in vae.likelihood.state_dict().items()}

    def mlp(prefix, inputs):
        hidden = inputs @ weights[f"{prefix}.0.weight"].T + weights[f"{prefix}.0.bias"]
        hidden = hidden / (1 + np.exp(-hidden))
        return hidden @ weights[f"{prefix}.2.weight"].T + weights[f"{prefix}.2.bias"]

    z = np.linspace(-7, 7, steps)
    size = np.exp(np.linspace(LOG_SIZE - 7 * SPREAD, LOG_SIZE + 7 * SPREAD, steps))
    prior = stats.norm.logpdf(z)[:, None] + stats.lognorm(SPREAD, scale=math.exp(LOG_SIZE)).logpdf(size)
    cell = np.gradient(z)[:, None] * np.gradient(size)
    share = np.exp(log_softmax(mlp("likelihood.network.network", z[:, None]), axis=1))
    mean = size[None, :, None] * share[:, None]
    code = np.broadcast_to((np.log(size) - LOG_SIZE) / SPREAD, (steps, steps))
    gate = 1 / (1 + np.exp(-mlp("network", np.stack([np.broadcast_to(z[:, None], (steps, steps)), code], axis=-1))))
    r = 1e-3 + np.exp(weights["likelihood.inverse_dispersion.raw"])
    found = []
    for counts in x.double().numpy():
        log_density = sum(
            np.log(
                (1 - gate[..., i]) * stats.nbinom.pmf(counts[i], r[i], r[i] / (r[i] + mean[..., i]))
                + gate[..., i] * (counts[i] == 0)
            )
            for i in range(GENES)
        )
        found.append(logsumexp(log_density + prior + np.log(cell)))
    return torch.tensor(found)


def test_scvi_with_latent_sizes_has_the_log_px_of_an_independent_computation():
    torch.manual_seed(0)
    vae = scvi_of_unknown_sizes().double()
    x = vae.sample(6)
    truth = log_px_by_quadrature(vae, x, 401)
    assert torch.allclose(truth, log_px_by_quadrature(vae, x, 301), atol=1e-4)  # the grid is fine enough
    result = evidence.estimate(vae.model, vae.guide, x, progress=False)
    off = (result.log_prob - truth).abs()
    assert result.settled.all()
    assert (off <= result.error + 1e-3).double().mean() >= 5 / 6
    assert off.max() < 0.3


def test_a_latent_size_has_a_log_normal_prior():
    torch.manual_seed(0)
    network = nn.SizeFactor(torch.nn.Linear(1, 4), LOG_SIZE, SPREAD)
    sizes = network(priors.StandardNormal(2)().sample((2000,))).exp().sum(-1).detach().double().numpy()
    prior = stats.lognorm(SPREAD, scale=math.exp(LOG_SIZE))
    assert stats.kstest(sizes, prior.cdf).pvalue > 1e-4  # a false alarm in 10,000 seeds
    with pytest.raises(ValueError, match=r"scale is 0.0; expected a positive number"):
        nn.SizeFactor(torch.nn.Identity(), scale=0.0)


def test_counts_that_differ_by_orders_of_magnitude_can_be_encoded():
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Poisson(nn.mlp(2, [], 3)),
        posteriors.Normal(nn.Log1p(nn.mlp(3, [8], 4))),
    )
    x = torch.tensor([[0.0, 10.0, 1e6]])
    assert vae.encode(x).isfinite().all()

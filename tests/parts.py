"""The tables of parts that the contract test crosses. A new part is a new row in one of them.

Each row makes a small part: data ``[*batch, 3]``, latents ``[*batch, 2]``. A prior is made with the posterior of its VAE,
since some share it.
"""

from __future__ import annotations

import torch
import zuko
from linear_gaussian import LinearLikelihood
from pyro import distributions as dist
from torch import nn as torch_nn

from pyro_vae import likelihoods, nn, posteriors, priors

EVENT = (3,)
LATENT = 2


class Inputs(torch_nn.Module):
    """Data of any dtype as inputs of a network: for integers, and none too large."""

    def __init__(self):
        super().__init__()
        self.register_buffer("one", torch.ones(()), persistent=False)

    def forward(self, x):
        return (x * self.one).clamp(-5, 5)


def encoder(outputs):
    return torch_nn.Sequential(Inputs(), nn.mlp(EVENT, [8], outputs))


def decoder(*outputs):
    return nn.mlp(LATENT, [8], (*EVENT, *outputs))


class Shifted(torch_nn.Module):
    """A network whose outputs are moved: for counts that are not all zero."""

    def __init__(self, network, by):
        super().__init__()
        self.network, self.by = network, by

    def forward(self, z):
        return self.network(z) + self.by


class TorchPrior(torch_nn.Module):
    """A user's own prior, from torch's distributions rather than Pyro's."""

    def __init__(self):
        super().__init__()
        self.loc, self.raw_scale = torch_nn.Parameter(torch.zeros(LATENT)), torch_nn.Parameter(torch.zeros(LATENT))

    def forward(self):
        return torch.distributions.Independent(torch.distributions.Normal(self.loc, self.raw_scale.exp()), 1)


class OneCovariance(torch_nn.Module):
    """A user's own posterior: a multivariate normal with one covariance for all data."""

    def __init__(self):
        super().__init__()
        self.network, self.raw = encoder(LATENT), torch_nn.Parameter(torch.zeros(LATENT, LATENT))

    def forward(self, x):
        scale_tril = self.raw.tril(-1) + self.raw.diagonal().exp().diag_embed()
        return dist.MultivariateNormal(self.network(x), scale_tril=scale_tril)


PRIORS = {
    "StandardNormal": lambda _: priors.StandardNormal(LATENT),
    "Laplace": lambda _: priors.Laplace(LATENT),
    "Mixture": lambda _: priors.Mixture(LATENT, components=3),
    "VampPrior": lambda posterior: priors.VampPrior(posterior, torch.randn(4, *EVENT)),
    "HypersphericalUniform": lambda _: priors.HypersphericalUniform(LATENT),
    "MaskedAutoregressiveFlow": lambda _: priors.MaskedAutoregressiveFlow(LATENT, transforms=1, hidden_features=[8]),
    "torch's own": lambda _: TorchPrior(),
    "zuko flow": lambda _: zuko.flows.MAF(LATENT, transforms=1, hidden_features=[8]),
}
LIKELIHOODS = {
    "Bernoulli": lambda: likelihoods.Bernoulli(decoder()),
    "Categorical": lambda: likelihoods.Categorical(decoder(4)),
    "ContinuousBernoulli": lambda: likelihoods.ContinuousBernoulli(decoder()),
    "DiscretizedLogistic": lambda: likelihoods.DiscretizedLogistic(decoder(2)),
    "HeterogeneousNegativeBinomial": lambda: likelihoods.HeterogeneousNegativeBinomial(decoder(2)),
    "HeteroscedasticNormal": lambda: likelihoods.HeteroscedasticNormal(decoder(2)),
    "NegativeBinomial": lambda: likelihoods.NegativeBinomial(
        decoder(), likelihoods.PositiveParameter(torch.ones(EVENT))
    ),
    "Normal": lambda: likelihoods.Normal(decoder(), 0.5),
    "Normal, learned scale": lambda: likelihoods.Normal(decoder(), likelihoods.PositiveParameter(1.0)),
    "Poisson": lambda: likelihoods.Poisson(decoder()),
    "ZeroInflated": lambda: likelihoods.ZeroInflated(likelihoods.Poisson(Shifted(decoder(), 2.0)), decoder()),
    "Columns": lambda: likelihoods.Columns(
        nn.mlp(LATENT, [8], 7),
        [likelihoods.columns.Real(), likelihoods.columns.Count(), likelihoods.columns.Categorical(3)],
    ),
    "Rescaled": lambda: likelihoods.Rescaled(likelihoods.Normal(decoder(), 0.5), [1.0, 0.0, -2.0], 3.0),
    "linear normal": lambda: LinearLikelihood(torch.randn(3, LATENT), torch.zeros(3), 1.0),
}
POSTERIORS = {
    "Normal": lambda: posteriors.Normal(encoder(2 * LATENT)),
    "ProjectedNormal": lambda: posteriors.ProjectedNormal(encoder(LATENT)),
    "one covariance": lambda: OneCovariance(),
    "FullNormal": lambda: posteriors.FullNormal(encoder(5)),
    "LinearGaussian": lambda: posteriors.LinearGaussian(
        LinearLikelihood(torch.randn(3, LATENT), torch.zeros(3), 1.0), LATENT
    ),
    "ProductOfExperts": lambda: posteriors.ProductOfExperts(Inputs(), *EVENT, LATENT),
    "LowRankNormal": lambda: posteriors.LowRankNormal(encoder(4 * LATENT), rank=2),
    "InverseAutoregressive": lambda: posteriors.InverseAutoregressive(
        encoder(2 * LATENT + 3), LATENT, 3, transforms=2, hidden_features=[8]
    ),
    "NeuralSpline": lambda: posteriors.NeuralSpline(
        encoder(2 * LATENT + 3), LATENT, 3, transforms=1, hidden_features=[8], bins=4
    ),
}

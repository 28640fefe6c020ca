"""Likelihoods p(x | z): modules that take latent vectors and return a distribution over data.

A likelihood is any ``nn.Module`` for which ``likelihood(z)``, with z ``[*batch, latent]``, returns a distribution with
batch shape ``[*batch]`` and the event shape of one datapoint. It accepts data in the ``support`` of that distribution:
``VAE.check`` checks data once, before any computation.

The likelihoods here take a network. If each value of x has one parameter, the network maps ``[*batch, latent]`` to
``[*batch, *event]``. If it has several, they are in an additional last dimension, such as ``[*batch, *event, 2]`` for a
location and a scale. So for images of shape ``[1, 28, 28]``, both ``nn.mlp(latent, hidden, (1, 28, 28, 2))`` and
``nn.convolutional_decoder(latent, (1, 28, 28, 2))`` fit.

================================  =================================================================
data                              likelihoods
================================  =================================================================
0 or 1                            ``Bernoulli``
from 0 to 1                       ``ContinuousBernoulli``
levels k / 255, as 8-bit pixels   ``DiscretizedLogistic``, ``Categorical`` (as integers)
real numbers                      ``Normal``, ``HeteroscedasticNormal``; ``Rescaled`` to any units
counts                            ``Poisson``, ``NegativeBinomial``, ``HeterogeneousNegativeBinomial``,
                                  ``ZeroInflated``
classes                           ``Categorical``
columns of different kinds        ``Columns``
================================  =================================================================
"""

from pyro_vae.likelihoods import columns
from pyro_vae.likelihoods.bernoulli import Bernoulli
from pyro_vae.likelihoods.categorical import Categorical
from pyro_vae.likelihoods.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.likelihoods.discretized_logistic import DiscretizedLogistic
from pyro_vae.likelihoods.incomplete import Incomplete
from pyro_vae.likelihoods.mixed import Columns
from pyro_vae.likelihoods.negative_binomial import HeterogeneousNegativeBinomial, NegativeBinomial
from pyro_vae.likelihoods.normal import HeteroscedasticNormal, Normal
from pyro_vae.likelihoods.poisson import Poisson
from pyro_vae.likelihoods.positive import PositiveParameter
from pyro_vae.likelihoods.rescaled import Rescaled
from pyro_vae.likelihoods.zero_inflated import ZeroInflated

__all__ = [
    "Bernoulli",
    "Categorical",
    "Columns",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "HeterogeneousNegativeBinomial",
    "HeteroscedasticNormal",
    "Incomplete",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "PositiveParameter",
    "Rescaled",
    "ZeroInflated",
    "columns",
]

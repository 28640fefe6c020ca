"""Variational autoencoders as probabilistic programs, with log p(x) you can check.

A variational autoencoder is Bayes' rule with three modules: a prior p(z), a likelihood p(x | z) and a posterior
q(z | x). ``VAE(prior, likelihood, posterior)`` turns them into two Pyro programs, ``vae.model`` and ``vae.guide``. They
work with everything in Pyro that takes programs (SVI, every ELBO, ``Predictive``, NUTS).
"""

from pyro_vae import (
    data,
    distributions,
    evidence,
    explorer,
    infer,
    likelihoods,
    nn,
    plots,
    posteriors,
    priors,
    processes,
    representation,
    training,
    weights,
)
from pyro_vae.infer import SVI
from pyro_vae.models.conditional import ConditionalVAE
from pyro_vae.models.conditional_posterior import ConditionalPosterior
from pyro_vae.models.hierarchical import BottomUp, HierarchicalVAE, TopDown
from pyro_vae.models.semi_supervised import SemiSupervisedVAE
from pyro_vae.models.vae import VAE
from pyro_vae.saving import CheckpointError, load, save
from pyro_vae.system.interrupts import Interrupted
from pyro_vae.training import NotFiniteError, fit

__version__ = "0.1.0"

__all__ = [
    "SVI",
    "VAE",
    "BottomUp",
    "CheckpointError",
    "ConditionalPosterior",
    "ConditionalVAE",
    "HierarchicalVAE",
    "Interrupted",
    "NotFiniteError",
    "SemiSupervisedVAE",
    "TopDown",
    "data",
    "distributions",
    "evidence",
    "explorer",
    "fit",
    "infer",
    "likelihoods",
    "load",
    "nn",
    "plots",
    "posteriors",
    "priors",
    "processes",
    "representation",
    "save",
    "training",
    "weights",
]

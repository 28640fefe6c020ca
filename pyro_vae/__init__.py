"""Variational autoencoders as probabilistic programs, with log p(x) you can check.

A variational autoencoder is Bayes' rule with three modules: a prior p(z), a likelihood p(x | z) and a posterior
q(z | x). ``VAE(prior, likelihood, posterior)`` turns them into two Pyro programs, ``vae.model`` and ``vae.guide``. They
work with everything in Pyro that takes programs (SVI, every ELBO, ``Predictive``, NUTS).
"""

from typing import TYPE_CHECKING

from pyro_vae.system.lazy import lazy_names

if TYPE_CHECKING:
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
    from pyro_vae.models import (
        VAE,
        BottomUp,
        ConditionalPosterior,
        ConditionalVAE,
        HierarchicalVAE,
        SemiSupervisedVAE,
        TopDown,
    )
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

if not TYPE_CHECKING:  # torch and Pyro are imported when a name is used that needs them
    _MODULES = {
        "infer": ["SVI"],
        "models": [
            "VAE",
            "BottomUp",
            "ConditionalPosterior",
            "ConditionalVAE",
            "HierarchicalVAE",
            "SemiSupervisedVAE",
            "TopDown",
        ],
        "saving": ["CheckpointError", "load", "save"],
        "system.interrupts": ["Interrupted"],
        "training": ["NotFiniteError", "fit"],
    }
    __getattr__, __dir__ = lazy_names(__name__, __all__, _MODULES)

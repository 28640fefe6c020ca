"""Measures of codes, reconstructions and samples that complement log p(x). They are functions of tensors.

Codes are ``vae.encode(x)``, reconstructions ``vae.reconstruct(x)`` and samples ``vae.sample(n)``. Those of PCA, an
autoencoder or any other network work as well, so that models can be compared.
"""

from pyro_vae.representation.fidelity import FidelityAndDiversity, fidelity_and_diversity
from pyro_vae.representation.frechet import frechet_distance
from pyro_vae.representation.probes import linear_probe, nearest_neighbours
from pyro_vae.representation.reconstructions import reconstruction_error
from pyro_vae.representation.score import Score

__all__ = [
    "FidelityAndDiversity",
    "Score",
    "fidelity_and_diversity",
    "frechet_distance",
    "linear_probe",
    "nearest_neighbours",
    "reconstruction_error",
]

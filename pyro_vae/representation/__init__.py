"""How good codes, reconstructions and samples are, beside log p(x): functions of tensors, whatever made them.

Codes are ``vae.encode(x)``, reconstructions ``vae.reconstruct(x)``, samples ``vae.sample(n)``; those of PCA, of an
autoencoder or of a network that somebody else trained serve as well, so that the numbers can be compared.
"""

from pyro_vae.representation.estimate import Estimate
from pyro_vae.representation.fidelity import FidelityAndDiversity, fidelity_and_diversity
from pyro_vae.representation.frechet import frechet_distance
from pyro_vae.representation.probes import linear_probe, nearest_neighbours
from pyro_vae.representation.reconstructions import reconstruction_error

__all__ = [
    "Estimate",
    "FidelityAndDiversity",
    "fidelity_and_diversity",
    "frechet_distance",
    "linear_probe",
    "nearest_neighbours",
    "reconstruction_error",
]

"""Pairs of Pyro programs made of parts: model and guide."""

# Not listed in __all__: users import them from pyro_vae.
from pyro_vae.models.conditional import ConditionalVAE as ConditionalVAE
from pyro_vae.models.conditional_posterior import ConditionalPosterior as ConditionalPosterior
from pyro_vae.models.hierarchical import BottomUp as BottomUp
from pyro_vae.models.hierarchical import HierarchicalVAE as HierarchicalVAE
from pyro_vae.models.hierarchical import TopDown as TopDown
from pyro_vae.models.semi_supervised import SemiSupervisedVAE as SemiSupervisedVAE
from pyro_vae.models.vae import VAE as VAE

"""log p(x) with error bars, and checks of every bound on it."""

from pyro_vae.evidence.elbo_check import ElboCheck, Estimate, check_elbo
from pyro_vae.evidence.importance_sampling import Evidence, importance

__all__ = ["ElboCheck", "Estimate", "Evidence", "check_elbo", "importance"]

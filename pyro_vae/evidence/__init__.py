"""log p(x) with error bars, and checks of every bound on it."""

from pyro_vae.evidence.annealing import annealed
from pyro_vae.evidence.bidirectional import Sandwich, sandwich
from pyro_vae.evidence.calibration import Calibration, calibrate
from pyro_vae.evidence.certificate import Certificate
from pyro_vae.evidence.comparison import Comparison, compare
from pyro_vae.evidence.decomposition import ElboDecomposition, decompose_elbo
from pyro_vae.evidence.draws import to_arviz
from pyro_vae.evidence.elbo_check import ElboCheck, ElboEstimate, check_elbo
from pyro_vae.evidence.estimation import estimate
from pyro_vae.evidence.gaps import InferenceGap, inference_gap
from pyro_vae.evidence.importance_sampling import importance
from pyro_vae.evidence.imputation import impute
from pyro_vae.evidence.laplace_proposal import laplace
from pyro_vae.evidence.nuts import NutsComparison, compare_with_nuts
from pyro_vae.evidence.proposals import Proposal, defensive, widened
from pyro_vae.evidence.result import Evidence
from pyro_vae.interrupted import Interrupted

__all__ = [
    "Calibration",
    "Certificate",
    "Comparison",
    "ElboCheck",
    "ElboDecomposition",
    "ElboEstimate",
    "Evidence",
    "InferenceGap",
    "Interrupted",
    "NutsComparison",
    "Proposal",
    "Sandwich",
    "annealed",
    "calibrate",
    "check_elbo",
    "compare",
    "compare_with_nuts",
    "decompose_elbo",
    "defensive",
    "estimate",
    "importance",
    "impute",
    "inference_gap",
    "laplace",
    "sandwich",
    "to_arviz",
    "widened",
]

"""log p(x) with error bars, and checks of every bound on it."""

from pyro_vae.evidence.diagnostics.calibration.computation import calibrate
from pyro_vae.evidence.diagnostics.calibration.result import Calibration
from pyro_vae.evidence.diagnostics.decomposition.computation import decompose_elbo
from pyro_vae.evidence.diagnostics.decomposition.result import ElboDecomposition
from pyro_vae.evidence.diagnostics.elbo_check.computation import check_elbo
from pyro_vae.evidence.diagnostics.elbo_check.result import ElboCheck, ElboEstimate
from pyro_vae.evidence.diagnostics.gaps.computation import inference_gap
from pyro_vae.evidence.diagnostics.gaps.result import InferenceGap
from pyro_vae.evidence.diagnostics.nuts.computation import compare_with_nuts
from pyro_vae.evidence.diagnostics.nuts.result import NutsComparison
from pyro_vae.evidence.draws.arviz_draws import to_arviz
from pyro_vae.evidence.draws.imputation import impute
from pyro_vae.evidence.estimators.annealing import annealed
from pyro_vae.evidence.estimators.bidirectional import sandwich
from pyro_vae.evidence.estimators.comparison import compare
from pyro_vae.evidence.estimators.estimation import estimate
from pyro_vae.evidence.estimators.importance_sampling import importance
from pyro_vae.evidence.proposals import Proposal, defensive, widened
from pyro_vae.evidence.results.certificate import Certificate
from pyro_vae.evidence.results.comparison import Comparison
from pyro_vae.evidence.results.evidence import Evidence, Method
from pyro_vae.evidence.results.imputation import Imputation
from pyro_vae.evidence.results.sandwich import Sandwich
from pyro_vae.evidence.unconstrained.laplace_proposal import laplace
from pyro_vae.system.interrupts import Interrupted

__all__ = [
    "Calibration",
    "Certificate",
    "Comparison",
    "ElboCheck",
    "ElboDecomposition",
    "ElboEstimate",
    "Evidence",
    "Imputation",
    "InferenceGap",
    "Interrupted",
    "Method",
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

"""Losses that Pyro does not have: functions of model, guide and their arguments, in nats, summed over datapoints.

Use them like the ELBOs of Pyro: ``SVI(model, guide, optim, losses.IWAE(num_particles=5))``, ``fit(loss=...)``.
"""

from pyro_vae.infer.losses.beta import BetaELBO
from pyro_vae.infer.losses.beta_tc import BetaTC
from pyro_vae.infer.losses.capacity import Capacity
from pyro_vae.infer.losses.cubo import CUBO
from pyro_vae.infer.losses.dreg import DReG
from pyro_vae.infer.losses.elbo import ELBO
from pyro_vae.infer.losses.free_bits import FreeBits
from pyro_vae.infer.losses.info_vae import InfoVAE
from pyro_vae.infer.losses.iwae import IWAE
from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.miwae import CIWAE, MIWAE, PIWAE
from pyro_vae.infer.losses.renyi import Renyi
from pyro_vae.infer.losses.score_function import ScoreFunction, leave_one_out
from pyro_vae.infer.losses.sticking_the_landing import StickingTheLanding
from pyro_vae.infer.losses.wake_wake import WakeWake

__all__ = [
    "CIWAE",
    "CUBO",
    "ELBO",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "BetaELBO",
    "BetaTC",
    "Capacity",
    "DReG",
    "FreeBits",
    "InfoVAE",
    "LogWeightLoss",
    "Renyi",
    "ScoreFunction",
    "StickingTheLanding",
    "WakeWake",
    "leave_one_out",
]

"""Pilots: small samples that tell how many samples are needed."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.evidence.ladder.settings import MARGIN, Settings
from pyro_vae.evidence.results.error_bars import expected_relative_variance
from pyro_vae.evidence.results.methods import GUIDE, LAPLACE, WITH_PRIOR
from pyro_vae.evidence.results.running_weights import RunningWeights

PILOT = {GUIDE: 64, WITH_PRIOR: 256, LAPLACE: 64}  # samples
LEAST_SAMPLES = 256
MOST_SAMPLES_OF_FEW = 2**14  # if the noise of single datapoints counts, or if annealing is no alternative


def wanted_samples(pilot: RunningWeights, settings: Settings, most_variance: float | Tensor) -> Tensor:
    """The number of samples that a pilot asks for, a power of two, ``[n]``.

    Args:
        pilot: The weights of the pilot.
        settings: The accuracy to aim at.
        most_variance: The largest relative variance of the weights for which to use the method, a number or ``[n]``.

    Returns:
        The numbers; 0 where the weights vary more than that.
    """
    expected = expected_relative_variance(pilot.moments())
    wanted = (expected / (MARGIN * settings.variance_for_bias)).clamp_min(LEAST_SAMPLES)
    return torch.where(expected.isfinite() & (expected <= most_variance), 2 ** wanted.log2().ceil(), 0.0)

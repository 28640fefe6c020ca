"""The methods for latents without gradients, which are discrete or lie on a sphere."""

from __future__ import annotations

import torch

from pyro_vae.evidence.ladder.block import Block
from pyro_vae.evidence.ladder.pilots import MOST_SAMPLES_OF_FEW, PILOT, wanted_samples
from pyro_vae.evidence.proposals import defensive
from pyro_vae.evidence.results.methods import GUIDE, WITH_PRIOR
from pyro_vae.weights import terms

SHARE_WITH_PRIOR = 0.3


def without_gradients(block: Block) -> None:
    """Samples from the guide, checked against samples from its mixture with the prior, which cannot be too narrow."""
    proposals = {GUIDE: terms, WITH_PRIOR: defensive(SHARE_WITH_PRIOR)}
    pilots = {}
    for method, proposal in proposals.items():
        with block.timed(method):
            pilots[method] = block.weigh(proposal, PILOT[method])
        block.floor.raise_by(block.rows, pilots[method])
    for method, proposal in proposals.items():
        wanted = wanted_samples(pilots[method], block.settings, torch.inf)[block.unsettled.cpu()]
        wanted = wanted.clamp_max(MOST_SAMPLES_OF_FEW)
        if not (wanted > 0).any() or block.is_late():
            continue
        count = int(wanted.max())
        with block.timed(method):
            block.report(method, block.rows, block.weigh(proposal, count), pilots[method], samples=count)
    for method in proposals:
        block.report(method, block.rows, pilots[method], samples=PILOT[method])

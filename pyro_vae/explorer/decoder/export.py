"""The decoder of a VAE as a program for the page."""

from __future__ import annotations

import copy
from typing import Any

import torch

from pyro_vae.explorer.decoder.lowering import lower
from pyro_vae.explorer.decoder.mean import MeanDecoder
from pyro_vae.explorer.decoder.program import Program
from pyro_vae.explorer.decoder.tracing import trace
from pyro_vae.models.conditional import ConditionalVAE
from pyro_vae.models.parts_fit import trial


def decoder_program(vae: Any) -> Program:
    """The decoder of a VAE, from z (and conditions, appended) to the mean of p(x | z), as the page runs it.

    Raises:
        ValueError: If it cannot be exported, or has an operator that the page does not have.
    """
    decoder = MeanDecoder(copy.deepcopy(vae.likelihood).cpu()).eval()
    with trial({"vae": vae}):
        z = vae.prior().sample((1,)).cpu()
    if isinstance(vae, ConditionalVAE):
        z = torch.cat([z, z.new_zeros(1, vae.conditions)], dim=-1)
    return lower(trace(decoder, z))

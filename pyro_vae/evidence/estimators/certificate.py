"""Tests `estimate` on data drawn from the model, where log p(x) lies between two bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.evidence.estimators.simulation import simulate
from pyro_vae.evidence.ladder.ladder import Ladder
from pyro_vae.evidence.ladder.settings import Settings
from pyro_vae.evidence.results.certificate import Certificate
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained.log_joint import FastDensities


def certified(
    programs: Programs, settings: Settings, count: int, *, rows: int, fast: FastDensities | None = None
) -> Certificate:
    """Draws datapoints from the model, and bounds their log p(x) by the procedure and by its reverse.

    Args:
        programs: Model, guide, and data of the kind to draw; the same values are missing from the drawn data.
        settings: The settings of the procedure.
        count: How many datapoints to draw. Programs with parameters for each row get as many as they have rows.
        rows: The number of datapoints in a block.
        fast: Makes the densities fast; it may have done so for the data already.
    """
    x = programs.x
    if programs.independent:  # rows may be repeated
        x = x[torch.arange(count, device=x.device) % len(x)]
    drawn = simulate(programs.model, programs.guide, x, programs.layout)
    simulated = Programs(programs.model, programs.guide, drawn.x, programs.chunk_size, programs.progress)

    def enclose(block: Tensor, first: int) -> dict[str, Tensor]:
        ladder = Ladder(simulated, block, settings, fast=fast)
        columns = ladder.climb()
        exact = {name: value[first : first + len(block)] for name, value in drawn.latents.items()}
        return {"lower": columns["log_prob"], "upper": ladder.upper_bound(exact), "error": columns["error"]}

    return simulated.run(enclose, lambda columns: Certificate(**columns), rows=rows, settings={"function": "certify"})

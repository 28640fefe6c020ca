"""The best guide in a family for each datapoint by itself: optimized until the ELBO stops rising."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.evidence.diagnostics.gaps.local_guide import LocalGuide
from pyro_vae.evidence.runner.chunks import particle_counts
from pyro_vae.system.randomness import generators_kept, reseed
from pyro_vae.weights import Layout, Program, terms

__all__ = ["fit_until_done"]

SMALL = 0.01  # nats: a round with a smaller gain was not needed
STANDARD_ERRORS = 2.0  # a gain of fewer standard errors is no gain
PARTICLES = 256  # which the gain of a round is measured with
MOST_LR = 0.5  # scales are optimized as logarithms, which should not move faster


def fit_until_done(
    local: LocalGuide,
    model: Program,
    x: Tensor,
    layout: Layout,
    *,
    num_steps: int,
    num_particles: int,
    lr: float,
    max_rounds: int,
    chunk_size: int,
) -> Tensor:
    """Maximizes the ELBO of each datapoint, in rounds, until a round gains less than 0.01 nats.

    In a round, a parameter can move at most by the sum of the learning rates. So each round starts with twice the
    learning rate of the round before, unless that round has lowered the ELBO of a datapoint (which then gets its
    earlier parameters back).

    Args:
        local: The guide to optimize.
        model: The model.
        x: The datapoints, ``[n, *event]``.
        layout: The layout of the programs.
        num_steps: Steps of a round.
        num_particles: Particles for each datapoint in a step.
        lr: The learning rate at the start of the first round; it falls to 0 in each.
        max_rounds: The largest number of rounds.
        chunk_size: How many (particle, datapoint) pairs to compute at once.

    Returns:
        Whether the ELBO stopped rising, ``[n]``.
    """
    converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for _ in range(max_rounds):
        earlier = local.copied()
        rows = (~converged).nonzero()[:, 0]
        local.fit(model, x, layout, num_steps=num_steps, num_particles=num_particles, lr=lr, rows=rows)
        gain, error = _gain(model, local, earlier, x, layout, chunk_size)
        worse = ~(gain >= -SMALL - STANDARD_ERRORS * error) & ~converged  # or not a number
        local.put_back(earlier, worse, layout)
        converged |= ~worse & (gain <= SMALL + STANDARD_ERRORS * error)
        if converged.all():
            break
        lr = lr / 4 if worse.any() else max(lr, min(2 * lr, MOST_LR))
    return converged


@torch.no_grad()
def _gain(
    model: Program, new: LocalGuide, old: LocalGuide, x: Tensor, layout: Layout, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """The ELBO of the new guide minus that of the old one on the same noise, ``[n]``, and its standard error."""
    seed = int(torch.randint(2**31, ()))
    differences = []
    for i, count in enumerate(particle_counts(PARTICLES, len(x), chunk_size)):
        both = []
        for guide in (new, old):
            with generators_kept(x.device):
                reseed(seed + i, x.device)
                both.append(terms(model, guide, x, count, layout).log_weights.double())
        differences.append(both[0] - both[1])
    difference = torch.cat(differences)
    return difference.mean(0), difference.std(0) / len(difference) ** 0.5

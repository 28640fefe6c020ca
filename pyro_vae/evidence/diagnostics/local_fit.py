"""The best guide of a family for each datapoint by itself: optimized until the ELBO no longer rises."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.evidence.diagnostics.local_guide import LocalGuide
from pyro_vae.evidence.runner.chunks import particle_counts
from pyro_vae.system.randomness import generators_kept, reseed
from pyro_vae.weights import Layout, Program, terms

__all__ = ["fit_until_done"]

SMALL = 0.01  # nats: a round that gains less was not needed
STANDARD_ERRORS = 2.0  # of the gain, that are no gain
PARTICLES = 256  # by which the gain of a round is measured
MOST_LR = 0.5  # scales are optimized as logarithms, and cannot be moved faster


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
    """Maximizes the ELBO of each datapoint, in rounds, until a round has gained less than 0.01 nats.

    A parameter cannot move further in a round than by the sum of the learning rates. So each round begins with twice
    the learning rate of the one before, unless that has made the ELBO of a datapoint worse (which then gets its earlier
    parameters back).

    Args:
        local: What is optimized.
        model: The model.
        x: The datapoints, ``[n, *event]``.
        layout: That of the programs.
        num_steps: Steps of a round.
        num_particles: Particles for each datapoint in a step.
        lr: The learning rate at the beginning of the first round; it falls to 0 in each.
        max_rounds: The most rounds.
        chunk_size: The number of pairs to compute at once.

    Returns:
        Whether a round gained nothing, ``[n]``.
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
    """By how much the ELBO has risen, ``[n]``, on the same noise for both, and the standard error of that."""
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

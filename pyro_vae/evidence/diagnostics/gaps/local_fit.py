"""The best guide in a family for each datapoint by itself: optimized until the ELBO stops rising."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.evidence.diagnostics.gaps.local_guide import LocalGuide
from pyro_vae.evidence.runner.chunks import particle_counts
from pyro_vae.system.randomness import seeded

SMALL = 0.01  # nats: a round with a smaller gain was not needed
STANDARD_ERRORS = 2.0  # a gain of fewer standard errors is no gain
PARTICLES = 256  # which the gain of a round is measured with
MOST_LR = 0.5  # scales are optimized as logarithms, which should not move faster


def fit_until_done(local: LocalGuide, *, num_steps: int, num_particles: int, lr: float, max_rounds: int) -> Tensor:
    """Maximizes the ELBO of each datapoint, in rounds, until a round gains less than 0.01 nats.

    In a round, a parameter can move at most by the sum of the learning rates. So each round starts with twice the
    learning rate of the round before, unless that round has lowered the ELBO of a datapoint (which then gets its
    earlier parameters back).

    Args:
        local: The guide to optimize.
        num_steps: Steps of a round.
        num_particles: Particles for each datapoint in a step.
        lr: The learning rate at the start of the first round; it falls to 0 in each.
        max_rounds: The largest number of rounds.

    Returns:
        Whether the ELBO stopped rising, ``[n]``.
    """
    converged = torch.zeros(len(local.x), dtype=torch.bool, device=local.x.device)
    for _ in range(max_rounds):
        earlier = local.copied()
        rows = (~converged).nonzero()[:, 0]
        local.fit(rows, num_steps, num_particles, lr)
        gain, error = _gain(local, earlier)
        worse = ~(gain >= -SMALL - STANDARD_ERRORS * error) & ~converged  # or not a number
        local.put_back(earlier, worse)
        converged |= ~worse & (gain <= SMALL + STANDARD_ERRORS * error)
        if converged.all():
            break
        lr = lr / 4 if worse.any() else max(lr, min(2 * lr, MOST_LR))
    return converged


def _gain(new: LocalGuide, old: LocalGuide) -> tuple[Tensor, Tensor]:
    """The ELBO of the new guide minus that of the old one on the same noise, ``[n]``, and its standard error."""
    seed = int(torch.randint(2**31, ()))
    x, differences = new.x, []
    for i, count in enumerate(particle_counts(PARTICLES, len(x), new.programs.chunk_size)):
        both = []
        for guide in (new, old):
            with seeded(seed + i, x.device):
                both.append(guide.log_weights(x, count).double())
        differences.append(both[0] - both[1])
    difference = torch.cat(differences)
    return difference.mean(0), difference.std(0) / len(difference) ** 0.5

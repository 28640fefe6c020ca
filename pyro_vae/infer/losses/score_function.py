"""The ELBO with a gradient that does not go through the draws."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles

__all__ = ["ScoreFunction", "leave_one_out"]

Baseline = Callable[[Tensor], Tensor]


class ScoreFunction(LogWeightLoss):
    """The ELBO, with the score-function gradient of the guide (Ranganath et al. 2014, equation 2; REINFORCE).

    It weighs the gradient of log q at each draw by the log-weight there. Draws need have no gradient, as those of
    discrete latents; if they have, it is not used.

    Args:
        num_particles: The number of draws for each datapoint.
        baseline: Makes of log-weights ``[particles, n]`` what is subtracted from them, of the same shape. The mean of
            the gradient stays what it is if no entry depends on the draw of its own: :func:`leave_one_out`.
    """

    through_draws = False

    def __init__(self, num_particles: int = 1, baseline: Baseline | None = None) -> None:
        super().__init__(num_particles)
        if baseline is leave_one_out and num_particles < 2:
            raise ValueError(f"num_particles is {num_particles!r}; expected at least 2 for a baseline of the others")
        self.baseline = baseline

    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``."""
        log_joint, log_posterior = particles.log_joint(particles.fixed), particles.log_posterior(particles.fixed)
        log_weights = (log_joint - log_posterior).detach()
        signal = log_weights if self.baseline is None else log_weights - self.baseline(log_weights)
        score = signal * log_posterior
        return (log_joint - log_posterior.detach() + score - score.detach()).mean(0)


def leave_one_out(log_weights: Tensor) -> Tensor:
    """The mean over the other particles, for log-weights ``[particles, n]`` (Mnih & Rezende 2016; Kool et al. 2019)."""
    return (log_weights.sum(0) - log_weights) / (len(log_weights) - 1)

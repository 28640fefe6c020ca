"""The ELBO with the score-function gradient."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles

Baseline = Callable[[Tensor], Tensor]


class ScoreFunction(LogWeightLoss):
    """The ELBO, with the score-function gradient of the guide (Ranganath et al. 2014, equation 2; REINFORCE).

    It multiplies the gradient of log q at each draw by the log-weight of the draw. The draws need no gradient, so the
    latents may be discrete; a gradient through the draws is not used.

    Args:
        num_particles: The number of draws for each datapoint.
        baseline: Maps log-weights ``[particles, n]`` to a baseline of the same shape, which is subtracted from them to
            reduce the variance. The gradient stays unbiased if no entry depends on its own draw, as for
            :func:`leave_one_out`.

    Raises:
        ValueError: If ``num_particles`` is not a positive integer, or is 1 with the baseline ``leave_one_out``.

    Example:
        >>> loss = losses.ScoreFunction(num_particles=10, baseline=losses.leave_one_out)
        >>> loss(vae.model, vae.guide, x).shape
        torch.Size([])
    """

    through_draws = False

    def __init__(self, num_particles: int = 1, baseline: Baseline | None = None) -> None:
        super().__init__(num_particles)
        if baseline is leave_one_out and num_particles < 2:
            raise ValueError(f"num_particles is {num_particles!r}; expected at least 2 for the baseline leave_one_out")
        self.baseline = baseline

    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""
        log_joint, log_posterior = particles.log_joint(particles.fixed), particles.log_posterior(particles.fixed)
        log_weights = (log_joint - log_posterior).detach()
        signal = log_weights if self.baseline is None else log_weights - self.baseline(log_weights)
        score = signal * log_posterior
        return (log_joint - log_posterior.detach() + score - score.detach()).mean(0)


def leave_one_out(log_weights: Tensor) -> Tensor:
    """The mean of the other particles, for log-weights ``[particles, n]`` (Mnih & Rezende 2016; Kool et al. 2019).

    Example:
        >>> losses.leave_one_out(torch.tensor([[1.0], [2.0], [6.0]]))
        tensor([[4.0000],
                [3.5000],
                [1.5000]])
    """
    return (log_weights.sum(0) - log_weights) / (len(log_weights) - 1)

"""A logistic distribution rounded to the levels of 8-bit pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.supports import Levels

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(TorchDistribution):
    """A logistic variable rounded to the nearest of the levels 0, 1 / (levels - 1), ..., 1.

    The lowest level takes all mass below it and the highest all above it (Salimans et al. 2017, equation 2, for one
    component).

    Args:
        loc: Location of the logistic, ``[*batch]``, in units in which data are from 0 to 1.
        scale: Its scale, ``[*batch]``, in the same units.
        levels: The number of levels, at least 2.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012

    def __init__(self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Levels:
        """The levels."""
        return Levels(self.levels)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> DiscretizedLogistic:
        """The same distribution with a larger batch shape."""
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return DiscretizedLogistic(loc, scale, self.levels, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log of the probability mass at levels that broadcast with ``[*batch]``."""
        if self._validate_args:
            self._validate_sample(value)
        top = self.levels - 1
        # In steps from level to level edges are exact, so that a level ends precisely where the next begins.
        step, loc, scale = (value * top).round(), self.loc * top, self.scale * top
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) cancels nothing, in the far tails either.
        below_upper_edge = logsigmoid((step + 0.5 - loc) / scale)
        above_lower_edge = logsigmoid((loc - step + 0.5) / scale)
        between = (-torch.expm1(-1 / scale)).log()
        lowest, highest = step <= 0, step >= top
        return (
            torch.where(highest, 0, below_upper_edge)
            + torch.where(lowest, 0, above_lower_edge)
            + torch.where(lowest | highest, 0, between)
        )

    @property
    def mean(self) -> Tensor:
        """The mean, ``[*batch]``: a sum over levels, of the probability to lie above each."""
        top = self.levels - 1
        loc, scale = self.loc * top, self.scale * top
        mean = torch.zeros_like(loc)
        for step in range(top):  # one at a time, for the memory that an array of images by levels would take
            mean = mean + ((loc - step - 0.5) / scale).sigmoid()
        return mean / top

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws ``[*sample_shape, *batch]``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        top = self.levels - 1
        noise = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).logit()
        return ((self.loc + self.scale * noise) * top).round().clamp(0, top) / top

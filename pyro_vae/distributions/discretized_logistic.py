"""A logistic distribution rounded to equally spaced levels, such as those of 8-bit pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.supports import Levels
from pyro_vae.system.tracing import is_tracing


class DiscretizedLogistic(TorchDistribution):
    """A logistic variable rounded to the nearest of the levels 0, 1 / (levels - 1), ..., 1.

    The lowest level has all probability below it and the highest level all above it (Salimans et al. 2017, equation 2,
    for one component).

    Args:
        loc: The location of the logistic, ``[*batch]``, on the scale where data are from 0 to 1.
        scale: Its scale, ``[*batch]``, in the same units.
        levels: The number of levels, at least 2.
        validate_args: Whether to check arguments and values; by default Pyro's setting.

    Example:
        >>> pixels = distributions.DiscretizedLogistic(torch.tensor(0.5), torch.tensor(0.1), levels=256)
        >>> torch.allclose(pixels.log_prob(torch.arange(256) / 255).exp().sum(), torch.tensor(1.0))
        True
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
        """Log-probabilities in nats, for levels that broadcast with ``[*batch]``."""
        if self._validate_args:
            self._validate_sample(value)
        top = self.levels - 1
        step = (value * top).round()
        # A level ends exactly where the next begins: the edges are the same floating-point numbers.
        upper_edge, lower_edge = (step + 0.5) / top, (step - 0.5) / top
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), without cancellation even in the far tails.
        lowest, highest = step <= 0, step >= top
        return (
            _log_sigmoid(upper_edge - self.loc, self.scale, is_one=highest)
            + _log_sigmoid(self.loc - lower_edge, self.scale, is_one=lowest)
            + torch.where(lowest | highest, 0, self._log_between())
        )

    def _log_between(self) -> Tensor:
        """log(1 - exp(-w)), where w = 1 / (scale * (levels - 1)) is the width of a level."""
        steps = self.levels - 1
        wide, narrow = self.scale * steps > 10, self.scale * steps * _largest(self.scale) < 1
        w = 1 / torch.where(narrow, 1, self.scale) / steps
        small, large = torch.where(wide, w, 0), torch.where(wide | narrow, 1, w)
        series = small * (-1 / 2 + small * (1 / 24 - small * small / 2880))
        log_w = -torch.where(wide, self.scale, 1).log() - math.log(steps)  # also where w underflows
        return torch.where(wide, log_w + series, torch.where(narrow, 0, torch.log1p(-torch.exp(-large))))

    @property
    def mean(self) -> Tensor:
        """The mean, ``[*batch]``, which is the sum over levels of the probability of a value above the level."""
        top = self.levels - 1
        mean = torch.zeros_like(self.loc)
        loc, scale = self.loc.unsqueeze(-1), self.scale.unsqueeze(-1)
        levels = torch.arange(top, dtype=loc.dtype, device=loc.device)
        # All levels at once would take much memory; in a traced program each step is another copy of the operations.
        for steps in levels.split(64 if is_tracing() else 8):
            above = loc - (steps + 0.5) / top
            is_far = above.abs() > _largest(scale) * scale
            share = torch.where(is_far, (above > 0).to(loc.dtype), _quotient(above, scale, is_far).sigmoid())
            mean = mean + share.sum(-1)
        return mean / top

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws ``[*sample_shape, *batch]``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        top = self.levels - 1
        noise = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).logit()
        return ((self.loc + self.scale * noise) * top).round().clamp(0, top) / top


# Where a sigmoid rounds to 0 or 1 its gradient is 0, while the gradient of its argument, a quotient, may be infinite.
# Their product would be NaN, so the quotient is not computed there.


def _log_sigmoid(difference: Tensor, scale: Tensor, is_one: Tensor) -> Tensor:
    """log(sigmoid(difference / scale)), or 0 where ``is_one``."""
    is_one = is_one | (difference > _largest(scale) * scale)
    return torch.where(is_one, 0, logsigmoid(_quotient(difference, scale, is_one)))


def _quotient(difference: Tensor, scale: Tensor, left_out: Tensor) -> Tensor:
    return torch.where(left_out, 0, difference) / torch.where(left_out, 1, scale)


def _largest(like: Tensor) -> float:
    """A number z with exp(-z) = 0 in the dtype."""
    limits = torch.finfo(like.dtype)
    return -1.05 * math.log(limits.tiny * limits.eps)

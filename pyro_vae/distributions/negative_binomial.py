"""The negative binomial distribution, parameterized by its mean and inverse dispersion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Gamma, constraints
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.stirling import draw_poisson, log_ratio, stirling_remainder
from pyro_vae.distributions.supports import Counts

RANGE = (-80, 80)  # of log r for draws: r is finite in float32, and more extreme values make no difference


class NegativeBinomial(TorchDistribution):
    """Counts with mean m and variance m + m^2 / r, where r is the inverse dispersion; it tends to Poisson as r grows.

    It is a Poisson distribution whose rate has a gamma distribution with shape r and mean m. It replaces
    ``torch.distributions.NegativeBinomial``, whose log-probability is a difference of log-gamma functions of r: in
    float32, for r = 10^6 and a mean of 10, it is wrong by 0.05 nats.

    Args:
        log_mean: Logarithms of the means, ``[*batch]``.
        log_inverse_dispersion: Logarithms of r, which broadcast with the means. Terms that depend only on r are
            computed in its own shape.
        validate_args: Whether to check arguments and values; by default Pyro's setting.

    Example:
        >>> counts = distributions.NegativeBinomial(torch.tensor(2.0).log(), torch.tensor(4.0).log())
        >>> counts.variance.round(decimals=4)  # 2 + 2^2 / 4
        tensor(3.)
    """

    arg_constraints = {"log_mean": constraints.real, "log_inverse_dispersion": constraints.real}  # noqa: RUF012
    support = Counts()

    def __init__(self, log_mean: Tensor, log_inverse_dispersion: Tensor, validate_args: bool | None = None) -> None:
        self.log_mean, self.log_inverse_dispersion = log_mean, log_inverse_dispersion
        batch_shape = torch.broadcast_shapes(log_mean.shape, log_inverse_dispersion.shape)
        super().__init__(batch_shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> NegativeBinomial:
        """The same distribution with a larger batch shape."""
        return NegativeBinomial(self.log_mean.expand(batch_shape), self.log_inverse_dispersion, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probabilities in nats, for counts x that broadcast with ``[*batch]``.

        With Stirling's remainder S they are log r - log(r + x) + S(r + x) - S(r) - S(x)
        + r log((r + x) / (r + m)) + x log((r + x) m / (x (r + m))).
        """
        if self._validate_args:
            self._validate_sample(value)
        log_m, log_r = self.log_mean, self.log_inverse_dispersion
        largest = math.log(torch.finfo(log_m.dtype).max) - 2
        r, log_x = log_r.clamp_max(largest).exp(), value.log()
        log_r_plus_x, log_r_plus_m = torch.logaddexp(log_r, log_x), torch.logaddexp(log_r, log_m)
        positive = value.clamp_min(1)  # for a count of 0, the term that uses it is multiplied by 0
        # r / (r + m) and r m / (r + m) from the logarithms, since r and m may overflow or underflow.
        share = (log_r - log_m).sigmoid()
        log_share_of_m = torch.minimum(log_m, log_r) + logsigmoid((log_r - log_m).abs())
        shift = value * share - log_share_of_m.clamp_max(largest).exp()  # r (x - m) / (r + m)
        excess = (log_x - log_r_plus_m).clamp_max(largest).exp() - (log_m - log_r).sigmoid()  # (x - m) / (r + m)
        difference = log_r_plus_x - log_r_plus_m
        return (
            log_r
            - log_r_plus_x
            + (stirling_remainder(r + value) - stirling_remainder(r) - stirling_remainder(value))
            + _scaled_log_ratio(r, shift, excess, difference)
            + value * log_ratio(-shift / positive, difference + log_m - positive.log())
        )

    @property
    def mean(self) -> Tensor:
        """The means, ``[*batch]``."""
        return self.log_mean.exp().expand(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        """m + m^2 / r, ``[*batch]``."""
        return torch.logaddexp(self.log_mean, 2 * self.log_mean - self.log_inverse_dispersion).exp()

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws ``[*sample_shape, *batch]``, as floating-point numbers."""
        shape = self._extended_shape(torch.Size(sample_shape))
        log_r = self.log_inverse_dispersion.clamp(*RANGE).expand(shape)
        r = log_r.exp()
        # A gamma variable of shape r is one of shape r + 1 times u^(1 / r), which underflows for small r: so logs.
        log_gamma = Gamma(r + 1, 1.0, validate_args=False).sample().log() + torch.rand_like(r).log() / r
        return draw_poisson((log_gamma - log_r + self.log_mean).exp())


def _scaled_log_ratio(r: Tensor, shift: Tensor, excess: Tensor, difference: Tensor) -> Tensor:
    """r log(a / b), from the excess a / b - 1 and the shift r (a / b - 1) if a is near b, else from log a - log b."""
    near = excess.abs() < 0.5
    tiny = excess.abs() < 1e-3
    small, e = torch.where(tiny, excess, 0), torch.where(near & ~tiny, excess, 0.25)
    series = 1 - small * (1 / 2 - small * (1 / 3 - small * (1 / 4 - small * (1 / 5 - small / 6))))
    return torch.where(near, shift * torch.where(tiny, series, torch.log1p(e) / e), r * difference)

"""The inference gap, split into approximation gap and amortization gap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pyro_vae.evidence.diagnostics.gaps.plot import stacked_gaps
from pyro_vae.evidence.results.evidence import Z, std_error_of_mean
from pyro_vae.html_table import WithSummary, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class InferenceGap(WithSummary):
    """log p(x) - ELBO and its two parts, in nats, for n datapoints (Cremer et al. 2018, equation 6).

    Attributes:
        elbo: The ELBO of the guide, ``[n]``.
        best_elbo: The ELBO of the best q in the guide's family for each datapoint by itself, as found by optimization,
            ``[n]``.
        log_prob: log p(x), ``[n]``.
        elbo_std_error: The Monte Carlo standard error of ``elbo``, ``[n]``.
        best_elbo_std_error: The Monte Carlo standard error of ``best_elbo``, ``[n]``.
        log_prob_error: The half-width of a 95% interval for log p(x), ``[n]``, bias included; infinite where
            ``log_prob`` is only a lower bound, and zero if log p(x) was given.
        log_prob_bias: The part of ``log_prob_error`` that does not average out over datapoints, ``[n]``.
        converged: Whether the ELBO of the best q stopped rising, ``[n]``.

    Example:
        >>> gap = evidence.inference_gap(vae.model, vae.guide, x[:2], num_steps=100, lr=0.1, progress=False)
        >>> print(gap)
        log p(x)                                ... +- ...
        ELBO of the best q for each datapoint   ... +- ...
        ELBO                                    ... +- ...
        approximation gap (the family of q)     ...
        amortization gap (its network)          ...
        inference gap                           ... +- ...
        ...
    """

    elbo: Tensor
    best_elbo: Tensor
    log_prob: Tensor
    elbo_std_error: Tensor
    best_elbo_std_error: Tensor
    log_prob_error: Tensor
    log_prob_bias: Tensor
    converged: Tensor

    @property
    def settled(self) -> Tensor:
        """Whether log p(x) is known, ``[n]``, rather than only a lower bound."""
        return self.log_prob_error.isfinite()

    @property
    def approximation(self) -> Tensor:
        """The loss due to the family of q, KL(q* || p(z | x)) of its best q*, ``[n]``; NaN if that was not found."""
        return (self.log_prob - self.best_elbo).masked_fill(~self.converged, torch.nan)

    @property
    def amortization(self) -> Tensor:
        """The loss by a q that is the output of a network, instead of the best one for each datapoint, ``[n]``.

        NaN if the best q was not found.
        """
        return (self.best_elbo - self.elbo).masked_fill(~self.converged, torch.nan)

    @property
    def total(self) -> Tensor:
        """The inference gap, ``[n]``, which is KL(q || p(z | x))."""
        return self.log_prob - self.elbo

    def summary(self) -> str:
        """The means over the datapoints, with 95% errors, the bias of log p(x) included."""
        n, found, settled = len(self.elbo), int(self.converged.sum()), int(self.settled.sum())
        lines = [f"{row.name:<40}{row.words(10)}" for row in self._means]
        lines.append("means in nats, with 95% errors")
        if found < n:
            lines.append(
                f"WARNING: for {n - found} of {n} datapoints the ELBO of the best q was still rising. Both parts of\n"
                "the gap are not known there, and are means over the other datapoints. Take more rounds, more steps,\n"
                "or a larger learning rate."
            )
        if settled < n:
            lines.append(
                f"WARNING: for {n - settled} of {n} datapoints log p(x) is only a lower bound, and so are the\n"
                "approximation gap and the inference gap."
            )
        return "\n".join(lines)

    @property
    def _means(self) -> list[_Mean]:
        """The mean of each quantity over the datapoints for which it is known."""
        every, converged = torch.ones_like(self.converged), self.converged
        elbo, best = self.elbo_std_error, self.best_elbo_std_error
        return [
            self._mean("log p(x)", self.log_prob, every, has_log_prob=True),
            self._mean("ELBO of the best q for each datapoint", self.best_elbo, every, best),
            self._mean("ELBO", self.elbo, every, elbo),
            self._mean("approximation gap (the family of q)", self.approximation, converged, best, has_log_prob=True),
            self._mean("amortization gap (its network)", self.amortization, converged, best, elbo),
            self._mean("inference gap", self.total, every, elbo, has_log_prob=True),
        ]

    def _mean(
        self, name: str, values: Tensor, chosen: Tensor, *std_errors: Tensor, has_log_prob: bool = False
    ) -> _Mean:
        """The mean of values ``[n]`` over chosen datapoints, with these errors, and log p(x)'s if it is a part."""
        if not chosen.any():
            return _Mean(name, math.nan, math.nan)
        mean = values[chosen].mean().item()
        if has_log_prob and not self.settled[chosen].all():
            return _Mean(name, mean, None)
        noise, bias = Z * math.hypot(*(std_error_of_mean(error[chosen]) for error in std_errors)), 0.0
        if has_log_prob:
            bias = self.log_prob_bias[chosen].mean().item()
            noise = math.hypot(noise, std_error_of_mean((self.log_prob_error - self.log_prob_bias)[chosen]))
        return _Mean(name, mean, bias + noise)

    def plot(self) -> Figure:
        """The means of log p(x), best ELBO and ELBO, and both parts of the gap of each datapoint, sorted."""
        log_prob, best, elbo = self._means[:3]
        levels = {"log p(x)": log_prob[1:], "best ELBO": best[1:], "ELBO": elbo[1:]}
        return stacked_gaps(self.amortization.numpy(), self.approximation.numpy(), self.total.numpy(), levels)

    def __repr__(self) -> str:
        *_, approximation, amortization, total = (row.words() for row in self._means)
        return (
            f"InferenceGap(total={total!r}, approximation={approximation!r}, amortization={amortization!r}, "
            f"n={len(self.elbo)}, converged={int(self.converged.sum())})"
        )

    def _repr_html_(self) -> str:
        rows = {f"{row.name}, nats": row.words() for row in self._means}
        found, settled = int(self.converged.sum()), int(self.settled.sum())
        counts = f"{len(self.elbo)}: best q found for {found}, log p(x) known for {settled}"
        return html_table({**rows, "datapoints": counts})


class _Mean(NamedTuple):
    """A mean over datapoints in nats."""

    name: str
    value: float  #: NaN if it is not known.
    error: float | None  #: The half-width of a 95% interval; None if the value is a lower bound.

    def words(self, width: int = 0) -> str:
        """The value with its error."""
        if math.isnan(self.value):
            return "not known"
        if self.error is None:
            return f"at least {self.value:.3f}"
        return f"{self.value:{width}.3f} +- {self.error:.3f}"

"""The ELBO computed in four ways, and whether they agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pyro_vae.evidence.diagnostics.elbo_check.plot import estimates_with_errors
from pyro_vae.evidence.diagnostics.tolerance import MAX_STANDARD_ERRORS
from pyro_vae.html_table import WithSummary, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_SAMPLES = 100  # pairs of a particle and a datapoint; with fewer, 4 standard errors are no rare event


class ElboEstimate(NamedTuple):
    """An estimate of the ELBO, the mean over the datapoints in nats, and its Monte Carlo standard error.

    Example:
        >>> check = evidence.check_elbo(vae.model, vae.guide, x, progress=False)
        >>> check.trace.value < 0 < check.trace.std_error
        True
    """

    value: float
    std_error: float

    def summary(self) -> str:
        """The estimate with its standard error."""
        return f"{self.value:.4f} +- {self.std_error:.4f}"

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return html_table({"ELBO, nats": f"{self.value:.4f}", "standard error": f"{self.std_error:.4f}"})


@dataclass(frozen=True, repr=False)
class ElboCheck(WithSummary):
    """The ELBO computed in four ways, on the same noise.

    Attributes:
        trace: Pyro's ``Trace_ELBO``: log p(x, z) - log q(z | x) at sampled z.
        log_weights: The mean log-weight: the same terms, computed by ``pyro_vae.weights``.
        mean_field: Pyro's ``TraceMeanField_ELBO``: analytic KL where torch has one, else as ``trace``.
        analytic: log p(x | z) at sampled z, minus the KL divergence in closed form: computed here for independent
            normals, else torch's or Pyro's; None if a site has none.
        disagreements: A sentence for each pair that does not agree; empty if all agree.
        mean_field_valid: Whether ``TraceMeanField_ELBO`` estimates the same bound as the log-weights. It does not where
            a site's parents in the model are its descendants in the guide, as in some hierarchies: its analytic KL
            divergences, each given sampled parents, then do not add up to that of all latents.
        num_samples: The number of pairs of a particle and a datapoint.
        seen: The differences that would have been noticed, in nats: between estimates with the same terms, and (98
            times of 100) between a sampled and an analytic KL divergence. Infinite if there are too few samples to
            compare.

    Example:
        >>> check = evidence.check_elbo(vae.model, vae.guide, x, progress=False)
        >>> print(check)
        Pyro Trace_ELBO           ... +- ...
        mean log-weight           ... +- ...
        Pyro TraceMeanField_ELBO  ... +- ...
        analytic KL               ... +- ...
        All estimates of the ELBO agree.
        ...
    """

    trace: ElboEstimate
    log_weights: ElboEstimate
    mean_field: ElboEstimate
    analytic: ElboEstimate | None
    disagreements: tuple[str, ...]
    mean_field_valid: bool = True
    num_samples: int = 0
    seen: tuple[float, float] = (math.inf, math.inf)

    @property
    def passed(self) -> bool:
        """Whether all estimates agree, to rounding if they have the same terms, else within 4 standard errors."""
        return not self.disagreements

    @property
    def estimates(self) -> dict[str, ElboEstimate]:
        """The estimates by name, without the analytic one if there is none."""
        rows = {
            "Pyro Trace_ELBO": self.trace,
            "mean log-weight": self.log_weights,
            "Pyro TraceMeanField_ELBO": self.mean_field,
            "analytic KL": self.analytic,
        }
        return {name: row for name, row in rows.items() if row is not None}

    @property
    def verdict(self) -> str:
        """Whether they agree, in words."""
        lines = list(self.disagreements) or ["All estimates of the ELBO agree.", self._what_was_seen]
        if not self.mean_field_valid:
            lines.append(
                "Pyro's TraceMeanField_ELBO is not valid for these programs, as where a site's parents in the\n"
                "model are its descendants in the guide: it is no bound on log p(x). Use Trace_ELBO."
            )
        return "\n".join(lines)

    @property
    def _what_was_seen(self) -> str:
        """The differences that would have been noticed, in words."""
        rounding, sampling = self.seen
        lines = [
            f"{self.num_samples} samples would have shown a difference of {rounding:.1g} nats where terms are the same"
        ]
        if math.isinf(sampling):
            few = f"take {LEAST_SAMPLES} (particles times datapoints)"
            lines.append(f"and are too few to compare a sampled with an analytic KL divergence: {few}")
        elif sampling != rounding:
            lines.append(f"and one of {sampling:.2g} between a sampled and an analytic KL divergence (98 times of 100)")
        return ",\n".join(lines) + "."

    def summary(self) -> str:
        """The estimates and the verdict."""
        lines = [f"{name:<26}{estimate}" for name, estimate in self.estimates.items()]
        return "\n".join([*lines, self.verdict])

    def plot(self) -> Figure:
        """The estimates with error bars of 4 standard errors, each a row."""
        return estimates_with_errors(self.estimates, MAX_STANDARD_ERRORS)

    def __repr__(self) -> str:
        return (
            f"ElboCheck(passed={self.passed}, log_weights={self.log_weights.summary()!r}, "
            f"mean_field_valid={self.mean_field_valid}, num_samples={self.num_samples})"
        )

    def _repr_html_(self) -> str:
        rows = {f"{name}, nats": estimate.summary() for name, estimate in self.estimates.items()}
        return html_table({**rows, "verdict": self.verdict})

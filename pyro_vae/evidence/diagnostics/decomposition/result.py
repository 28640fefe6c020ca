"""The parts of the ELBO, and the latent units that are active."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from pyro_vae.evidence.diagnostics.decomposition.information_bounds import Bounds
from pyro_vae.evidence.diagnostics.decomposition.plot import rate_and_activity
from pyro_vae.html_table import WithSummary, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEAR = 1.0  # nats below the log of the number of datapoints


@dataclass(frozen=True, repr=False)
class ElboDecomposition(WithSummary):
    """ELBO = reconstruction - mutual information - marginal KL, in nats per datapoint (Hoffman & Johnson 2016).

    q(z), the mean of q(z | x) over the data, depends on which data are meant. ``mutual_information`` and
    ``marginal_kl`` are for these datapoints alone: if there are few, z can tell them all apart, and the mutual
    information is the log of their number. The ``..._bounds`` are for the population from which these are a sample: a
    pair, each end of which holds with 97.5%. With fewer than 10 datapoints or draws nothing is known: the bounds are
    then 0 and infinity.

    Attributes:
        reconstruction: The mean of log p(x | z) under q. Its negative is the distortion (Alemi et al. 2018).
        rate: The mean of KL(q(z | x) || p(z)), from the same draws.
        mutual_information: Between z and the index of the datapoint, under q: at most the log of the number of
            datapoints, and on average a lower bound on the mutual information of z and x (Poole et al. 2019, equation
            12).
        marginal_kl: KL(q(z) || p(z)), where q(z) is the mean of q(z | x) over the datapoints. On average an upper bound
            on what a better prior could save.
        reconstruction_std_error: The Monte Carlo standard error of ``reconstruction``.
        rate_std_error: The Monte Carlo standard error of ``rate``.
        mutual_information_std_error: The standard error of ``mutual_information`` for the choice of the draws, as an
            estimate for these datapoints alone. It does not say how far it is from the mutual information of z and x.
        mutual_information_bounds: Bounds on the mutual information of z and x.
        marginal_kl_bounds: Bounds on KL(q(z) || p(z)), what a better prior could save.
        total_correlation_bounds: Bounds on KL(q(z) || product of q(z_d)), if there is one latent site whose units are
            independent given x; else None.
        activity: For each latent site, the variance over the data of the mean of q(z | x), ``[...]``.
        active: Which latent units are active, by site: those with an activity above 0.01 (Burda et al. 2015, section
            5.2), by four standard errors. With a single datapoint, none.
        inactive: Which units have an activity below 0.01, by four standard errors. Some units may be neither.
        num_datapoints: The number of datapoints.
        num_aggregated: The number of datapoints that q(z) is the mean over, those of ``more`` included.

    Example:
        >>> parts = evidence.decompose_elbo(vae.model, vae.guide, x, progress=False)
        >>> print(parts)
        ELBO ... nats, the mean over 8 datapoints:
          reconstruction, E log p(x | z)       ... +- ...
          minus the rate, KL(q || p(z))        ... +- ...
          ...
        >>> parts.activity["z"].shape  # of each latent unit
        torch.Size([2])
    """

    reconstruction: float
    rate: float
    mutual_information: float
    reconstruction_std_error: float
    rate_std_error: float
    mutual_information_std_error: float
    mutual_information_bounds: Bounds
    marginal_kl_bounds: Bounds
    total_correlation_bounds: Bounds | None
    activity: dict[str, Tensor]
    active: dict[str, Tensor]
    inactive: dict[str, Tensor]
    num_datapoints: int
    num_aggregated: int

    @property
    def elbo(self) -> float:
        """``reconstruction - rate``."""
        return self.reconstruction - self.rate

    @property
    def distortion(self) -> float:
        """``-reconstruction``."""
        return -self.reconstruction

    @property
    def marginal_kl(self) -> float:
        """``rate - mutual_information``."""
        return self.rate - self.mutual_information

    @property
    def collapsed(self) -> bool:
        """Whether more than half of the units of a latent site are inactive."""
        return any(map(_mostly, self.inactive.values()))

    def summary(self) -> str:
        """The parts with their errors and bounds, and the active units, with a warning at posterior collapse."""
        n = self.num_datapoints
        lines = [
            f"ELBO {self.elbo:.3f} nats, " + (f"the mean over {n} datapoints:" if n > 1 else "of one datapoint:"),
            f"  reconstruction, E log p(x | z)    {self.reconstruction:10.3f} +- {self.reconstruction_std_error:.3f}",
            f"  minus the rate, KL(q || p(z))     {self.rate:10.3f} +- {self.rate_std_error:.3f}",
            "  (standard errors of the draws)",
            *self._rate_parts,
        ]
        for name, active in self.active.items():
            unknown = int((~active & ~self.inactive[name]).sum())
            lines.append(f"  active units of {name!r}: {int(active.sum())} of {active.numel()}")
            if unknown:
                lines[-1] += f"; {unknown} more are not known, with so few datapoints and particles"
            if _mostly(self.inactive[name]):
                lines.append(
                    f"  WARNING: posterior collapse: most units of {name!r} do not depend on x. KL warm-up, a minimum\n"
                    "  rate (free bits) or fewer units can prevent it."
                )
        return "\n".join(lines)

    @property
    def _rate_parts(self) -> list[str]:
        """The parts of the rate in words, for the population from which the datapoints are a sample."""
        count, most = self.num_aggregated, math.log(self.num_aggregated)
        if math.isinf(self.mutual_information_bounds.upper):
            return [
                "  The rate is the sum of the mutual information of x and z and the marginal KL(q(z) || p(z)).",
                "  Neither is known with so few datapoints or draws (num_marginal). The mutual information that they",
                f"  can show is at most {most:.3f}, the log of the number of datapoints.",
            ]
        lines = [
            "  The rate is the sum of (95% bounds, for the population from which these are a sample)",
            f"    mutual information of x and z   {self.mutual_information_bounds}",
            f"    marginal KL(q(z) || p(z))       {self.marginal_kl_bounds}, what a better prior could save",
        ]
        if self.total_correlation_bounds is not None:
            lines.append(f"  total correlation of the units    {self.total_correlation_bounds}")
        if self.mutual_information > most - NEAR:
            lines += [
                f"  Note: z tells nearly all of the {count} datapoints apart. The mutual information that so many can",
                f"  show is at most {most:.3f}, the log of their number. The true one may be anywhere up to the upper",
                "  bound, and the marginal KL anywhere down to the lower one. More datapoints (more=) raise it.",
            ]
        return lines

    def plot(self) -> Figure:
        """The rate with its parts and their 95% bounds, and the activity of each latent unit."""
        parts: dict[str, tuple[float, Bounds | None]] = {
            "rate": (self.rate, None),
            "mutual information": (self.mutual_information, self.mutual_information_bounds),
            "marginal KL": (self.marginal_kl, self.marginal_kl_bounds),
        }
        title = f"ELBO {self.elbo:.2f} = reconstruction {self.reconstruction:.2f} - rate {self.rate:.2f} nats"
        return rate_and_activity(parts, self.activity, self.active, self.inactive, title)

    def __repr__(self) -> str:
        units = sum(active.numel() for active in self.active.values())
        active = sum(int(active.sum()) for active in self.active.values())
        return (
            f"ElboDecomposition(elbo={self.elbo:.3f}, reconstruction={self.reconstruction:.3f}, rate={self.rate:.3f}, "
            f"active={active} of {units}, n={self.num_datapoints})"
        )

    def _repr_html_(self) -> str:
        rows = {
            "ELBO, nats": f"{self.elbo:.3f}",
            "reconstruction, E log p(x | z)": f"{self.reconstruction:.3f} +- {self.reconstruction_std_error:.3f}",
            "rate, KL(q || p(z))": f"{self.rate:.3f} +- {self.rate_std_error:.3f}",
            "mutual information of x and z (95%)": str(self.mutual_information_bounds),
            "marginal KL(q(z) || p(z)) (95%)": str(self.marginal_kl_bounds),
        }
        if self.total_correlation_bounds is not None:
            rows["total correlation of the units (95%)"] = str(self.total_correlation_bounds)
        for name, active in self.active.items():
            rows[f"active units of {name}"] = f"{int(active.sum())} of {active.numel()}"
        return html_table({**rows, "datapoints": str(self.num_datapoints)})


def _mostly(units: Tensor) -> bool:
    """Whether more than half of the units are true."""
    return bool(units.double().mean() > 0.5)

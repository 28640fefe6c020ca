"""The ECDF of ranks that should be uniform, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Binomial

from pyro_vae.plots import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COLUMNS = 4
SIMULATIONS = 1000  # of uniform ranks, for the band


def ecdf_panels(ranks: Mapping[str, Tensor], num_draws: int, prob: float) -> Figure:
    """Draws the ECDF of ranks minus that of uniform ranks, with a band: a panel for each name.

    Args:
        ranks: By name, ``[n]``, integers from 0 to num_draws.
        num_draws: The number of draws that the ranks are among.
        prob: The probability that a whole line stays in its band if the ranks are uniform.
    """
    figure, every = panels(len(ranks), MOST_COLUMNS, (3.0, 2.4), (1.0, 0.6), sharex=True, sharey=True)
    n = len(next(iter(ranks.values())))
    low, high = uniform_band(n, num_draws, prob)
    uniform = torch.arange(1, num_draws + 1, dtype=torch.float64) / (num_draws + 1)
    for axes, (name, values) in zip(every, ranks.items(), strict=True):
        ecdf = values.bincount(minlength=num_draws + 1).cumsum(0)[:-1] / n
        axes.fill_between(uniform.numpy(), (low - uniform).numpy(), (high - uniform).numpy(), step="mid", alpha=0.2)
        axes.plot(uniform.numpy(), (ecdf - uniform).numpy(), drawstyle="steps-mid")
        axes.axhline(0.0, color="black", linewidth=0.5)
        axes.set_title(name, fontsize="medium")
    figure.supxlabel("rank / (number of draws + 1)", fontsize="medium")
    figure.supylabel("ECDF - uniform", fontsize="medium")
    return figure


def uniform_band(n: int, num_draws: int, prob: float) -> tuple[Tensor, Tensor]:
    """A band that holds the whole ECDF of n uniform ranks with this probability.

    Its ends are quantiles of the binomial distribution of the ECDF at each rank. Their level is the same at all ranks,
    and is found by simulation (Säilynoja et al. 2022, algorithm 1).

    Returns:
        The lower and the upper end for the ranks from 0 to num_draws - 1, each ``[num_draws]``.
    """
    uniform = torch.arange(1, num_draws + 1, dtype=torch.float64) / (num_draws + 1)
    pmf = Binomial(n, uniform[:, None]).log_prob(torch.arange(n + 1.0, dtype=torch.float64)).exp()  # [num_draws, n + 1]
    at_most = pmf.cumsum(1)
    at_least = 1 - at_most + pmf
    counts = _simulated_counts(n, num_draws)
    tails = torch.minimum(at_most.gather(1, counts), at_least.gather(1, counts)).amin(0)
    level = tails.sort().values[int((1 - prob) * SIMULATIONS)]
    return (at_most < level).sum(1) / n, ((at_least >= level).sum(1) - 1) / n


def _simulated_counts(n: int, num_draws: int) -> Tensor:
    """How many of n uniform ranks are at most 0, 1, ..., num_draws - 1, ``[num_draws, simulations]``."""
    generator = torch.Generator().manual_seed(0)
    above, counts = torch.full((SIMULATIONS,), float(n), dtype=torch.float64), []
    for rank in range(num_draws):
        share = torch.full_like(above, 1 / (num_draws + 1 - rank))
        above = above - torch.binomial(above, share, generator=generator)
        counts.append(n - above)
    return torch.stack(counts).long()

"""Whether ranks are uniform, and in words how they are not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

ORDER = 4  # of the smooth test: shift, width, skewness and tails
LEAST_DRAWS = ORDER  # as many ranks as polynomials, the constant included
NAMED_BEYOND = 2.0  # standard errors; a departure below is not named


def smooth_test(ranks: Tensor, num_draws: int) -> Tensor:
    """The p-values of ranks ``[n, ...]`` under the hypothesis that they are uniform on 0 to num_draws, ``[...]``.

    Neyman's smooth test of order 4 (Rayner, Thas & Best 2009, chapter 4).
    """
    columns = ranks.reshape(len(ranks), -1)
    counts = columns.new_zeros(num_draws + 1, columns.shape[1]).scatter_add_(0, columns, torch.ones_like(columns))
    components = _polynomials(num_draws) @ counts.double() / math.sqrt(len(ranks))
    half = components.square().sum(0) / 2
    return ((1 + half) * (-half).exp()).reshape(ranks.shape[1:])  # the chi-square survival function for ORDER = 4


def _polynomials(num_draws: int) -> Tensor:
    """Orthonormal polynomials of degree 1 to 4 under the uniform distribution on the ranks, ``[4, num_draws + 1]``."""
    powers = torch.linspace(-1, 1, num_draws + 1, dtype=torch.float64) ** torch.arange(ORDER + 1)[:, None]
    return torch.linalg.qr(powers.T).Q.T[1:] * math.sqrt(num_draws + 1)


def departure(ranks: Tensor, num_draws: int) -> str:
    """How the ranks ``[n]`` of a latent coordinate differ from uniform ones, in words."""
    root_n = math.sqrt(len(ranks))
    above, within = _shares(ranks, num_draws)
    _, expected = _shares(torch.arange(num_draws + 1), num_draws)
    shift = (above - 0.5) * 2 * root_n
    spread = (expected - within) / math.sqrt(expected * (1 - expected)) * root_n
    words = []
    # Ranks that pile up at one end leave the central half as well, but never by more than they leave the middle.
    if abs(shift) > max(NAMED_BEYOND, abs(spread) / 2):
        where, side = ("low", "above") if shift > 0 else ("high", "below")
        words.append(f"q lies too {where}: {max(above, 1 - above):.0%} of the true values are {side} its median")
    if abs(spread) > NAMED_BEYOND and (spread < 0 or spread > abs(shift)):
        shape = "narrow (ranks pile up at both ends)" if spread > 0 else "wide (ranks pile up in the middle)"
        words.append(f"q is too {shape}: its central {expected:.0%} holds {within:.0%} of the true values")
    return "; ".join(words) or "q has another shape than the posterior, see the plot"


def density_departure(ranks: Tensor, num_draws: int) -> str:
    """The same for the ranks ``[n]`` of log p(x, z)."""
    above, within = _shares(ranks, num_draws)
    return (
        f"{above:.0%} of the true latents are likelier than q's median draw, {within:.0%} are within q's central half"
    )


def _shares(ranks: Tensor, num_draws: int) -> tuple[float, float]:
    """The shares of ranks in the upper half (the middle rank counts half) and in the central half."""
    place = (ranks + 0.5) / (num_draws + 1)
    above = (place > 0.5).double() + (place == 0.5).double() / 2
    return above.mean().item(), ((place - 0.5).abs() < 0.25).double().mean().item()

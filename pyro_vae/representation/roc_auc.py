"""How well a score tells two classes apart."""

from __future__ import annotations

import torch
from torch import Tensor


def roc_auc(scores: Tensor, positive: Tensor) -> float:
    """The area under the ROC curve: the probability that a positive has a higher score than a negative (Fawcett 2006).

    Ties count a half.

    Args:
        scores: Scores, ``[n]``.
        positive: Which datapoints are positive, ``[n]``.

    Raises:
        ValueError: If there is no positive or no negative, or a score is NaN.

    Example:
        >>> from pyro_vae.representation.roc_auc import roc_auc
        >>> roc_auc(torch.tensor([0.1, 0.4, 0.3, 0.9]), torch.tensor([False, False, True, True]))
        0.75
    """
    positive = positive.bool()
    if positive.all() or not positive.any():
        raise ValueError(f"positive has {int(positive.sum())} of {len(positive)}; expected some, and not all")
    if scores.isnan().any():
        raise ValueError(f"scores has {int(scores.isnan().sum())} values that are NaN; expected numbers")
    scores = scores.double()
    ordered = scores.sort().values
    # Ranks 0.5, 1.5, ...; ties have their mean.
    ranks = (torch.searchsorted(ordered, scores) + torch.searchsorted(ordered, scores, right=True)) / 2
    count = int(positive.sum())
    return (ranks[positive].sum().item() - count**2 / 2) / (count * (len(scores) - count))

"""What an encoder gets of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.nn.kind import Kind


class ColumnFeatures(nn.Module):
    """Standardizes numbers, makes categories into vectors, and calls the network with them.

    A missing value (NaN) is made into zeros. A further feature of each column says whether its value is observed, so
    that the network can tell a gap from a zero (Nazabal et al. 2020, section 2.2, have the zeros alone).

    Args:
        network: Maps features ``[*batch, num_features]`` to any output.
        kinds: One for each column, from ``pyro_vae.likelihoods.columns``: the same as those of the likelihood.
        keep_gaps: Whether the features of a missing value are NaN instead, without features that mark gaps: for
            ``posteriors.ProductOfExperts``.

    Attributes:
        num_features: The number of inputs that the network gets: those of all kinds, and one more for each column
            that marks gaps.

    Example:
        >>> kinds = [likelihoods.columns.Real(2.0), likelihoods.columns.Categorical(3)]
        >>> nn.ColumnFeatures(torch.nn.Identity(), kinds)(torch.tensor([[3.0, torch.nan]]))
        tensor([[1., 0., 0., 0., 1., 0.]])
    """

    def __init__(self, network: nn.Module, kinds: Sequence[Kind], keep_gaps: bool = False) -> None:
        super().__init__()
        self.network = network
        self.kinds = nn.ModuleList(kinds)
        self.keep_gaps = keep_gaps
        self.num_features = sum(kind.num_features for kind in kinds) + (0 if keep_gaps else len(kinds))

    def forward(self, x: Tensor) -> Tensor:
        """Calls the network with the features of x ``[*batch, columns]``."""
        missing = x.isnan()
        kinds: Any = self.kinds
        known = torch.where(missing, 1.0, x)  # a value that every kind has
        gap = torch.nan if self.keep_gaps else 0.0
        parts = [kind.features(known[..., i]).masked_fill(missing[..., i, None], gap) for i, kind in enumerate(kinds)]
        marks = [] if self.keep_gaps else [(~missing).to(x.dtype)]
        return self.network(torch.cat([*parts, *marks], dim=-1))

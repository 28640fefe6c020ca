"""What a kind of column in a table has."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Kind(nn.Module):
    """A kind of column: the distribution of one value, and what an encoder gets of it.

    The kinds of this library are in ``pyro_vae.likelihoods.columns``. The value 1 has to be possible.
    """

    num_parameters: int  #: How many outputs of a network the distribution has.
    num_features: int  #: How many inputs an encoder gets.

    def forward(self, parameters: Tensor) -> Any:
        """Returns the distribution of one value, of batch shape ``[*batch]``, for ``[*batch, num_parameters]``."""
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """What an encoder gets, ``[*batch, num_features]``, for values ``[*batch]``."""
        raise NotImplementedError

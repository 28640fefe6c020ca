"""Values of different kinds side by side: each column has a distribution of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.named_parameters import named_parameters


class Columnwise(TorchDistribution):
    """Independent values: the value in column i has the i-th distribution; all are floating-point numbers.

    Args:
        columns: The distributions, each of batch shape ``[*batch]`` with an empty event shape.
        dtype: That of values.

    Example:
        >>> from torch.distributions import Normal, Poisson
        >>> p = pyro_vae.distributions.Columnwise([Normal(torch.zeros(5), 1.0), Poisson(torch.ones(5))], torch.float32)
        >>> p.batch_shape, p.log_prob(torch.ones(5, 2)).shape
        (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, columns: Sequence[Any], dtype: torch.dtype) -> None:
        self.columns, self.dtype = list(columns), dtype
        batch = torch.broadcast_shapes(*(column.batch_shape for column in columns))
        super().__init__(torch.Size((*batch, len(columns))), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The values that are possible in each column."""
        return ColumnSupports([column.support for column in self.columns])

    @property
    def mean(self) -> Tensor:
        """The mean of each column, ``[*batch, columns]``."""
        return self._stack([column.mean for column in self.columns])

    @property
    def variance(self) -> Tensor:
        """The variance of each column, ``[*batch, columns]``."""
        return self._stack([column.variance for column in self.columns])

    def expand(self, batch_shape: Any, _instance: Any = None) -> Columnwise:
        """The same distributions with a larger batch shape, whose last dimension is the columns."""
        batch = torch.Size(batch_shape)[:-1]
        return Columnwise([column.expand(batch) for column in self.columns], self.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``[*sample_shape, *batch, columns]``."""
        shape = torch.Size(sample_shape)
        return self._stack([column.sample(shape) for column in self.columns], shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of each value ``[..., columns]``, in nats, with respect to its own column's measure."""
        parts = [column.log_prob(value[..., i]) for i, column in enumerate(self.columns)]
        return torch.stack(torch.broadcast_tensors(*parts), dim=-1)

    def named_parameters(self) -> dict[str, Tensor]:
        """The parameters of the columns, ``column0_...`` first."""
        return {
            f"column{i}_{name}": value
            for i, column in enumerate(self.columns)
            for name, value in named_parameters(column).items()
        }

    def _stack(self, parts: Sequence[Tensor], sample_shape: tuple[int, ...] = ()) -> Tensor:
        shape = (*sample_shape, *self.batch_shape[:-1])
        return torch.stack([part.to(self.dtype).expand(shape) for part in parts], dim=-1)


class ColumnSupports(constraints.Constraint):
    """The values that are possible in each column.

    Args:
        columns: The constraints, each on single values.
    """

    def __init__(self, columns: Sequence[Any]) -> None:
        self.columns = list(columns)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each value ``[..., columns]`` is possible."""
        return torch.stack([column.check(value[..., i]) for i, column in enumerate(self.columns)], dim=-1)

    def possible(self, value: Tensor) -> Tensor:
        """A possible value for each column, ``[columns]``: 1, which all kinds of columns have."""
        return value.new_ones(len(self.columns))

    def __repr__(self) -> str:
        return f"columns of [{', '.join(map(str, self.columns))}]"

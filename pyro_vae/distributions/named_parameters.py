"""The parameters of a distribution, by the names that torch and Pyro give them."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import ZeroInflatedDistribution
from torch import Tensor
from torch.distributions import MixtureSameFamily

from pyro_vae.distributions.independent import split_independent

# Of several ways to write the same parameter, the one that is accurate.
_SAME = {
    "probs": "logits",
    "gate": "gate_logits",
    "covariance_matrix": "scale_tril",
    "precision_matrix": "scale_tril",
}


def named_parameters(distribution: Any) -> dict[str, Tensor]:
    """The parameters of a distribution, each ``[*batch, ...]``.

    The names are those of the constructor, such as ``loc`` and ``scale``. Distributions inside others have a prefix:
    ``base_`` for what is transformed, and ``component_`` for the components of a mixture. A distribution may have a
    method ``named_parameters`` of its own.

    Args:
        distribution: A distribution of torch, Pyro or zuko.

    Example:
        >>> from pyro_vae.distributions.named_parameters import named_parameters
        >>> normal = pyro.distributions.Normal(torch.zeros(2, 3), 1.0).to_event(1)
        >>> {name: list(tensor.shape) for name, tensor in named_parameters(normal).items()}
        {'loc': [2, 3], 'scale': [2, 3]}
    """
    base, _ = split_independent(distribution)
    if hasattr(base, "named_parameters"):
        return base.named_parameters()
    if isinstance(base, MixtureSameFamily):
        components = named_parameters(base.component_distribution)
        return {
            "logits": base.mixture_distribution.logits,
            **{f"component_{name}": value for name, value in components.items()},
        }
    constraints = base.arg_constraints
    names = [name for name in constraints if _SAME.get(name) not in constraints]
    own = {name: _expanded(getattr(base, name), base, constraints[name]) for name in names}
    if isinstance(base, ZeroInflatedDistribution):
        return own | named_parameters(base.base_dist)
    inner = getattr(base, "base_dist", getattr(base, "base", None))
    if not own and inner is not None:
        return {f"base_{name}": value for name, value in named_parameters(inner).items()}
    return own


def _expanded(value: Any, distribution: Any, constraint: Any) -> Tensor:
    """A parameter with the batch shape of its distribution; some are kept in a smaller shape."""
    tensor = torch.as_tensor(value)
    event = tensor.shape[tensor.ndim - constraint.event_dim :]
    return tensor.expand(*distribution.batch_shape, *event)

"""Tables: columns of different kinds."""

from __future__ import annotations

from collections.abc import Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.distributions.columnwise import Columnwise
from pyro_vae.nn.kind import Kind


class Columns(nn.Module):
    """The columns of a table, independent given z, each of its own kind (Nazabal et al. 2020, section 3).

    Data are floating-point numbers ``[n, columns]``: categories are numbers 0, 1, 2, ... Densities are in the units of
    the data, whatever the kinds standardize by. For missing values: ``Incomplete(Columns(...))``.

    Args:
        network: Maps latents ``[*batch, latent]`` to ``[*batch, num_parameters]``: the parameters of all columns, one
            after the other.
        kinds: One for each column, from ``pyro_vae.likelihoods.columns``.

    Attributes:
        num_parameters: The number of outputs that the network must have: the sum over the kinds.

    Raises:
        ValueError: If there are no kinds; or (when called) if the network has another number of outputs.

    Example:
        >>> columns = likelihoods.columns
        >>> kinds = [columns.Real(), columns.Categorical(3), columns.Count()]
        >>> p = likelihoods.Columns(nn.mlp(2, [8], 7), kinds)(torch.zeros(4, 2))
        >>> p.batch_shape, p.event_shape
        (torch.Size([4]), torch.Size([3]))
    """

    def __init__(self, network: nn.Module, kinds: Sequence[Kind]) -> None:
        super().__init__()
        if not kinds:
            raise ValueError("kinds is empty; expected one for each column")
        self.network = network
        self.kinds = nn.ModuleList(kinds)
        self.num_parameters = sum(kind.num_parameters for kind in kinds)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[columns]``, for z ``[*batch, latent]``."""
        parameters = self.network(z)
        if parameters.shape[:-1] != z.shape[:-1] or parameters.shape[-1] != self.num_parameters:
            raise ValueError(
                f"the network of Columns maps z of shape {list(z.shape)} to {list(parameters.shape)}; expected "
                f"{[*z.shape[:-1], self.num_parameters]}, the parameters of {len(self.kinds)} columns"
            )
        parts = parameters.split([kind.num_parameters for kind in self.kinds], dim=-1)
        columns = [kind(part) for kind, part in zip(self.kinds, parts, strict=True)]
        return Columnwise(columns, parameters.dtype).to_event(1)

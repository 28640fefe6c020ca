"""A normal posterior with a covariance of low rank plus diagonal."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.checks import check_count
from pyro_vae.distributions.positive_scale import positive_scale
from pyro_vae.system.tracing import validation


class LowRankNormal(nn.Module):
    """q(z | x) = N(loc(x), W(x) W(x)^T + diag(scale(x)^2)), where W has ``rank`` columns (Ong, Nott & Smith 2018).

    A column of W and its negative give the same covariance. If a column has different signs for different data, it is
    zero for some data in between, and training may not correct this; a second column compensates for it.

    Args:
        network: Maps data ``[*batch, *event]`` to ``[*batch, latent * (2 + rank)]``: the locations, the raw scales (as
            in :class:`~pyro_vae.posteriors.Normal`), and the rows of W.
        rank: The number of columns of W, at least 1.

    Raises:
        ValueError: If ``rank`` is not a positive integer; when called, if the network's number of outputs is not a
            multiple of ``2 + rank``.

    Example:
        >>> posterior = posteriors.LowRankNormal(nn.mlp((1, 4, 4), [8], 6), rank=1)  # 2 * (2 + 1) outputs
        >>> posterior(x).event_shape
        torch.Size([2])
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        super().__init__()
        self.network, self.rank = network, check_count("rank", rank)

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Returns q(z | x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``."""
        outputs = self.network(x)
        latent, rest = divmod(outputs.shape[-1], 2 + self.rank)
        if rest:
            raise ValueError(
                f"the network of LowRankNormal has {outputs.shape[-1]} outputs for a datapoint; expected "
                f"latent * (2 + rank), a multiple of {2 + self.rank} for rank {self.rank}"
            )
        loc, raw_scale, factor = outputs.split([latent, latent, latent * self.rank], dim=-1)
        cov_diag = positive_scale(raw_scale).square()
        factor = factor.unflatten(-1, (latent, self.rank))
        return dist.LowRankMultivariateNormal(loc, factor, cov_diag, validate_args=validation())

"""Importance sampling from normals at the modes of p(x, z), which also tells where chains should start."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.evidence.ladder.block import Block
from pyro_vae.evidence.ladder.pilots import MOST_SAMPLES_OF_FEW, PILOT, wanted_samples
from pyro_vae.evidence.results.error_bars import expected_relative_variance
from pyro_vae.evidence.results.methods import LAPLACE
from pyro_vae.evidence.results.running_weights import RunningWeights
from pyro_vae.evidence.unconstrained.laplace_proposal import PRIOR_SHARE, Fit, draw_mixture, log_mixture, refit
from pyro_vae.evidence.unconstrained.log_joint import LogJoint
from pyro_vae.evidence.unconstrained.normal_mixture import FEW_DIMS

PILOT_OF_FEW_DIMS = 1024
# The share of the weight of a pilot that draws from the prior have: above the first, normals may lack a mode; below the
# second, they have all modes. A tenth of the draws are from the prior.
MOST_FROM_PRIOR, LITTLE_FROM_PRIOR = 0.3, 0.02
MOST_OF_ONE = 0.5  # of the weight, for a single draw
MORE_STARTS = 4
AT_ONCE = 128  # samples to draw at once, whatever the chunk size
# If the weights vary more, the normals have missed the flanks of the posterior, and annealing is not more expensive. In
# few dimensions many samples reach everywhere, while chains may not.
MOST_VARIANCE, MOST_VARIANCE_WITH_PRIOR, MOST_VARIANCE_OF_FEW_DIMS = 1.0, 20.0, 100.0
LARGEST_VARIANCE = 1e3  # all above is the same
# Nats. If the data say less about the latents, many samples reach everywhere too, and chains can start from the prior;
# those from a mode may reach only a part of a narrow, curved posterior.
LITTLE_INFORMATION = 12.0


class Laplace:
    """Importance sampling from normals at the modes, for the datapoints of a block where modes were found.

    Args:
        block: The block.
        log_joint: log p(x, z) of the block.
        fit: The normals.

    Attributes:
        fit: The normals, which :meth:`run` may improve.
        is_start: Whether chains may start from the normals, ``[n]``.
        variance: The relative variance of the weights of the normals, ``[n]`` on the CPU; 0 where there are none.
    """

    def __init__(self, block: Block, log_joint: LogJoint, fit: Fit) -> None:
        self.block, self.log_joint, self.fit = block, log_joint, fit
        self.is_start = torch.zeros_like(block.rows, dtype=torch.bool)
        self.variance = torch.zeros(len(block.rows), dtype=torch.float64)
        self.few_dims = log_joint.dims <= FEW_DIMS

    def run(self) -> None:
        """Samples as much as a pilot asks for; where it asks for annealing, the pilot itself is a lower bound."""
        block = self.block
        found = block.rows[self.fit.normals.found]
        if not len(found):
            return
        samples = PILOT_OF_FEW_DIMS if self.few_dims else PILOT[LAPLACE]
        pilot, from_prior, information = self.pilot(found, samples)
        self.variance[found.cpu()] = expected_relative_variance(pilot.moments()).clamp_max(LARGEST_VARIANCE)
        little = (information < LITTLE_INFORMATION) | self.few_dims
        wanted = self._wanted(found, pilot, from_prior, little)
        block.floor.raise_by(found, pilot)
        for count in wanted.unique().tolist():
            index = (wanted == count).nonzero()[:, 0]
            rows = found[index.to(found.device)]
            if count == 0:
                block.report(LAPLACE, rows, pilot.rows(index), samples=samples)
                # A pilot that refuses the method has no error of its own.
                block.columns["error"][rows.cpu()] = torch.inf
            else:
                fresh = self._weights(rows, int(count))[0]
                block.report(LAPLACE, rows, fresh, pilot.rows(index), samples=int(count))
        left = found[(block.is_unsettled(found) & little).to(found.device) & self.fit.complete[found]]
        if len(left) and not block.is_late():
            many = self._weights(left, MOST_SAMPLES_OF_FEW)[0]
            block.report(LAPLACE, left, many, samples=MOST_SAMPLES_OF_FEW)

    def _wanted(self, found: Tensor, pilot: RunningWeights, from_prior: Tensor, little: Tensor) -> Tensor:
        """The number of fresh samples of each row, ``[m]``; 0 for a method further up. Sets ``is_start``."""
        settings = self.block.settings
        # Chains from the normals may miss what draws from the prior have seen, or many samples.
        prior_matters = from_prior > LITTLE_FROM_PRIOR
        most = torch.where(prior_matters, MOST_VARIANCE_WITH_PRIOR, MOST_VARIANCE)
        if self.few_dims:
            most = torch.full_like(most, MOST_VARIANCE_OF_FEW_DIMS)
        wanted = wanted_samples(pilot, settings, most)
        few = settings.variance_for_bias / settings.variance
        wanted = 2 ** (wanted * few).clamp(1, MOST_SAMPLES_OF_FEW).log2().ceil() * (wanted > 0)
        self.is_start[found] = ~((prior_matters & (wanted == 0)) | little).to(found.device)
        return torch.where(self.fit.complete[found].cpu(), wanted, 0)

    def pilot(self, found: Tensor, samples: int) -> tuple[RunningWeights, Tensor, Tensor]:
        """A pilot, the share of its weight that draws from the prior have, and its KL(p(z | x) || p(z)), ``[m]``.

        If this share is large, or if one draw has most of the weight, the normals may lack a mode: then the search for
        modes is repeated from the draws with the largest weights.
        """
        pilot, position, share, likelihood = self._weights(found, samples)
        from_prior = round(PRIOR_SHARE * len(position))
        is_unseen = (share[:from_prior].sum(0) > MOST_FROM_PRIOR) | (share.amax(0) > MOST_OF_ONE)
        if self.few_dims:  # where it is cheap
            is_unseen |= (expected_relative_variance(pilot.moments()) > MOST_VARIANCE).to(is_unseen.device)
        unseen = is_unseen.nonzero()[:, 0]
        if len(unseen) and self.block.is_late():
            self.fit.complete[found[unseen]] = False
        elif len(unseen):
            best = share[:, unseen].topk(MORE_STARTS, dim=0).indices
            starts = position[:, unseen].take_along_dim(best[..., None], 0)
            self.fit = refit(self.log_joint, self.fit, found[unseen], starts)
            again, _, share[:, unseen], likelihood[:, unseen] = self._weights(found[unseen], samples)
            pilot = pilot.updated(unseen, again)
        information = (share * likelihood).nan_to_num(0.0).sum(0).cpu() - pilot.log_mean.cpu()
        return pilot, share[:from_prior].sum(0).cpu(), information

    @torch.no_grad()
    def _weights(self, rows: Tensor, count: int) -> tuple[RunningWeights, Tensor, Tensor, Tensor]:
        """Weights of draws from normals and prior; the last positions, their shares of the weight, log p(x | z)."""
        normals, running = self.fit.normals.rows(rows), RunningWeights(len(rows), count, rows.device)
        for done in range(0, count, AT_ONCE):
            position = draw_mixture(self.log_joint, normals, rows, min(AT_ONCE, count - done))
            log_prior, joint = self.log_joint.densities(position, rows)
            log_weights = (joint - log_mixture(normals, position, log_prior)).double()
            log_weights = log_weights.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            running.update(log_weights)
        return running, position, log_weights.softmax(0).nan_to_num(0.0), (joint - log_prior).double()

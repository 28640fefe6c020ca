"""The methods that `estimate` tries on a block of datapoints, one after the other, each only where it is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae.evidence.ladder.annealing import Annealing
from pyro_vae.evidence.ladder.block import Block
from pyro_vae.evidence.ladder.contradiction import Floor
from pyro_vae.evidence.ladder.laplace import Laplace
from pyro_vae.evidence.ladder.pilots import PILOT
from pyro_vae.evidence.ladder.settings import Settings
from pyro_vae.evidence.ladder.upper_bound import upper_bound, upper_bound_without_gradients
from pyro_vae.evidence.ladder.without_gradients import without_gradients
from pyro_vae.evidence.results.methods import ANNEALED, FROM_PRIOR, GUIDE, LAPLACE
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained.approximate_likelihood import informed
from pyro_vae.evidence.unconstrained.laplace_proposal import fit_block
from pyro_vae.evidence.unconstrained.log_joint import FastDensities, LogJoint
from pyro_vae.weights import terms

SAMPLES_OF_GUIDE = 1024  # where no method knows its error


class Ladder:
    """The estimates of a block of datapoints.

    Pilots decide what to do. What is reported comes from fresh draws.

    Args:
        programs: Model and guide.
        x: The block, ``[n, *event]``.
        settings: The accuracy to aim at.
        deadline: When to stop climbing, by ``time.monotonic``.
        fast: Makes the densities fast, once for all blocks that share it.

    Attributes:
        block: The best estimates so far.
        log_joint: log p(x, z) of the block; None if it has no gradients.
        laplace: The normals; None before :meth:`climb`.
        annealing: The annealed chains; None before :meth:`climb`.
    """

    def __init__(
        self,
        programs: Programs,
        x: Tensor,
        settings: Settings,
        deadline: float = math.inf,
        fast: FastDensities | None = None,
    ) -> None:
        self.block = Block(programs, x, settings, deadline)
        self.columns = self.block.columns  # the best estimates so far
        self.laplace: Laplace | None = None
        self.annealing: Annealing | None = None
        try:
            self.log_joint: LogJoint | None = LogJoint(programs.model, x, programs.layout, programs.chunk_size, fast)
        except ValueError:  # discrete, or on a sphere: no gradients
            self.log_joint = None

    def climb(self) -> dict[str, Tensor]:
        """Estimates log p(x) of every datapoint; returns the columns, by the names of the fields of ``Evidence``."""
        if self.log_joint is None:
            without_gradients(self.block)
        else:
            self._with_gradients(self.log_joint)
        return self.columns

    def estimates(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """As :meth:`climb`, if every datapoint has an estimate.

        Args:
            indices: The indices of the datapoints, for the error message.

        Raises:
            ValueError: If no method has a weight that is finite and positive for a datapoint.
        """
        columns = self.climb()
        missing = ~columns["log_prob"].isfinite()
        if missing.any():
            index = indices[int(missing.nonzero()[0])]
            raise ValueError(
                f"datapoint {index} has no weight that is finite and positive, by any method; "
                "check the log-densities of model and guide there"
            )
        return columns

    def _with_gradients(self, log_joint: LogJoint) -> None:
        block = self.block
        with block.timed(GUIDE):
            guided = Floor(len(block.rows))
            guided.raise_by(block.rows, block.weigh(terms, PILOT[GUIDE]))
            block.floor.value = guided.value.clone()
        with block.timed(LAPLACE):
            log_joint = informed(log_joint, block.programs.guide)
            self.laplace = Laplace(block, log_joint, fit_block(log_joint, block.programs.guide, block.is_late))
            self.laplace.run()
        self.annealing = Annealing(block, log_joint, self.laplace.fit.normals, self.laplace.variance)
        for method in (ANNEALED, FROM_PRIOR):
            rows = block.unsettled
            if method == ANNEALED:
                rows = rows[self.laplace.is_start[rows]]
            if len(rows) and not block.is_late():
                with block.timed(method):
                    self.annealing.run(method, rows)
        with block.timed(GUIDE):
            self._guide_where_it_is_higher(guided)

    def _guide_where_it_is_higher(self, guided: Floor) -> None:
        """Reports samples from the guide where no method knows its error, and a pilot of the guide was far higher.

        They are a lower bound too, since a guide does not know what it misses.
        """
        block = self.block
        log_prob, error = (block.columns[name] for name in ("log_prob", "error"))
        is_higher = error.isinf() & (guided.value > log_prob.nan_to_num(-torch.inf))
        rows = block.rows[is_higher.to(block.rows.device)]
        if len(rows) and not block.is_late():
            weights = block.weigh(terms, SAMPLES_OF_GUIDE).rows(rows)
            block.report(GUIDE, rows, weights, samples=SAMPLES_OF_GUIDE, doubtful=is_higher[is_higher])

    def upper_bound(self, latents: dict[str, Tensor]) -> Tensor:
        """An upper bound on log p(x) on average, ``[n]``, from exact draws of the posterior, by site ``[n, ...]``."""
        if self.laplace is None or self.annealing is None:
            return upper_bound_without_gradients(self.block, latents)
        return upper_bound(self.block, self.laplace, self.annealing, latents)

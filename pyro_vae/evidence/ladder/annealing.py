"""Annealed chains from the normals or from the prior, with as many temperatures as each datapoint needs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vae.evidence.ladder.block import Block
from pyro_vae.evidence.ladder.laplace import MOST_VARIANCE
from pyro_vae.evidence.ladder.settings import MARGIN
from pyro_vae.evidence.results.methods import ANNEALED, FROM_PRIOR
from pyro_vae.evidence.results.running_weights import RunningWeights
from pyro_vae.evidence.unconstrained.annealed_path import (
    AnnealedPath,
    FromNormals,
    FromPrior,
    Schedule,
    sigmoid_schedule,
)
from pyro_vae.evidence.unconstrained.log_joint import LogJoint
from pyro_vae.evidence.unconstrained.normal_mixture import NormalMixture

NUM_CHAINS, LAST_CHAINS, MOST_CHAINS = 16, 64, 256
# More chains with fewer temperatures cost as much as few chains with many temperatures, and take less time: the last
# datapoints of a block are few, and they then need fewer steps.
MANY_TEMPERATURES, MORE_CHAINS = 64, 4
NUM_LEAPFROG = {ANNEALED: 1, FROM_PRIOR: 3}
FEWEST_TEMPERATURES = {ANNEALED: 24, FROM_PRIOR: 128}
PILOT_TEMPERATURES = {ANNEALED: 16, FROM_PRIOR: 48}
UNKNOWN = 1e9  # temperatures, if the pilot has no variance
# Chains whose weights vary less than this share of what those of the normals let expect have never left the normals.
STUCK, NEVER_MOVED = 0.3, 0.01


class Annealing:
    """Annealed importance sampling for some datapoints of a block.

    Args:
        block: The block.
        log_joint: log p(x, z) of the block.
        normals: The normals at the modes.
        variance: The relative variance of the weights of the normals, ``[n]`` on the CPU.

    Attributes:
        paths: For each method that was tried: its rows, their path, and the schedule from the pilot.
    """

    def __init__(self, block: Block, log_joint: LogJoint, normals: NormalMixture, variance: Tensor) -> None:
        self.block, self.log_joint, self.normals, self.variance = block, log_joint, normals, variance
        self.paths: dict[int, tuple[Tensor, AnnealedPath, Schedule]] = {}

    def run(self, method: int, rows: Tensor) -> None:
        """Chains with as many temperatures as a pilot asks for; twice as many of both where they were too few."""
        path, schedule = self.pilot(method, rows)
        self.paths[method] = rows, path, schedule
        block, settings = self.block, self.block.settings
        most = settings.max_temperatures
        fewest = min(FEWEST_TEMPERATURES[method], most)
        variance = schedule.variance.cpu() * schedule.num_temperatures  # about the same for any number of temperatures
        wanted = variance / math.log1p(MARGIN * NUM_CHAINS * settings.variance_for_bias)
        wanted = wanted.nan_to_num(UNKNOWN, UNKNOWN).ceil()
        chains = math.ceil(NUM_CHAINS * settings.variance_for_bias / settings.variance)
        easy = wanted <= MANY_TEMPERATURES
        for part, more in ((easy, 1), (~easy, MORE_CHAINS)):
            left = part.nonzero()[:, 0]
            temperatures = (wanted / more).ceil().clamp(fewest, most).long()
            while len(left) and not block.is_late():
                number = min(more * chains, MOST_CHAINS)
                is_last = temperatures[left] >= most
                for some, count in ((left[~is_last], number), (left[is_last], max(number, LAST_CHAINS))):
                    if len(some):
                        self.run_chains(method, some, temperatures[some], count)
                # With as many temperatures again, chains whose weights vary too much would be repeated until by chance
                # those with the large weights are missing.
                left = left[~is_last]
                left = left[block.is_unsettled(rows[left]) & ~block.contradicted[rows[left].cpu()]]
                temperatures, more = (2 * temperatures).clamp_max(most), 2 * more

    def pilot(self, method: int, rows: Tensor) -> tuple[AnnealedPath, Schedule]:
        """The path of some rows, and its temperatures and step sizes."""
        steps = PILOT_TEMPERATURES[method]
        if method == FROM_PRIOR:
            path = AnnealedPath(FromPrior(self.log_joint, rows), NUM_LEAPFROG[method])
            return path, path.pilot(steps, sigmoid_schedule(steps))
        path = AnnealedPath(FromNormals(self.log_joint, self.normals, rows), NUM_LEAPFROG[method])
        return path, path.pilot(steps, [t / steps for t in range(steps + 1)])

    def run_chains(self, method: int, index: Tensor, num_temperatures: Tensor, num_chains: int) -> None:
        """Runs chains along the path of a method, for some of its rows ``[m]``, and reports their estimates."""
        rows, path, schedule = self.paths[method]
        index = index.to(rows.device)
        resized = schedule.rows(index).resized(num_temperatures.to(rows.device))
        annealed = path.some(index).forward(num_chains, resized)
        weights = RunningWeights(len(index), num_chains, rows.device)
        weights.update(annealed.log_weights.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf))
        # If the weights of the normals vary, chains that see nothing but the normals are wrong.
        moved = annealed.log_weights.var(0).cpu() * num_temperatures
        variance = self.variance[rows[index].cpu()]
        expected = torch.log1p(variance)
        stuck = (moved < STUCK * expected) & (variance > MOST_VARIANCE) & (method == ANNEALED)
        self.block.report(
            method,
            rows[index],
            weights,
            samples=num_chains,
            num_temperatures=num_temperatures,
            acceptance=annealed.acceptance.double().cpu(),
            doubtful=stuck,
        )
        self.block.contradicted[rows[index].cpu()] |= stuck & (moved < NEVER_MOVED * expected)

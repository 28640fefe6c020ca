"""What all functions of evidence share: running the programs on all datapoints, block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.runner.chunks import Allocations, fitting_chunk_size
from pyro_vae.evidence.runner.progress import Compute, block_seed, compute_rest, interrupted, kept_where
from pyro_vae.evidence.runner.resume_file import DAMAGED, Kept, ResumeFile
from pyro_vae.processes import Processes, of_the_first
from pyro_vae.programs.few_rows import is_large, on_few_rows, rows_at_once
from pyro_vae.programs.inputs import by_row
from pyro_vae.system.grad_mode import differentiable
from pyro_vae.system.lock import locked
from pyro_vae.system.progress import Progress, shown
from pyro_vae.system.randomness import generators_kept, reseed, seeded
from pyro_vae.weights import Program, checked_trace_pair, log_densities, sample_sites, trace_pair

Result = TypeVar("Result")

FEW = 16  # rows to run, to see whether rows depend on each other, and for the fingerprint of a proposal


class Programs:
    """A model, a guide and their data, checked by running both once on all data.

    Large data are taken in parts, if the programs allow it. The random generators are left as they were.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, as for :func:`~pyro_vae.evidence.estimate`.
        chunk_size: The number of (particle, datapoint) pairs to compute at once. By default it suits the programs and
            the device, judged by what the programs allocate in this one run.
        progress: Whether :meth:`run` shows a bar; or a function that wraps the blocks left to do.
        keep: A file for the finished blocks of :meth:`run`. If it exists, the run resumes from it.
        processes: The processes that share the blocks. All make the same call, and get the whole result.

    Attributes:
        model: The model as a program of one tensor: see :func:`~pyro_vae.programs.inputs.by_row`.
        guide: The guide as a program of one tensor.
        x: The tensor that both are called with, ``[n, *event]``.
        layout: The dimensions of the sites that belong to datapoints and to particles.
        chunk_size: The number of pairs to compute at once.
        dtype: The dtype of the log-densities.
        latent_size: The number of latent values of a datapoint.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, or their sites do
            not match.
        Interrupted: At Ctrl-C.
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        x: Any,
        chunk_size: int | None = None,
        progress: Progress = True,
        keep: str | Path | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.progress, self.keep, self.processes = progress, keep, processes
        self.model, self.guide, x = by_row(model, guide, x)
        self.x = x = differentiable(check_rows(x))
        if chunk_size is not None:
            check_count("chunk_size", chunk_size)
        try:
            if not (is_large(x) and self._look_at_parts()):
                self._look(x)
        except KeyboardInterrupt as interrupt:
            raise interrupted(0, len(x)) from interrupt
        self.dtype = self._log_densities.dtype
        if chunk_size is not None:
            self.chunk_size = int(chunk_size)

    @torch.no_grad()
    def _look(self, x: Tensor) -> bool:
        """Runs the programs once, on all data or on some rows, and keeps layout, densities and sizes."""
        few = min(FEW, len(x) - 1)
        with seeded(0, x.device), Allocations(len(x)) as allocations:
            model_trace, guide_trace, self.layout = checked_trace_pair(self.model, self.guide, x)
            # On fixed noise, so that they identify these programs and data.
            self._log_densities = log_densities(model_trace, guide_trace, self.layout)
            self._last_rows = x[len(x) - few :]
            self._last_values = {
                name: site["value"].narrow(self.layout.data_dim - site["fn"].event_dim, len(x) - few, few).clone()
                for name, site in sample_sites(guide_trace)
            }
        self.latent_size = sum(site["value"].numel() for _, site in sample_sites(guide_trace)) // len(x)
        self.chunk_size = fitting_chunk_size(allocations, x.device)
        return True

    @torch.no_grad()
    def _look_at_parts(self) -> bool:
        """The same in little memory: first a few rows, then all, part by part. Returns whether this works."""
        x = self.x
        if not on_few_rows(self._look, x) or not self._rows_are_independent():
            return False
        self.independent = True
        with seeded(0, x.device):
            parts = [
                log_densities(*checked_trace_pair(self.model, self.guide, part)) for part in x.split(rows_at_once(x))
            ]
        self._log_densities = torch.cat(parts, dim=-1)
        return True

    @cached_property
    def independent(self) -> bool:
        """Whether the densities of a row do not depend on the other rows.

        This holds for an amortized guide, but not if each row has its own parameters, or with batch statistics. The
        test runs the programs on the last few rows alone, at the values that were drawn with all of x.
        """
        return len(self.x) == 1 or self._rows_are_independent()

    def blocks(self, rows: int) -> tuple[Tensor, ...]:
        """Splits the data into blocks of this number of rows if rows are independent; otherwise returns one block."""
        return self.x.split(rows) if len(self.x) > rows and self.independent else (self.x,)

    @torch.no_grad()
    def _rows_are_independent(self) -> bool:
        x = self._last_rows
        model, guide = (poutine.condition(program, data=self._last_values) for program in (self.model, self.guide))
        with generators_kept(x.device), pyro.validation_enabled(False):
            try:
                alone = log_densities(*trace_pair(model, guide, x), self.layout)
            except Exception:  # programs that need all rows may raise anything
                return False
        # float32 rounds differently when matrices have other sizes.
        together = self._log_densities[:, -len(x) :]
        return alone.shape == together.shape and torch.allclose(alone, together, rtol=1e-5, atol=1e-3)

    @torch.no_grad()
    def fingerprint(self, proposal: Proposal) -> Tensor:
        """Numbers that identify a proposal: log-weights of the first rows on fixed noise, ``[rows]``."""
        x = self.blocks(FEW)[0]
        with seeded(0, x.device), pyro.validation_enabled(False):
            return self.log_weights(proposal, x, 1)[0]

    def log_weights(self, proposal: Proposal, x: Tensor, num_particles: int) -> Tensor:
        """Log-weights of draws from a proposal for some of the datapoints, ``[particles, n]``."""
        return proposal(self.model, self.guide, x, num_particles, self.layout).log_weights

    def run(
        self,
        compute: Compute,
        finish: Callable[[dict[str, Tensor]], Result],
        *,
        rows: int,
        settings: Mapping[str, Any],
        proposal: Proposal | None = None,
        description: str = "log p(x)",
    ) -> Result:
        """Computes columns block by block, and makes the result from them.

        One number is drawn from torch's generator: the seed of all blocks.

        Args:
            compute: Called with a block and the index of its first datapoint, without Pyro's validation. Returns
                tensors ``[rows, ...]`` by name.
            finish: Makes the result from these tensors, concatenated over the blocks, on the CPU. At Ctrl-C it gets
                the finished datapoints, from the first one.
            rows: The number of datapoints in a block, if the programs allow blocks.
            settings: The settings that change the result, by name: numbers, strings, None or tensors. A file of a run
                with other settings is refused.
            proposal: The proposal that draws the samples, if it changes the result too.
            description: The text of the bar.

        Raises:
            Interrupted: At Ctrl-C, with the result for the finished datapoints; None if there are none.
            ValueError: If the file is damaged, or of another run.
            OSError: If the file cannot be written, or another run is using it.
        """
        n, device = len(self.x), self.x.device
        kept = Kept(int(torch.randint(2**63 - 1, ())))
        keeper: ResumeFile | None = None  # only the first process reads and writes it
        # To leave inference mode enables gradients.
        with torch.inference_mode(False), torch.no_grad(), generators_kept(device), ExitStack() as stack:

            def begin() -> tuple[int, dict[str, Tensor]]:
                nonlocal keeper
                if self.keep is None:
                    return kept.seed, {}
                fingerprints = {"programs": self._log_densities}
                if proposal is not None:
                    fingerprints["proposal"] = self.fingerprint(proposal)
                keeper = ResumeFile(Path(self.keep), n, settings, fingerprints)
                stack.enter_context(locked(keeper.path))
                found = keeper.load()
                if found is None:
                    keeper.save(kept)  # fails now if the file cannot be written
                return (found or kept).seed, (found or kept).columns

            def result() -> Result:
                reseed(block_seed(kept.seed, n), device)
                return finish(kept.columns)

            try:
                kept = Kept(*of_the_first(begin, self.processes))
                found = kept.done
                show = partial(shown, self.progress, description=description)
                with pyro.validation_enabled(False):
                    compute_rest(compute, self.blocks(rows), kept, device, show, keeper, self.processes)
            except KeyboardInterrupt as interrupt:
                where, of_finished = kept_where(keeper, kept), None
                with suppress(KeyboardInterrupt):  # a second Ctrl-C
                    of_finished = result() if kept.done else None
                raise interrupted(kept.done, n, where, of_finished) from interrupt
            try:
                return result()
            except KeyboardInterrupt as interrupt:
                raise interrupted(n, n, kept_where(keeper, kept)) from interrupt
            except (LookupError, TypeError, RuntimeError) as error:
                if keeper is None or kept.done > found:
                    raise
                raise ValueError(f"{keeper.path} {DAMAGED}: {error}") from error

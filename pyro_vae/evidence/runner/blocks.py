"""What all estimators share: how the programs are run on all datapoints, block by block, to an end or to Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.runner.chunks import Allocations, fitting_chunk_size
from pyro_vae.evidence.runner.progress import Compute, interrupted, over_blocks
from pyro_vae.evidence.runner.resume_file import ResumeFile
from pyro_vae.processes import Processes
from pyro_vae.programs.few_rows import is_large, on_few_rows, rows_at_once
from pyro_vae.system.grad_mode import differentiable
from pyro_vae.system.progress import Progress
from pyro_vae.system.randomness import generators_kept, reseed
from pyro_vae.weights import Program, checked_trace_pair, log_densities, sample_sites, trace_pair

__all__ = ["Programs"]

Result = TypeVar("Result")

# So many rows are looked at to find out whether rows depend on each other, and what a proposal does.
FEW = 16


class Programs:
    """A model and a guide with the data they are to be run on, checked by running both once on all of them.

    Large data are taken in parts, if the programs allow it. Random generators are left as they were.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``.
        chunk_size: The number of (particle, datapoint) pairs to compute at once; by default what suits programs and
            device, from what they allocate in this one run.

    Attributes:
        layout: Where datapoints and particles lie among the dimensions of the sites.
        chunk_size: The number of pairs to compute at once.
        dtype: That of the log-densities.
        latent_size: The number of latent values of a datapoint.

    Raises:
        TypeError: If x is not a tensor, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, or their sites do
            not match.
        Interrupted: At Ctrl-C.
    """

    def __init__(self, model: Program, guide: Program, x: Tensor, chunk_size: int | None = None) -> None:
        self.model, self.guide, self.x = model, guide, differentiable(check_rows(x))
        x = self.x
        if chunk_size is not None:
            check_count("chunk_size", chunk_size)
        self._independent: bool | None = None
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
        """Runs the programs once, on all data or on some rows, and notes what they are like."""
        few = min(FEW, len(x) - 1)
        with generators_kept(x.device), Allocations(len(x)) as allocations:
            reseed(0, x.device)
            model_trace, guide_trace, self.layout = checked_trace_pair(self.model, self.guide, x)
            # Of a run on fixed noise, so that they tell these programs and data from others.
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
        """The same in little memory: on a few rows, and then on all, part by part. False if that cannot be done."""
        x = self.x
        if not on_few_rows(self._look, x) or not self._rows_are_independent():
            return False
        self._independent = True
        with generators_kept(x.device):
            reseed(0, x.device)
            parts = [
                log_densities(*checked_trace_pair(self.model, self.guide, part)) for part in x.split(rows_at_once(x))
            ]
        self._log_densities = torch.cat(parts, dim=-1)
        return True

    def blocks(self, rows: int) -> tuple[Tensor, ...]:
        """Splits the data into blocks of so many rows, if the programs allow it; else gives them as one block.

        They allow it if what they say of a row does not depend on the others. That is so for an amortized guide, and
        not if each row has parameters of its own, or with batch statistics. It is found out by running the programs on
        the last few rows alone, at the values drawn with all of x.
        """
        if len(self.x) <= rows:
            return (self.x,)
        if self._independent is None:
            self._independent = self._rows_are_independent()
        return self.x.split(rows) if self._independent else (self.x,)

    @torch.no_grad()
    def _rows_are_independent(self) -> bool:
        x = self._last_rows
        model, guide = (poutine.condition(program, data=self._last_values) for program in (self.model, self.guide))
        with generators_kept(x.device), pyro.validation_enabled(False):
            try:
                alone = log_densities(*trace_pair(model, guide, x), self.layout)
            except Exception:  # whatever the programs raise that want all rows
                return False
        # The tolerance is what float32 loses where matrices of other sizes are multiplied.
        together = self._log_densities[:, -len(x) :]
        return alone.shape == together.shape and torch.allclose(alone, together, rtol=1e-5, atol=1e-3)

    @torch.no_grad()
    def fingerprint(self, proposal: Proposal) -> Tensor:
        """A few numbers that change with a proposal: log-weights on fixed noise, of the first rows, ``[rows]``."""
        x = self.blocks(FEW)[0]
        with generators_kept(x.device), pyro.validation_enabled(False):
            reseed(0, x.device)
            return proposal(self.model, self.guide, x, 1, self.layout).log_weights[0]

    def run(
        self,
        compute: Compute,
        finish: Callable[[dict[str, Tensor]], Result],
        *,
        rows: int,
        settings: Mapping[str, Any],
        proposal: Proposal | None = None,
        progress: Progress = True,
        description: str = "log p(x)",
        keep: str | Path | None = None,
        processes: Processes | None = None,
    ) -> Result:
        """Computes what is wanted of each block of datapoints, and makes the result of it: see :func:`over_blocks`.

        Args:
            compute: Called with a block and the index of its first datapoint, without Pyro's validation; returns
                tensors ``[rows, ...]`` by name.
            finish: Makes the result of these tensors, each concatenated over the blocks, on the CPU. At Ctrl-C they are
                those of the datapoints that were done, the first ones.
            rows: The number of datapoints in a block, if the programs allow blocks.
            settings: What changes the result, by name: numbers, strings, None or tensors. The file of a run with others
                is refused.
            proposal: What the samples are drawn by, if that changes the result too.
            progress: Whether to show a bar, or what wraps the blocks that are left to do.
            description: What the bar says.
            keep: A file to keep what is done in.
            processes: Those that share the blocks of datapoints.

        Raises:
            Interrupted: At Ctrl-C, with the result for the datapoints that were done.
            ValueError: If the file is damaged, none of ours, or of another run.
            OSError: If the file cannot be written, or another run is using it.
        """

        def file() -> ResumeFile:
            fingerprints = {"programs": self._log_densities}
            if proposal is not None:
                fingerprints["proposal"] = self.fingerprint(proposal)
            return ResumeFile(Path(keep), len(self.x), settings, fingerprints)  # type: ignore[arg-type]

        with torch.inference_mode(False):
            return over_blocks(
                compute,
                partial(self.blocks, rows),
                finish,
                n=len(self.x),
                device=self.x.device,
                progress=progress,
                description=description,
                file=None if keep is None else file,
                processes=processes,
            )

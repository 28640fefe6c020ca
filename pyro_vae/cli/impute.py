"""``pyro-vae impute``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyro_vae
from pyro_vae.checks import check_count
from pyro_vae.cli.columns_file import as_npy
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.on_run import OnRun
from pyro_vae.cli.run_files import rows_of, seen_of, table_of
from pyro_vae.saving.file_names import checkpoint_of
from pyro_vae.system.files import replace, writable_folder


@dataclass(frozen=True, kw_only=True)
class Impute(OnRun):
    """Fills in missing values with means.

    In tables, counts and ordered categories get medians, and other categories the most probable one.
    """

    out: Path
    """File for the filled data: .csv for tables, .npy for arrays."""
    intervals: Annotated[float | None, by_default("none")] = None
    """For tables: also write intervals of this probability, to files whose names end in _lower and _upper."""
    draws: int = 100
    """Number of posterior draws, for medians and intervals."""
    seed: int = 0
    """Random seed."""

    def __call__(self) -> None:
        """Fills in the missing values.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If an option is invalid, or the data do not fit the VAE.
            OSError: If a file cannot be written or read.
        """
        check_count("--draws", self.draws)
        if self.intervals is not None and not 0 < self.intervals < 1:
            raise ValueError(f"--intervals is {self.intervals}; expected a number between 0 and 1")
        checkpoint_of(self.run)
        table = table_of(self.run)
        expected = ".csv" if table is not None else ".npy"
        if self.out.suffix != expected:
            raise ValueError(f"--out is {str(self.out)!r}; expected a file {expected}")
        if table is None and self.intervals is not None:
            raise ValueError(f"--intervals is {self.intervals}, and the run is not of a table; leave it out")
        vae, data = self.open()
        import torch

        writable_folder(self.out.parent)
        num_samples = max(self.draws, 1000)
        torch.manual_seed(self.seed)
        if table is None:
            x, _ = rows_of(seen_of(self.run, data, self.data), data, "all", slice, vae)
            x = x.to(next(vae.parameters()).device)
            result = pyro_vae.evidence.impute(vae.model, vae.guide, x, num_samples=num_samples)
            print(result.summary())
            self._write(self.out, as_npy(result.x))
            return
        from pyro_vae.tables import fill_table

        frame = pyro_vae.data.read_frame(str(data.data))
        filled = fill_table(
            table,
            vae.model,
            vae.guide,
            frame,
            num_draws=self.draws,
            probability=self.intervals or 0.9,
            num_samples=num_samples,
        )
        print(filled.summary())
        self._write(self.out, filled.frame.to_csv(index=False).encode())
        for name, ends in (("lower", filled.lower), ("upper", filled.upper)):
            if self.intervals is not None:
                self._write(self.out.with_stem(f"{self.out.stem}_{name}"), ends.to_csv(index=False).encode())

    def _write(self, path: Path, content: bytes) -> None:
        replace(path, content)
        print(f"wrote {path}")

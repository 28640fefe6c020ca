"""``pyro-vae score``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from tyro.conf import Positional, arg

from pyro_vae import evidence, load
from pyro_vae.cli.columns_file import write_columns
from pyro_vae.cli.data import Data
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.run_files import data_of, folder_of, rows_of, seen_of
from pyro_vae.representation.roc_auc import roc_auc
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder

__all__ = ["Score"]


@dataclass(frozen=True)
class Score:
    """Writes scores of each datapoint: log p(x) with its error, reconstruction, and the likelihood regret.

    The higher an anomaly score, the less a datapoint is like the training data: -log p(x); the reconstruction error,
    -log p(x | z) at the code of x; and the likelihood regret (Xiao et al. 2020), by how much the ELBO rises if q(z | x)
    is fitted to x alone.
    """

    run: Positional[Path]
    """Folder of the run, to use its best weights; or one of its checkpoint files."""
    data: Annotated[Data, arg(name="")]
    split: Literal["all", "test", "valid", "train"] = "all"
    """Which part of the data to score."""
    limit: Annotated[int | None, by_default("all")] = None
    """Number of datapoints to use, from the first one."""
    regret: bool = False
    """Compute the likelihood regret, which takes an optimization for each datapoint."""
    anomaly: Annotated[int | None, by_default("none")] = None
    """Class (0, 1, 2, ... in the order of the labels) of the anomalies, for the area under the ROC curve."""
    out: Annotated[Path | None, by_default("scores.csv in the folder of the run")] = None
    """File for the scores, .csv."""
    tolerance: float = 0.05
    """Upper limit, in nats, of the bias of each log p(x)."""
    seed: int = 0
    """Random seed."""
    device: Annotated[str | None, by_default("the GPU if there is one")] = None
    """Device, such as cpu or cuda:1."""

    def __call__(self) -> None:
        """Computes the scores.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If an option is invalid, or the data do not fit the VAE.
            OSError: If a file cannot be written or read.
        """
        device = choose_device(self.device)
        vae: Any = load(self.run).to(device)
        out = self.out or writable_folder(folder_of(self.run)) / "scores.csv"
        data = data_of(self.run, self.data)
        seen = seen_of(self.run, data)
        x, labels = rows_of(seen, data, self.split, self.limit, vae)
        x = x.to(device)
        vae.check(x)
        if self.anomaly is not None and (labels is None or not (labels == self.anomaly).any()):
            raise ValueError(f"--anomaly is {self.anomaly}; expected the class of some datapoints, of data with labels")
        torch.manual_seed(self.seed)
        result = evidence.estimate(vae.model, vae.guide, x, tolerance=self.tolerance)
        print(result.summary(), flush=True)
        columns: dict[str, Tensor] = {"log_prob": result.log_prob, "error": result.error}
        scores = {"-log p(x)": -result.log_prob, "reconstruction error": -_reconstruction(vae, x)}
        columns["reconstruction_error"] = scores["reconstruction error"]
        if self.regret:
            gap = evidence.inference_gap(vae.model, vae.guide, x, log_prob=result)
            columns["likelihood_regret"] = scores["likelihood regret"] = (gap.best_elbo - gap.elbo).cpu()
        if labels is not None:
            columns["label"] = labels
        if self.anomaly is not None and labels is not None:
            for name, score in scores.items():
                print(f"area under the ROC curve, {name}: {roc_auc(score.cpu(), labels == self.anomaly):.3f}")
        write_columns(out, columns)
        print(f"wrote {out}")


@torch.no_grad()
def _reconstruction(vae: Any, x: Tensor) -> Tensor:
    """log p(x | z) at the code of each datapoint, ``[n]``, in nats."""
    parts = [vae.likelihood(vae.codes(part)["z"]).log_prob(part) for part in x.split(1000)]
    return torch.cat(parts).double().cpu()

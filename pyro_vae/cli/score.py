"""``pyro-vae score``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyro_vae
from pyro_vae.cli.columns_file import write_columns
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.on_run import OnRows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Score(OnRows):
    """Writes scores of each datapoint: log p(x) with its error, reconstruction error, and the likelihood regret.

    Anomaly scores are high for datapoints that differ from the training data. They are -log p(x); the reconstruction
    error, -log p(x | z) at the code of x; and the likelihood regret (Xiao et al. 2020), the increase of the ELBO if
    q(z | x) is fitted to x alone.
    """

    regret: bool = False
    """Also compute the likelihood regret, which needs an optimization for each datapoint."""
    anomaly: Annotated[int | None, by_default("none")] = None
    """Class (0, 1, 2, ... in the order of the labels) of the anomalies, for the area under the ROC curve."""
    out: Annotated[Path | None, by_default("scores.csv in the folder of the run")] = None
    """File for the scores, .csv."""
    tolerance: float = 0.05
    """Upper limit, in nats, of the bias of each log p(x) and of the Monte Carlo error of their mean."""
    seed: int = 0
    """Random seed."""

    def __call__(self) -> None:
        """Computes the scores.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If an option is invalid, or the data do not fit the VAE.
            OSError: If a file cannot be written or read.
        """
        vae, x, labels, out = self.open_rows(self.out, "scores.csv")
        import torch

        from pyro_vae.representation.roc_auc import roc_auc

        if self.anomaly is not None and (labels is None or len((labels[labels >= 0] == self.anomaly).unique()) < 2):
            raise ValueError(
                f"--anomaly is {self.anomaly}; expected the class of some datapoints, not of all, of data with labels"
            )
        if self.regret:
            _check_regret(vae, x)
        torch.manual_seed(self.seed)
        result = pyro_vae.evidence.estimate(vae.model, vae.guide, x, tolerance=self.tolerance)
        print(result.summary(), flush=True)
        columns: dict[str, Tensor] = {"log_prob": result.log_prob, "error": result.error}
        scores = {"-log p(x)": -result.log_prob, "reconstruction error": -_reconstruction(vae, x)}
        columns["reconstruction_error"] = scores["reconstruction error"]
        if self.regret:
            gap = pyro_vae.evidence.inference_gap(vae.model, vae.guide, x, log_prob=result)
            columns["likelihood_regret"] = scores["likelihood regret"] = (gap.best_elbo - gap.elbo).cpu()
        if labels is not None:
            columns["label"] = labels
        if self.anomaly is not None and labels is not None:
            known = labels >= 0
            for name, score in scores.items():
                area = roc_auc(score.cpu()[known], labels[known] == self.anomaly)
                print(f"area under the ROC curve, {name}: {area:.3f}")
        write_columns(out, columns)
        print(f"wrote {out}")


def _check_regret(vae: Any, x: Tensor) -> None:
    """Computes the regret of one datapoint with as little work as possible, to see whether the posterior allows it.

    Raises:
        ValueError: If q(z | x) is not a distribution with parameters, such as a flow.
    """
    import torch

    least: dict[str, Any] = {"num_samples": 2, "num_steps": 1, "num_particles": 1, "max_rounds": 1, "progress": False}
    try:
        pyro_vae.evidence.inference_gap(vae.model, vae.guide, x[:1], log_prob=torch.zeros(1), **least)
    except ValueError as error:
        raise ValueError(f"--regret is not possible with this posterior: {error}") from error


def _reconstruction(vae: Any, x: Tensor) -> Tensor:
    """log p(x | z) at the code of each datapoint, ``[n]``, in nats."""
    import torch

    with torch.no_grad():
        parts = [vae.likelihood(vae.codes(part)["z"]).log_prob(part) for part in x.split(1000)]
    return torch.cat(parts).double().cpu()

"""Which data to take, and how they become binary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from torch import Tensor
from tyro.conf import arg

from pyro_vae import data as data_sets
from pyro_vae.data import Splits, binarize
from pyro_vae.data.from_file import read_splits

__all__ = ["Data"]

DATA = (
    "mnist, binarized_mnist, frey_faces, fashion_mnist, kmnist or emnist, or a file .npy, .npz or .pt. By default what "
    "the run was trained on, or else mnist. A file holds an array [n, *event], or several by the names train, valid "
    "and test; of these, for what is not there a tenth of train is set aside at random. Bytes are divided by 255; [n, "
    "height, width] are grey images."
)
BINARIZE = (
    "How grey levels become 0 and 1: drawn anew at every visit (what is not trained on: once), drawn once, compared "
    "with 0.5, or not at all. By default dynamic for grey data under a Bernoulli likelihood, else none."
)


@dataclass(frozen=True)
class Data:
    """Options that say which data to take."""

    data: Annotated[str | None, arg(help=DATA)] = None
    data_root: Path | None = None
    """Folder of binarized_mnist or frey_faces, or for what is downloaded (by default ~/.cache/pyro_vae)."""
    binarize: Annotated[Literal["dynamic", "fixed", "threshold", "none"] | None, arg(help=BINARIZE)] = None

    def load(self) -> Splits:
        """Loads the data, as they are.

        Raises:
            ValueError: If there are none of that name, or a file holds something else.
            OSError: If they cannot be read.
        """
        name = self.data or "mnist"
        return read_splits(Path(name)) if Path(name).suffix else data_sets.load(name, self.data_root)

    def resolved(self, splits: Splits, likelihood: str) -> Data:
        """Every option with the value it has for these data, and paths that mean the same in every folder."""
        name, root = self.data or "mnist", self.data_root
        grey = bool(((splits.train > 0) & (splits.train < 1)).any())
        return replace(
            self,
            data=str(Path(name).resolve()) if Path(name).suffix else name,
            data_root=None if root is None else root.resolve(),
            binarize=self.binarize or ("dynamic" if likelihood == "bernoulli" and grey else "none"),
        )

    def binarized(self, x: Tensor) -> Tensor:
        """Data ``[n, *event]`` as they are when they are not trained on.

        Raises:
            ValueError: If they are to become binary, and are not in [0, 1].
        """
        if self.binarize == "threshold":
            return binarize.threshold(x)
        return binarize.fixed(x) if self.binarize in ("dynamic", "fixed") else x

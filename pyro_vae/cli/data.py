"""Which data to use, and how to binarize them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from torch import Tensor
from tyro.conf import arg

from pyro_vae import data as data_sets
from pyro_vae.cli.defaults import by_default
from pyro_vae.data import Splits, binarize
from pyro_vae.data.from_file import read_splits

__all__ = ["Data"]

DATA = (
    "Data set: mnist, binarized_mnist, frey_faces, fashion_mnist, kmnist or emnist, or a .npy, .npz or .pt file. A "
    "file contains one array [n, *event], or arrays named train, valid and test. If valid or test is missing, a random "
    "tenth of the training data is used for it. Bytes are divided by 255. An array [n, height, width] is read as grey "
    "images."
)
BINARIZE = (
    "How to turn grey levels into 0 and 1. dynamic: drawn at random each time a batch is used (validation and test "
    "data: once); fixed: drawn at random once; threshold: compared with 0.5; none: not at all."
)


@dataclass(frozen=True)
class Data:
    """Options that choose the data."""

    data: Annotated[str | None, arg(help=DATA), by_default("that of the run; for train, mnist")] = None
    data_root: Annotated[Path | None, by_default("~/.cache/pyro_vae")] = None
    """Folder with the files of binarized_mnist or frey_faces; for other data sets, the folder for downloads."""
    binarize: Annotated[
        Literal["dynamic", "fixed", "threshold", "none"] | None,
        arg(help=BINARIZE),
        by_default("that of the run; for train, dynamic for grey data with a Bernoulli likelihood, otherwise none"),
    ] = None

    def load(self) -> Splits:
        """Loads the data, without binarization.

        Raises:
            ValueError: If there is no data set of this name, or the content of a file is invalid.
            OSError: If they cannot be read.
        """
        name = self.data or "mnist"
        return read_splits(Path(name)) if Path(name).suffix else data_sets.load(name, self.data_root)

    def resolved(self, splits: Splits, likelihood: str) -> Data:
        """The options with their defaults for these data filled in, and with absolute paths."""
        name, root = self.data or "mnist", self.data_root
        grey = bool(((splits.train > 0) & (splits.train < 1)).any())
        return replace(
            self,
            data=str(Path(name).resolve()) if Path(name).suffix else name,
            data_root=None if root is None else root.resolve(),
            binarize=self.binarize or ("dynamic" if likelihood == "bernoulli" and grey else "none"),
        )

    def binarized(self, x: Tensor) -> Tensor:
        """Data ``[n, *event]`` binarized as for validation and test.

        Raises:
            ValueError: If they are to be binarized, and are not in [0, 1].
        """
        if self.binarize == "threshold":
            return binarize.threshold(x)
        return binarize.fixed(x) if self.binarize in ("dynamic", "fixed") else x

"""Which data to use, and how to binarize them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

import pyro_vae
from pyro_vae.cli.defaults import by_default
from pyro_vae.data.formats import known_format_of
from pyro_vae.data.names import NAMES

if TYPE_CHECKING:
    from torch import Tensor

    from pyro_vae.cli.seen import Seen
    from pyro_vae.data import Splits


DATA = (
    "Data set: mnist, binarized_mnist, frey_faces, omniglot, caltech101_silhouettes, fashion_mnist, kmnist or emnist; "
    "or a folder of images, whose subfolders are labels; or a table: .csv, .tsv, .parquet, .feather, .arrow or .xlsx; "
    "or sparse counts: .npz of SciPy or .h5ad; or arrays: .npy, .npz, .pt, .h5, .hdf5 or .zarr; or a folder of Hugging "
    "Face datasets. A file of arrays has one array [n, *event], or arrays named train, valid and test, or --array "
    "chooses one. If valid or test is missing, a random tenth of the training data is used for it. Bytes are divided "
    "by 255. An array [n, height, width] with values from 0 to 1 is read as grey images, unless it is padded with NaN; "
    "other arrays of this shape are read as series [n, steps, features]. NaN is a missing value."
)
# The formats of data that an option has an effect on.
USES = {
    "column": ("table", "dataset"),
    "labels": ("table", "arrays", "counts", "dataset"),
    "array": ("arrays", "counts", "dataset"),
    "size": ("images", "dataset"),
    "stretch": ("images", "dataset"),
    "skip_broken": ("images", "dataset"),
}
BINARIZE = (
    "How to turn grey levels into 0 and 1. dynamic: drawn at random each time a batch is used (validation and test "
    "data: once); fixed: drawn at random once; threshold: compared with 0.5; none: not at all."
)


@dataclass(frozen=True)
class Data:
    """Options that choose the data."""

    data: Annotated[str | None, arg(help=DATA), by_default("that of the run; for train, mnist")] = None
    data_root: Annotated[Path | None, by_default("~/.cache/pyro_vae")] = None
    """Folder with the files of the data set; for fashion_mnist, kmnist and emnist, the folder for downloads."""
    binarize: Annotated[
        Literal["dynamic", "fixed", "threshold", "none"] | None,
        arg(help=BINARIZE),
        by_default("that of the run; for train, dynamic for grey data with a Bernoulli likelihood, otherwise none"),
    ] = None

    column: Annotated[tuple[str, ...], by_default("inferred from the values")] = ()
    """Kinds of columns of a table, as NAME:KIND; kinds: real, positive, count, binary, categorical, ordinal, drop."""
    labels: Annotated[str | None, by_default("an array named labels or label, or a column of the type ClassLabel")] = (
        None
    )
    """Labels, which are not modelled: a column of a table, of obs of an .h5ad file or of a data set, or an array."""
    array: Annotated[str | None, by_default("the only one")] = None
    """Array of a file, layer of an .h5ad file, or column of a Hugging Face data set with the data."""
    size: Annotated[tuple[int, ...], by_default("that of the images")] = ()
    """Size to which images are scaled: one number, or height and width."""
    stretch: bool = False
    """Stretch images to --size, instead of cropping them first."""
    skip_broken: bool = False
    """Leave out images that cannot be read."""

    def look(self) -> Seen:
        """Loads the data, without binarization, and describes them.

        Raises:
            ValueError: If there is no data set of this name, or the content of a file is invalid.
            OSError: If they cannot be read.
        """
        from pyro_vae.cli.look import look

        return look(replace(self, binarize=None))  # which is the same data, read once

    def check_found(self) -> str:
        """Checks that there are data of this name, without importing torch.

        Returns:
            Their format, as :func:`~pyro_vae.data.formats.format_of` names it; empty for a data set with a name.

        Raises:
            ValueError: If there is no data set of this name, or the file has an unknown format.
            FileNotFoundError: If there is no such file.
        """
        name = self.data or "mnist"
        path = Path(name)
        kind = known_format_of(path) if self.is_own else ""
        if path.suffix and not path.exists():
            raise FileNotFoundError(f"the data file {name!r} cannot be read: No such file or directory")
        if name not in NAMES and not path.exists():
            raise ValueError(f"there is no file, folder or data set {name!r}; expected one of {', '.join(NAMES)}")
        return kind

    def check(self) -> None:
        """Checks that there are such data, of a kind that the given options are for.

        Raises:
            ValueError: If not.
            FileNotFoundError: If there is no such file.
        """
        kind = self.check_found()
        for option, kinds in USES.items():
            if getattr(self, option) and kind not in kinds:
                flag = f"--{option.replace('_', '-')}"
                raise ValueError(f"{flag} has no effect on {self.data or 'mnist'!r}; leave it out")

    @property
    def is_own(self) -> bool:
        """Whether the data are in a file or folder of the user, rather than a data set with a name."""
        return self.data is not None and bool(Path(self.data).suffix or Path(self.data).is_dir())

    def resolved(self, splits: Splits, likelihood: str) -> Data:
        """The options with their defaults for these data filled in, and with absolute paths."""
        name, root = self.data or "mnist", self.data_root
        grey = bool(((splits.train > 0) & (splits.train < 1)).any())
        return replace(
            self,
            data=str(Path(name).resolve()) if self.is_own else name,
            data_root=None if root is None else root.resolve(),
            binarize=self.binarize or ("dynamic" if likelihood == "bernoulli" and grey else "none"),
        )

    def binarized(self, x: Tensor) -> Tensor:
        """Data ``[n, *event]`` binarized as for validation and test.

        Raises:
            ValueError: If they are to be binarized, and are not in [0, 1].
        """
        if self.binarize == "threshold":
            return pyro_vae.data.binarize.threshold(x)
        return pyro_vae.data.binarize.fixed(x) if self.binarize in ("dynamic", "fixed") else x

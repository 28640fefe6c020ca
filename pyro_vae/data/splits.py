"""A data set as tensors: training, validation and test data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_vae.html_table import WithSummary, html_table
from pyro_vae.plots import comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Splits(WithSummary):
    """A data set ``[n, *event]``, such as images in [0, 1], and integer labels ``[n]`` if there are any.

    Attributes:
        train: Training data.
        valid: Validation data.
        test: Test data.
        train_labels: Labels of the training data, or None.
        valid_labels: Labels of the validation data, or None.
        test_labels: Labels of the test data, or None.

    Example:
        >>> splits = data.Splits(train=x[:4], valid=x[4:6], test=x[6:])
        >>> splits.train_labels is None
        True
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    valid_labels: Tensor | None = None
    test_labels: Tensor | None = None

    @classmethod
    def from_uint8(cls, images: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, num_valid: int) -> Splits:
        """Scales grey levels from 0, ..., 255 to [0, 1]; the last ``num_valid`` training images are the validation set.

        Raises:
            ValueError: If that would leave no training image.
        """
        if not isinstance(num_valid, int) or not 0 <= num_valid < len(images):
            raise ValueError(f"num_valid is {num_valid!r}; expected an integer from 0 to {len(images) - 1}")
        num_train = len(images) - num_valid
        train, valid, test = (part.float().div_(255) for part in (images[:num_train], images[num_train:], test))
        labels, test_labels = labels.to(torch.int64), test_labels.to(torch.int64)
        return cls(train, valid, test, labels[:num_train], labels[num_train:], test_labels)

    def summary(self) -> str:
        """The number of datapoints and their shape, of each part."""
        return "\n".join(f"{name:<6}{words}" for name, words in self._parts.items())

    def plot(self, columns: int = 10) -> Figure:
        """The first images of each part that has any, a row for each.

        Args:
            columns: The number of images in a row; fewer if a part has fewer.

        Raises:
            ValueError: If no part has images of 1 or 3 channels.
        """
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        parts = {name: images for name, images in parts.items() if len(images)}
        columns = min([columns, *map(len, parts.values())])
        return comparison({name: images[:columns] for name, images in parts.items()}, columns)

    @property
    def _parts(self) -> dict[str, str]:
        """Each part in words, by name."""
        words = {}
        for name in ("train", "valid", "test"):
            images, labels = getattr(self, name), getattr(self, f"{name}_labels")
            words[name] = f"{len(images):,} x {list(images.shape[1:])}" + ("" if labels is None else ", with labels")
        return words

    def __repr__(self) -> str:
        return f"Splits({'; '.join(f'{name} {words}' for name, words in self._parts.items())})"

    def _repr_html_(self) -> str:
        return html_table(self._parts)

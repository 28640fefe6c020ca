"""A data set as tensors: train, valid and test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Splits"]


@dataclass(frozen=True)
class Splits:
    """A data set: images in [0, 1], ``[n, channels, height, width]``, and integer labels ``[n]`` where there are any.

    Attributes:
        train: Training data.
        valid: Validation data.
        test: Test data.
        train_labels: Labels of the training data, or None.
        valid_labels: Labels of the validation data, or None.
        test_labels: Labels of the test data, or None.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    valid_labels: Tensor | None = None
    test_labels: Tensor | None = None

    @classmethod
    def from_uint8(cls, images: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, num_valid: int) -> Splits:
        """Scales grey levels 0 to 255 to [0, 1], and makes the last ``num_valid`` training images the validation set.

        Raises:
            ValueError: If that would leave no image to train on.
        """
        if not isinstance(num_valid, int) or not 0 <= num_valid < len(images):
            raise ValueError(f"num_valid is {num_valid!r}; expected an integer from 0 to {len(images) - 1}")
        num_train = len(images) - num_valid
        train, valid, test = (part.float().div_(255) for part in (images[:num_train], images[num_train:], test))
        labels, test_labels = labels.to(torch.int64), test_labels.to(torch.int64)
        return cls(train, valid, test, labels[:num_train], labels[num_train:], test_labels)

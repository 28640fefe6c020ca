"""The names of the data sets. This module does not import torch."""

from __future__ import annotations

from typing import Any

#: By name, the class in ``torchvision.datasets`` and its further arguments.
OF_TORCHVISION: dict[str, tuple[str, dict[str, Any]]] = {
    "fashion_mnist": ("FashionMNIST", {}),
    "kmnist": ("KMNIST", {}),
    "emnist": ("EMNIST", {"split": "balanced"}),
}
NAMES = ("mnist", "binarized_mnist", "frey_faces", "omniglot", "caltech101_silhouettes", *OF_TORCHVISION)

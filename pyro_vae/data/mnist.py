"""MNIST, embedded in the package (Y. LeCun and C. Cortes, CC BY-SA 3.0; see embedded/mnist/ATTRIBUTION.md)."""

from __future__ import annotations

import gzip
from importlib import resources

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.splits import Splits


def load_mnist(num_valid: int = 10_000) -> Splits:
    """MNIST: 60000 training images, the last ``num_valid`` of them for validation, and 10000 test images."""
    folder = resources.files("pyro_vae.data") / "embedded" / "mnist"
    images, labels, test, test_labels = (
        read_idx(gzip.decompress((folder / f"{file}.gz").read_bytes()))
        for file in (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        )
    )
    return Splits.from_uint8(images.unsqueeze(1), labels, test.unsqueeze(1), test_labels, num_valid)


def read_idx(content: bytes) -> Tensor:
    """Reads an IDX file of unsigned bytes: two zeros, the type (8), the number of dimensions, the dimensions, the data.

    Raises:
        ValueError: If the content has another format.
    """
    ndim = content[3] if len(content) > 3 else 0
    shape = np.frombuffer(content[4 : 4 + 4 * ndim], dtype=">u4").tolist()
    if content[:3] != b"\0\0\x08" or len(content) != 4 + 4 * ndim + np.prod(shape):
        raise ValueError(f"not an IDX file of unsigned bytes: {len(content)} bytes beginning with {content[:4].hex()}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).copy()).reshape(shape)

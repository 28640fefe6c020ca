"""Loads data sets by name."""

from __future__ import annotations

from pathlib import Path

from pyro_vae.data.binarized_mnist import load_binarized_mnist
from pyro_vae.data.frey_faces import load_frey_faces
from pyro_vae.data.from_torchvision import load_from_torchvision
from pyro_vae.data.matlab_images import load_caltech101_silhouettes, load_omniglot
from pyro_vae.data.mnist import load_mnist
from pyro_vae.data.names import NAMES, OF_TORCHVISION
from pyro_vae.data.splits import Splits


def load(name: str, root: str | Path | None = None, *, num_valid: int = 10_000, download: bool = True) -> Splits:
    """Loads a data set.

    ============================================  ====================================================================
    ``mnist``                                     embedded in the package; needs neither a network nor ``root``
    ``binarized_mnist``                           the literature's fixed binarization, read from the folder ``root``
    ``frey_faces``                                1965 grey frames of a video, read from the folder ``root``
    ``omniglot``                                  characters of 50 alphabets, grey, read from the folder ``root``
    ``caltech101_silhouettes``                    binary outlines of objects, read from the folder ``root``
    ``fashion_mnist``, ``kmnist``, ``emnist``     by torchvision, downloaded to the folder ``root`` at first use
    ============================================  ====================================================================

    Args:
        name: The name of the data set.
        root: A folder; by default ``~/.cache/pyro_vae`` for torchvision's downloads.
        num_valid: The number of training images, taken from the end, to use for validation. It has no effect on data
            sets that are read from ``root``, which have a fixed split.
        download: Whether torchvision may download files that are not in the folder.

    Returns:
        Images in [0, 1], ``[n, 1, 28, 28]`` (``frey_faces``: ``[n, 1, 28, 20]``). They are grey, except those of
        ``binarized_mnist`` and ``caltech101_silhouettes``; see :mod:`pyro_vae.data.binarize`.

    Raises:
        ValueError: If the name is unknown, or ``num_valid`` leaves no training data.
        FileNotFoundError: If a file is missing; the message says where to download it.
        ImportError: If a MATLAB file is to be read, and SciPy cannot be imported.

    Example:
        >>> mnist = data.load("mnist")
        >>> mnist.train.shape, mnist.valid.shape, mnist.test.shape
        (torch.Size([50000, 1, 28, 28]), torch.Size([10000, 1, 28, 28]), torch.Size([10000, 1, 28, 28]))
    """
    if name == "mnist":
        return load_mnist(num_valid)
    if name == "binarized_mnist":
        return load_binarized_mnist(root)
    if name == "frey_faces":
        return load_frey_faces(root)
    if name == "omniglot":
        return load_omniglot(root)
    if name == "caltech101_silhouettes":
        return load_caltech101_silhouettes(root)
    if name in OF_TORCHVISION:
        return load_from_torchvision(name, root, num_valid, download)
    raise ValueError(f"name is {name!r}; expected one of {', '.join(NAMES)}")

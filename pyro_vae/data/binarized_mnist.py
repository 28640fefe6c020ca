"""The fixed binarization of MNIST on which the literature reports log p(x)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.npz import read_array
from pyro_vae.data.splits import Splits

SOURCE = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/binarized_mnist_{split}.amat"


def load_binarized_mnist(root: str | Path | None) -> Splits:
    """The binarization of Salakhutdinov & Murray (2008), split as in Larochelle & Murray (2011): 50000/10000/10000.

    Args:
        root: A folder with ``binarized_mnist.npz`` (arrays ``train``, ``valid`` and ``test`` of packed bits, 98 bytes
            for each image), or with the three original files ``binarized_mnist_train.amat`` and so on.

    Raises:
        FileNotFoundError: If the folder has neither; the message says where to download the original files.
        ValueError: If the content of a file is not as expected.
    """
    sources = ", ".join(SOURCE.format(split=split) for split in ("train", "valid", "test"))
    if root is None:
        raise FileNotFoundError(f"binarized_mnist needs root=, the folder with its files; download them from {sources}")
    root = Path(root)
    packed = root / "binarized_mnist.npz"
    texts = {split: root / f"binarized_mnist_{split}.amat" for split in ("train", "valid", "test")}
    if packed.is_file():
        bits = {split: _unpack(packed, split) for split in texts}
    elif all(path.is_file() for path in texts.values()):
        bits = {split: _parse(path) for split, path in texts.items()}
    else:
        raise FileNotFoundError(
            f"{root} contains neither {packed.name} nor {', '.join(path.name for path in texts.values())}; "
            f"download them from {sources}"
        )
    return Splits(**{split: _images(array) for split, array in bits.items()})


def _unpack(path: Path, split: str) -> np.ndarray:
    packed = read_array(path, split)
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != 98:
        raise ValueError(f"array {split!r} of {path} is {packed.dtype} {list(packed.shape)}; expected uint8 [n, 98]")
    return np.unpackbits(packed, axis=1)


def _parse(path: Path) -> np.ndarray:
    # One line for each image: 784 times "0" or "1", separated by spaces.
    digits = np.frombuffer(path.read_bytes().translate(None, b" \t\r\n"), dtype=np.uint8) - ord("0")
    if digits.size % 784 or digits.size == 0 or digits.max() > 1:
        raise ValueError(f"{path} does not consist of lines of 784 zeros and ones")
    return digits.reshape(-1, 784)


def _images(bits: np.ndarray) -> Tensor:
    return torch.from_numpy(bits.astype(np.float32)).reshape(-1, 1, 28, 28)

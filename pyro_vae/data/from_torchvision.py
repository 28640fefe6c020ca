"""Data sets in MNIST's format that torchvision can download."""

from __future__ import annotations

from pathlib import Path

from pyro_vae.data.names import OF_TORCHVISION
from pyro_vae.data.splits import Splits


def load_from_torchvision(name: str, root: str | Path | None, num_valid: int, download: bool) -> Splits:
    """Loads a data set by torchvision; see :func:`pyro_vae.data.load`.

    Raises:
        ImportError: If torchvision cannot be imported.
        FileNotFoundError: If the files are not in the folder and cannot be downloaded.
    """
    try:
        # Imported here, since a torchvision built for another version of torch fails to import, and MNIST needs none.
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise ImportError(f"{name} is loaded by torchvision, which cannot be imported: {error}") from error
    class_name, options = OF_TORCHVISION[name]
    root = Path.home() / ".cache" / "pyro_vae" if root is None else Path(root)
    try:
        train, test = (
            getattr(datasets, class_name)(root, train=is_train, download=download, **options)
            for is_train in (True, False)
        )
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(f"{name} is not in {root} and could not be downloaded: {error}") from error
    images, test_images = train.data.unsqueeze(1), test.data.unsqueeze(1)
    if name == "emnist":  # stored with rows and columns exchanged
        images, test_images = images.mT.contiguous(), test_images.mT.contiguous()
    return Splits.from_uint8(images, train.targets, test_images, test.targets, num_valid)

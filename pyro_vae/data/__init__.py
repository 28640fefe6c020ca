"""Data sets as tensors, ways to binarize them, and minibatches.

>>> mnist = data.load("mnist")  # grey levels in [0, 1]; embedded in the package
>>> test = data.binarize.fixed(mnist.test, seed=0)
>>> for x in data.Batches(mnist.train, 128, transform=data.binarize.dynamic):
...     break
>>> x.shape
torch.Size([128, 1, 28, 28])
"""

from typing import TYPE_CHECKING

from pyro_vae.system.lazy import lazy_names

if TYPE_CHECKING:
    from pyro_vae.data import binarize
    from pyro_vae.data.array_file import ArrayFile
    from pyro_vae.data.batches import Batches
    from pyro_vae.data.by_name import load
    from pyro_vae.data.frames import read_frame
    from pyro_vae.data.image_folder import ImageFolder
    from pyro_vae.data.sparse_counts import SparseCounts
    from pyro_vae.data.splits import Splits

__all__ = ["ArrayFile", "Batches", "ImageFolder", "SparseCounts", "Splits", "binarize", "load", "read_frame"]

if not TYPE_CHECKING:  # the names of data sets are checked without torch
    _MODULES = {
        "array_file": ["ArrayFile"],
        "batches": ["Batches"],
        "by_name": ["load"],
        "frames": ["read_frame"],
        "image_folder": ["ImageFolder"],
        "sparse_counts": ["SparseCounts"],
        "splits": ["Splits"],
    }
    __getattr__, __dir__ = lazy_names(__name__, __all__, _MODULES)

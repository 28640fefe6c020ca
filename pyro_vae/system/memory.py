"""What glibc does with freed memory: keeps it for the next step, or returns it to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch
from torch.utils.data import get_worker_info

_MMAP_THRESHOLD, _LARGE = -3, 2**20  # the parameter's number in malloc.h; bytes

# Just below 32 MiB, the largest block that glibc adapts its thresholds to on a 64-bit system.
_LARGEST_BLOCK = 2**25 - 2**16


@cache
def keep_freed_memory() -> None:
    """Makes glibc keep up to 64 MB of freed memory instead of returning it to the system.

    Otherwise glibc returns the memory of large tensors after each step, and the system must clear it page by page for
    the next one, which takes as long as some of the arithmetic. The threshold grows with the largest block that was
    freed, so it is enough to allocate and free one block. The block is never written to and takes no physical memory.
    """
    torch.empty(_LARGEST_BLOCK, dtype=torch.uint8)


def return_freed_memory_in_workers() -> None:
    """In a worker of a ``DataLoader``, makes glibc return freed blocks of more than 1 MiB to the system.

    Otherwise the memory of a worker grows with every batch. glibc keeps freed blocks of up to 32 MiB, and the small
    objects of the queue of batches are placed into them, so that the next batch does not fit and takes new memory.
    """
    if get_worker_info() is not None:
        _return_freed_memory()


@cache
def _return_freed_memory() -> None:
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:  # other C libraries lack it
        set_option(_MMAP_THRESHOLD, _LARGE)

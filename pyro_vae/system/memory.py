"""Keeps freed memory in the process from one step to the next."""

from __future__ import annotations

from functools import cache

import torch

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

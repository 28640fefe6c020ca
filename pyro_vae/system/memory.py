"""Memory that stays with the process from one step to the next."""

from __future__ import annotations

from functools import cache

import torch

__all__ = ["keep_freed_memory"]


@cache
def keep_freed_memory() -> None:
    """Has glibc keep up to 62 MB of freed memory, by how it adapts: to the largest block that was freed, twice over.

    Otherwise it gives the memory of gradients back to the system after each step, and the system clears it page by page
    for the next one, which takes as long as some of the arithmetic.
    """
    torch.empty(31 << 20, dtype=torch.uint8)

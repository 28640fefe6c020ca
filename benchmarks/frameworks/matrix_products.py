"""The floor: only the matrix products and convolutions, forward and backward, of the model written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from frameworks import by_hand
from frameworks.work import Work

__all__ = ["Training"]

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.convolution.default, aten.convolution_backward.default}


class Recorded(TorchDispatchMode):
    """Remembers the products that are run, and on what."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[Callable, tuple]] = []

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in PRODUCTS:
            self.products.append((func, tree_map_only(Tensor, Tensor.detach, args)))
        return func(*args, **(kwargs or {}))


class Training:
    """It trains nothing: it repeats the products of one step."""

    def __init__(self, work: Work, images: np.ndarray, bfloat16: bool = False) -> None:
        vae = by_hand.Training(work, images)
        with Recorded() as recorded:
            vae.negative_elbo(next(vae.batches)).backward()
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        self.products = [(func, tree_map_only(Tensor, lambda x: x.to(dtype), args)) for func, args in recorded.products]

        torch.empty(31 << 20, dtype=torch.uint8)  # so that glibc keeps the memory of results, which is no arithmetic

    @torch.no_grad()
    def run(self, steps: int) -> float:
        for _ in range(steps):
            for func, args in self.products:
                func(*args)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return float("nan")

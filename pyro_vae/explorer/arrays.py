"""Arrays of numbers as text inside a page."""

from __future__ import annotations

import base64
from typing import Any

import torch
from torch import Tensor


class Arrays:
    """Arrays by name, one after the other in memory: 32-bit floats or integers, little-endian."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        # For each name the type, f or i, the first byte, and the number of values.
        self.places: dict[str, list[Any]] = {}
        self._size = 0

    def add(self, name: str, values: Tensor) -> None:
        """Adds an array: as integers if it has integers, else as floats. Its shape is not kept."""
        is_float = values.is_floating_point()
        numbers = values.detach().cpu().to(torch.float32 if is_float else torch.int32).contiguous().reshape(-1)
        content = numbers.numpy().astype("<f4" if is_float else "<i4").tobytes()
        self.places[name] = ["f" if is_float else "i", self._size, numbers.numel()]
        self._parts.append(content)
        self._size += len(content)

    def text(self) -> str:
        """All arrays as base64."""
        return base64.b64encode(b"".join(self._parts)).decode()

"""Small images of all datapoints in one PNG file."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

MOST_VALUES = 6_000_000  # of all thumbnails together: 2000 grey images of 54 x 54, or colour images of 31 x 31


@dataclass(frozen=True)
class Thumbnails:
    """All images in one PNG file, row by row.

    Attributes:
        png: The file.
        columns: The number of images in a row.
        height: The height of one of them, in pixels.
        width: Its width.
    """

    png: bytes
    columns: int
    height: int
    width: int


def thumbnails(images: Tensor) -> Thumbnails:
    """Draws images ``[n, 1 or 3, height, width]`` from 0 to 1; NaN becomes transparent.

    Images are made smaller if there are many or they are large.
    """
    from PIL import Image

    n, _, height, width = images.shape
    scale = min(1.0, math.sqrt(MOST_VALUES / images.numel()))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    missing = images.isnan().any(1, keepdim=True)
    if size != (height, width):
        images = interpolate(images.nan_to_num(0.0), size, mode="area")
        missing = interpolate(missing.float(), size, mode="area") > 0.5
    levels = (images.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    if missing.any():
        levels = torch.cat([levels, (~missing).to(torch.uint8) * 255], dim=1)
    columns = math.ceil(math.sqrt(n))
    empty = levels.new_zeros(-n % columns, *levels.shape[1:])
    rows = torch.cat([levels, empty]).unflatten(0, (-1, columns))
    mosaic = rows.permute(0, 3, 1, 4, 2).reshape(rows.shape[0] * size[0], columns * size[1], levels.shape[1])
    content = io.BytesIO()
    Image.fromarray(mosaic.squeeze(-1).numpy()).save(content, format="PNG", optimize=True)
    return Thumbnails(content.getvalue(), columns, *size)

"""How the numbers of an array become data for a VAE."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Layout:
    """How the rows of an array become floats ``[n, *event]``, with the channels of images first.

    Attributes:
        is_bytes: Divide by 255.
        channels_are_last: Make channels the first dimension of an image, rather than the last.
        has_no_channels: Add the dimension of channels.
    """

    is_bytes: bool
    channels_are_last: bool
    has_no_channels: bool

    @classmethod
    def of(cls, x: Tensor) -> Layout:
        """The layout of an array ``[n, *event]``, by its dtype, its shape, and whether its values are in [0, 1].

        With such values, ``[n, height, width]`` are images, and missing values may be anywhere. But if all missing
        values are after the end of each datapoint, they are series that were padded.
        """
        is_bytes = x.dtype == torch.uint8
        return cls(
            is_bytes,
            x.ndim == 4 and x.shape[-1] in CHANNELS and x.shape[1] not in CHANNELS,
            x.ndim == 3 and (is_bytes or (bool((((x >= 0) & (x <= 1)) | x.isnan()).all()) and not _is_padded(x))),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Some rows of the array as data, ``[rows, *event]``."""
        x = x.float().div_(255) if self.is_bytes else x.float()
        if self.channels_are_last:
            x = x.permute(0, 3, 1, 2).contiguous()
        return x.unsqueeze(1) if self.has_no_channels else x


def _is_padded(x: Tensor) -> bool:
    """Whether all missing values of series ``[n, steps, features]`` are after their ends, and there are some."""
    missing = x.isnan()
    after = missing.all(2)
    return bool(missing.any() and (missing.any(2) == after).all() and (after[:, 1:] >= after[:, :-1]).all())

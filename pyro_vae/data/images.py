"""Images of any source, scaled to one size, read when they are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_vae.checks import check_count
from pyro_vae.system.warning import warn

if TYPE_CHECKING:
    from PIL import Image


GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
WITH_ORIENTATION = ("JPEG", "MPO", "TIFF", "WEBP")
ORIENTATION = 0x0112  # the EXIF tag of how a camera was held; from 5 on, height and width are exchanged


class Images(Dataset[Tensor]):
    """Images of one size, each ``[channels, height, width]`` of levels k / 255; see :class:`ImageFolder`.

    Args:
        count: How many there are.
        size: Height and width to which images are scaled; a single number for both. Without it, all images must have
            one size.
        crop: Whether an image of another shape is cropped at its center to the shape of ``size``, or else stretched.
        skip_broken: Whether to leave out images that cannot be read, with a warning, after trying all of them.

    Raises:
        ValueError: If an image cannot be read, or images have different sizes and none is given.
    """

    labels: Tensor | None = None
    classes: Sequence[str] = ()

    def __init__(
        self, source: str, count: int, size: int | Sequence[int] | None, crop: bool, skip_broken: bool
    ) -> None:
        self.source, self.crop = source, crop
        wanted = None if size is None else _size(size)
        self.kept, sizes, modes = self._headers(count, skip_broken)
        if not self.kept:
            raise ValueError(f"none of the {count} images in {source!r} can be read")
        if wanted is None and len(sizes) > 1:
            (small, large) = min(sizes), max(sizes)
            raise ValueError(
                f"the images in {source!r} have {len(sizes)} different sizes, such as {small[0]} x {small[1]} and "
                f"{large[0]} x {large[1]}; give one size with size=NUMBER"
            )
        self.size = wanted or next(iter(sizes))
        self.mode = "L" if modes <= set(GREY_MODES) else "RGB"
        self.shape = (1 if self.mode == "L" else 3, *self.size)

    def _file(self, place: int) -> Path | IO[bytes]:
        """The file of the image at this place of the source."""
        raise NotImplementedError

    def _name(self, place: int) -> str:
        """What the image at this place of the source is called in a message."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> Tensor:
        """The image at this place, ``[channels, height, width]``."""
        return self.bytes_at(index).float() / 255

    def bytes_at(self, index: int) -> Tensor:
        """The same as levels 0 to 255, in a quarter of the memory."""
        from PIL import Image, ImageOps  # not before it is needed

        place = self.kept[index]
        try:
            with Image.open(self._file(place)) as image:
                upright = ImageOps.exif_transpose(image) if image.format in WITH_ORIENTATION else image
                return _array(self._resized(_eight_bits(upright).convert(self.mode)))
        except OSError as error:
            if error.errno is not None:  # of the operating system
                raise
            raise ValueError(f"the image {self._name(place)} cannot be read: it is damaged") from error

    def tensor(self, indices: Iterable[int] | None = None) -> Tensor:
        """All images at once, or some, ``[n, channels, height, width]``, in memory."""
        chosen = range(len(self)) if indices is None else indices
        return torch.stack([self[index] for index in chosen])

    def _resized(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if image.size == (width, height):
            return image
        box = None
        if self.crop:
            ratio = min(image.width / width, image.height / height)
            w, h = width * ratio, height * ratio
            left, top = (image.width - w) / 2, (image.height - h) / 2
            box = (left, top, left + w, top + h)
        from PIL.Image import Resampling

        return image.resize((width, height), Resampling.LANCZOS, box=box)

    def _headers(self, count: int, try_all: bool) -> tuple[list[int], set[tuple[int, int]], set[str]]:
        """The places of the images that can be read, their sizes (height, width) and their modes."""
        from PIL import Image

        kept, sizes, modes, broken, moving = [], set(), set(), [], []
        for place in range(count):
            try:
                with Image.open(self._file(place)) as image:
                    if try_all:
                        image.load()
                    turned = image.format in WITH_ORIENTATION and image.getexif().get(ORIENTATION, 1) >= 5
                    sizes.add((image.width, image.height) if turned else (image.height, image.width))
                    modes.add(image.mode if image.mode != "P" else _palette_mode(image))
                    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # whose others are previews
                        moving.append(place)
                kept.append(place)
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                # Raised by Pillow for files that are not images, and by the operating system.
                if not try_all and getattr(error, "errno", None) is not None:
                    raise
                if not try_all:
                    raise ValueError(
                        f"the image {self._name(place)} cannot be read: it is damaged, or not what its name says; "
                        "leave such images out with skip_broken=True"
                    ) from error
                broken.append(place)
        if "F" in modes:
            raise ValueError(f"some images in {self.source!r} have floats as pixels; save them as an array, .npy")
        for places, words in (
            (broken, "cannot be read, and are left out"),
            (moving, "have several frames, but only frame 1 of each is used"),
        ):
            if places:
                warn(f"{len(places)} of {count} images {words}: the first is {self._name(places[0])}")
        return kept, sizes, modes


def _palette_mode(image: Image.Image) -> str:
    colours = np.array(image.convert("RGB").getcolors(256) or [], dtype=object)
    return "L" if len(colours) and all(r == g == b for _, (r, g, b) in colours) else "RGB"


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16 bits in 8, which Pillow would cut off instead."""
    from PIL import Image

    if image.mode in SIXTEEN_BITS:
        levels = np.asarray(image, dtype=np.float64)
        return Image.fromarray((levels / 257).round().clip(0, 255).astype(np.uint8))
    return image


def _array(image: Image.Image) -> Tensor:
    array = torch.from_numpy(np.array(image, dtype=np.uint8))
    return array.unsqueeze(0) if array.ndim == 2 else array.permute(2, 0, 1).contiguous()


def _size(size: Any) -> tuple[int, int]:
    pair = (size, size) if not isinstance(size, Sequence) else tuple(size)
    if len(pair) != 2:
        raise ValueError(f"size is {size!r}; expected one number, or height and width")
    return check_count("size", pair[0]), check_count("size", pair[1])

"""Images in a folder, read when they are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_vae.checks import check_count
from pyro_vae.system.warning import warn

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageFolder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


class ImageFolder(Dataset[Tensor]):
    """The images in a folder and its subfolders, each ``[channels, height, width]`` of levels k / 255.

    An image is read from its file when it is asked for, so that a folder larger than memory can be trained on::

        images = data.ImageFolder("photos", size=64)
        fit(vae, DataLoader(images, 64, shuffle=True, num_workers=2))

    They are grey if all of them are, else they have three channels; transparency is left out. Subfolders are labels.

    Args:
        folder: The folder.
        size: Height and width to which images are scaled; a single number for both. Without it, all images must have
            one size.
        crop: Whether an image of another shape is cut to the shape of ``size`` about its center, rather than stretched.
        skip_broken: Whether to leave out files that cannot be read, with a warning, after trying all of them.

    Attributes:
        paths: The files, sorted.
        labels: The index of each file's subfolder among ``classes``, ``[n]``; None if there are no subfolders.
        classes: The names of the subfolders, sorted.
        shape: The shape of one image, ``(channels, height, width)``.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it has no images, a file cannot be read, or images have different sizes and none is given.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (30, 20)).save("red.png")
        >>> pyro_vae.data.ImageFolder(".", size=8)
        ImageFolder(1 colour images, 8 x 8)
    """

    def __init__(
        self,
        folder: str | Path,
        size: int | Sequence[int] | None = None,
        *,
        crop: bool = True,
        skip_broken: bool = False,
    ) -> None:
        self.folder, self.crop = Path(folder), crop
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}")
        found = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not found:
            raise ValueError(f"the folder {str(folder)!r} has no images; expected files {', '.join(SUFFIXES)}")
        self.paths, sizes, modes = _headers(found, whole=skip_broken, skip=skip_broken)
        if not self.paths:
            raise ValueError(f"none of the {len(found)} images in the folder {str(folder)!r} can be read")
        if size is None and len(sizes) > 1:
            (small, large) = min(sizes), max(sizes)
            raise ValueError(
                f"the images in {str(folder)!r} have {len(sizes)} different sizes, such as {small[0]} x {small[1]} and "
                f"{large[0]} x {large[1]}; give one size"
            )
        self.size = _size(size) if size is not None else next(iter(sizes))
        self.mode = "L" if modes <= set(GREY_MODES) else "RGB"
        self.shape = (1 if self.mode == "L" else 3, *self.size)
        parents = [path.relative_to(self.folder).parts[0] if path.parent != self.folder else "" for path in self.paths]
        self.classes = sorted(set(parents) - {""})
        self.labels = None
        if self.classes and "" not in parents:
            self.labels = torch.tensor([self.classes.index(parent) for parent in parents])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """The image at this place, ``[channels, height, width]``."""
        return self.bytes_at(index).float() / 255

    def bytes_at(self, index: int) -> Tensor:
        """The same as levels 0 to 255, in a quarter of the memory."""
        from PIL import Image  # not before it is needed

        path = self.paths[index]
        try:
            with Image.open(path) as image:
                return _array(self._resized(_eight_bits(image).convert(self.mode)))
        except OSError as error:
            raise ValueError(f"the image {str(path)!r} cannot be read: it is damaged") from error

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

    def __repr__(self) -> str:
        channels, height, width = self.shape
        colour = "grey" if channels == 1 else "colour"
        labels = f", {len(self.classes)} classes" if self.labels is not None else ""
        return f"ImageFolder({len(self)} {colour} images, {height} x {width}{labels})"


def _headers(paths: list[Path], *, whole: bool, skip: bool) -> tuple[list[Path], set[tuple[int, int]], set[str]]:
    """The files that can be read, their sizes (height, width) and their modes."""
    from PIL import Image

    kept, sizes, modes, broken = [], set(), set(), []
    for path in paths:
        try:
            with Image.open(path) as image:
                if whole:
                    image.load()
                sizes.add((image.height, image.width))
                modes.add(image.mode if image.mode != "P" else _palette_mode(image))
            kept.append(path)
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises at content that is no image
            if not skip:
                raise ValueError(
                    f"the image {str(path)!r} cannot be read: it is damaged, or not what its name says; leave such "
                    "files out with skip_broken=True"
                ) from error
            broken.append(path)
    if broken:
        warn(f"{len(broken)} of {len(paths)} images cannot be read, and are left out: the first is {str(broken[0])!r}")
    return kept, sizes, modes


def _palette_mode(image: Image.Image) -> str:
    colours = np.array(image.convert("RGB").getcolors(256) or [], dtype=object)
    return "L" if len(colours) and all(r == g == b for _, (r, g, b) in colours) else "RGB"


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16 bits in 8, which Pillow would cut off instead."""
    from PIL import Image

    if image.mode in ("I;16", "I"):
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

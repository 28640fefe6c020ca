"""Images in a folder, read when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pyro_vae.data.images import Images

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


class ImageFolder(Images):
    """The images in a folder and its subfolders, each ``[channels, height, width]`` of levels k / 255.

    An image is read from its file when it is asked for, so that a folder larger than memory can be trained on::

        images = data.ImageFolder("photos", size=64)
        fit(vae, DataLoader(images, 64, shuffle=True, num_workers=2))

    Hidden files are left out. Images have one channel if all files are grey, otherwise three. Photos are rotated
    according to their EXIF data. Transparency is dropped. Of animations, only the first frame is used, with a warning.
    Subfolders are labels.

    Args:
        folder: The folder.
        size: Height and width to which images are scaled; a single number for both. Without it, all images must have
            one size.
        crop: Whether an image of another shape is cropped at its center to the shape of ``size``, or else stretched.
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
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {str(folder)!r}")
        found = sorted(path for path in self.folder.rglob("*") if self._is_image(path))
        if not found:
            raise ValueError(f"the folder {str(folder)!r} has no images; expected files {', '.join(SUFFIXES)}")
        self._found = found
        super().__init__(str(folder), len(found), size, crop, skip_broken)
        self.paths = [found[place] for place in self.kept]
        parents = [path.relative_to(self.folder).parts[0] if path.parent != self.folder else "" for path in self.paths]
        self.classes = sorted(set(parents) - {""})
        if self.classes and "" not in parents:
            self.labels = torch.tensor([self.classes.index(parent) for parent in parents])

    def _is_image(self, path: Path) -> bool:
        """Whether a file has the name of an image, and is not among the hidden files that systems add to folders."""
        parts = path.relative_to(self.folder).parts
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()

    def _file(self, place: int) -> Path:
        return self._found[place]

    def _name(self, place: int) -> str:
        return repr(str(self._found[place]))

    def __repr__(self) -> str:
        channels, height, width = self.shape
        colour = "grey" if channels == 1 else "colour"
        labels = f", {len(self.classes)} classes" if self.labels is not None else ""
        return f"ImageFolder({len(self)} {colour} images, {height} x {width}{labels})"

"""Formats of files, by suffix."""

from __future__ import annotations

from pathlib import Path

#: Files of arrays, by suffix; see ``open_arrays``.
ARRAYS = (".npy", ".npz", ".pt", ".h5", ".hdf5", ".zarr")
#: Files of tables, by suffix; see ``read_frame``.
FRAMES = (".csv", ".tsv", ".parquet", ".feather", ".arrow", ".xlsx")


def format_of(path: Path) -> str:
    """The format of a path: arrays, table, counts (sparse), dataset (of Hugging Face), images (a folder), or empty.

    Raises:
        OSError: If the path cannot be accessed.
    """
    suffix, is_file = path.suffix.lower(), path.is_file()
    if suffix == ".zarr" or _has(path, "zarr.json", ".zarray", ".zgroup"):
        return "arrays"
    if _has(path, "dataset_info.json", "dataset_dict.json") or (suffix == ".arrow" and is_file and _is_stream(path)):
        return "dataset"
    if path.is_dir():
        return "images"
    if suffix == ".h5ad" or (suffix == ".npz" and is_file and _is_sparse(path)):
        return "counts"
    return "table" if suffix in FRAMES else "arrays" if suffix in ARRAYS else ""


def known_format_of(path: Path) -> str:
    """The format of a path.

    Raises:
        ValueError: If it is unknown.
        OSError: If the path cannot be accessed.
    """
    kind = format_of(path)
    if not kind:
        known = ", ".join((*ARRAYS, *FRAMES, ".h5ad"))
        raise ValueError(f"the data file {str(path)!r} has an unknown format; expected one of {known}, or a folder")
    return kind


def _is_sparse(path: Path) -> bool:
    from pyro_vae.data.npz import is_sparse  # which imports torch

    return is_sparse(path)


def _has(folder: Path, *names: str) -> bool:
    return any((folder / name).is_file() for name in names)


def _is_stream(path: Path) -> bool:
    """Whether a file .arrow is a stream, as Hugging Face writes it, rather than a Feather file."""
    with path.open("rb") as file:
        return file.read(6) != b"ARROW1"

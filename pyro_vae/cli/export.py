"""``pyro-vae export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

import pyro_vae
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.run_files import folder_of, table_of
from pyro_vae.saving.file_names import checkpoint_of


@dataclass(frozen=True)
class Export:
    """Writes encoder, decoder and log p(x | z) as files that run without this library: ONNX and torch.export."""

    run: Positional[Path]
    """Folder of a run (to use its best weights) or of a saved model; or one checkpoint file."""
    formats: tuple[Literal["onnx", "torch"], ...] = ("onnx", "torch")
    """ONNX files run without torch; .pt2 files are for torch.export.load."""
    out: Annotated[Path | None, by_default("the folder export in the folder of the run")] = None
    """Folder for the files."""

    def __call__(self) -> None:
        """Exports the model.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ExportError: If a part cannot be exported.
            ImportError: If packages for a format are not installed.
            OSError: If a file cannot be written or read.
        """
        checkpoint_of(self.run)
        from pyro_vae.exporting import check_formats

        check_formats(self.formats)
        vae = pyro_vae.load(self.run)
        table = table_of(self.run)
        notes: dict[str, Any] = {}
        if table is not None:
            notes["columns"] = [column for column in table.to_json() if column["kind"] != "drop"]
        out = self.out or folder_of(self.run) / "export"
        for program in vae.export(out, self.formats, notes=notes)["programs"].values():
            print(program["about"])
            for way in ("inputs", "outputs"):
                print(f"  {way:<8}", "; ".join(map(_words, program[way])))
            for file in program["files"]:
                print(f"  wrote {out / file} ({_size(out / file)})")
        print(f"wrote {out / 'export.json'}, which describes them")


def _words(value: dict[str, Any]) -> str:
    return f"{value['name']} [{', '.join(map(str, value['shape']))}]"


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 2**20:.1f} MB" if size >= 2**20 else f"{size / 2**10:.0f} kB"

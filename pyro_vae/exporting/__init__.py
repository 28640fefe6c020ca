"""Writes modules as files that other programs run: ONNX and programs of ``torch.export``. Each file is checked."""

from pyro_vae.exporting.export import ExportError, check_formats, export_programs
from pyro_vae.exporting.program import Program

__all__ = ["ExportError", "Program", "check_formats", "export_programs"]

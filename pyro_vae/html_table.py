"""How results are shown: as a summary where they are printed, and as an HTML table in notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def html_table(rows: Mapping[str, str]) -> str:
    """A table with a row for each name and value, both escaped."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"


class WithSummary:
    """A result that is printed as its summary."""

    def summary(self) -> str:
        """The result in words."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.summary()

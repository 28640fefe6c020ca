"""Outputs of ``%%bash`` cells without breaks inside a line.

IPython sends the output of a command in pieces of 100 characters, and myst-nb puts a line break after each piece when
it merges them. Here pieces are joined as they are first.
"""

from typing import Any

from myst_nb.core import render

merge = render.coalesce_streams


def join_pieces(outputs: list[Any]) -> list[Any]:
    """Joins pieces of the same stream, then merges streams as myst-nb does."""
    joined: list[Any] = []
    streams: dict[str, Any] = {}
    for output in outputs:
        name = output["name"] if output["output_type"] == "stream" else None
        if name in streams:
            streams[name]["text"] += output["text"]
        else:
            joined.append(output)
            if name:
                streams[name] = output
    return merge(joined)


def setup(app: Any) -> dict[str, bool]:
    """Replaces the function of myst-nb."""
    render.coalesce_streams = join_pieces
    return {"parallel_read_safe": True}

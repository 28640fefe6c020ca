"""Names of single coordinates of latent sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product


def coordinate_names(name: str, shape: Sequence[int]) -> Iterator[str]:
    """The coordinates of a tensor of this shape, in the order of ``flatten``: ``"z[0, 3]"``, or ``"z"`` of a scalar."""
    for index in product(*map(range, shape)):
        yield f"{name}[{', '.join(map(str, index))}]" if index else name

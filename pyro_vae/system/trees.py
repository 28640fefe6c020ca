"""Trees of tuples, lists and dictionaries: their leaves, and the same tree with other leaves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple


class TreeSpec(NamedTuple):
    """A tree without its leaves. It can be compared, and be a key of a dictionary."""

    kind: type | None = None  #: Of the container; None for a leaf.
    keys: tuple[Any, ...] = ()  #: Of a dictionary.
    children: tuple[Any, ...] = ()  #: The specs of what the container holds.

    @property
    def num_leaves(self) -> int:
        """The number of leaves."""
        return 1 if self.kind is None else sum(child.num_leaves for child in self.children)


_LEAF = TreeSpec()


def flatten(tree: Any) -> tuple[list[Any], TreeSpec]:
    """The leaves of a tree, in order, and the tree without them.

    Tuples, named tuples, lists and dictionaries are containers; everything else is a leaf, None too.
    """
    leaves: list[Any] = []
    return leaves, _spec(tree, leaves)


def unflatten(leaves: Iterable[Any], spec: TreeSpec) -> Any:
    """The tree with these leaves."""
    return _tree(iter(leaves), spec)


def leaves_of(tree: Any) -> list[Any]:
    """The leaves of a tree, in order."""
    return flatten(tree)[0]


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with the function applied to each leaf."""
    leaves, spec = flatten(tree)
    return unflatten(map(function, leaves), spec)


def _spec(tree: Any, leaves: list[Any]) -> TreeSpec:
    kind = type(tree)
    if kind in (dict, OrderedDict):
        return TreeSpec(kind, tuple(tree), tuple([_spec(each, leaves) for each in tree.values()]))
    if kind in (tuple, list) or _is_named_tuple(kind):
        return TreeSpec(kind, (), tuple([_spec(each, leaves) for each in tree]))
    leaves.append(tree)
    return _LEAF


def _tree(leaves: Iterator[Any], spec: TreeSpec) -> Any:
    if spec.kind is None:
        return next(leaves)
    children = [_tree(leaves, child) for child in spec.children]
    if spec.keys:
        return spec.kind(zip(spec.keys, children, strict=True))
    return spec.kind(*children) if _is_named_tuple(spec.kind) else spec.kind(children)


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")

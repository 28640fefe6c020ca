"""Trees of tuples, lists and dictionaries."""

from collections import OrderedDict, namedtuple

import pytest

from pyro_vae.system.trees import flatten, leaves_of, map_leaves, unflatten

Pair = namedtuple("Pair", ["first", "second"])
TREES = [
    3,
    None,
    (),
    {},
    (1, [2, {"a": 3, "b": (4, None)}], "five"),
    Pair([1], {"x": Pair(2, 3)}),
    OrderedDict(b=1, a=[2]),
]


@pytest.mark.parametrize("tree", TREES, ids=repr)
def test_a_tree_is_its_leaves_and_its_spec(tree):
    leaves, spec = flatten(tree)
    again = unflatten(leaves, spec)
    assert again == tree
    assert type(again) is type(tree)
    assert spec.num_leaves == len(leaves)
    assert not any(isinstance(leaf, tuple | list | dict) for leaf in leaves)


def test_leaves_are_in_order_and_mapped():
    assert leaves_of({"b": (1, 2), "a": [3]}) == [1, 2, 3]
    assert map_leaves(lambda leaf: 10 * leaf, {"b": (1, 2), "a": [3]}) == {"b": (10, 20), "a": [30]}


def test_specs_tell_structures_apart():
    trees = [(1,), [1], {"a": 1}, {"b": 1}, OrderedDict(a=1), ((1,),), (1, 2), Pair(1, 2), [], (), {}]
    specs = [flatten(tree)[1] for tree in trees]
    assert len(set(specs)) == len(trees)
    assert flatten((5, {"x": "y"}))[1] == flatten((6, {"x": "z"}))[1]

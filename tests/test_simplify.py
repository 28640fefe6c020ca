"""Simpler graphs: the same results of fewer operations."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pyro_vae.infer.recording.operations import operations
from pyro_vae.infer.recording.simplify import simplify

aten = torch.ops.aten
X = torch.linspace(-2.0, 2.0, 12).reshape(3, 4)
WEIGHT = torch.nn.Parameter(torch.ones(3, 4))


def folded(graph):
    """The constants that were computed, by name."""
    return {name: value for name, value in graph.named_buffers() if name.startswith("_folded")}


def simplified(function):
    """The operations of the simplified graph, which gives the results of the function."""
    graph = operations(function, X)
    simplify(graph)
    for x in (X, -X.square(), torch.full_like(X, float("nan"))):
        assert_close(graph(x.clone()), function(x.clone()), rtol=0, atol=0, equal_nan=True)
    assert folded(graph).keys() == {node.target for node in graph.graph.nodes if "_folded" in node.name}
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 1 / 1.0 + 0 - 0,
        lambda x: x * torch.ones_like(x),
        lambda x: torch.ones(3, 4) * x,
        lambda x: torch.ones(4) * x / torch.ones(1),
        lambda x: x - torch.zeros(3, 4) + torch.tensor(0.0),
        lambda x: x * torch.ones_like(x).neg().neg(),
        lambda x: x.detach().view(3, 4).expand(3, 4).t().t() ** 1,
    ],
)
def test_what_does_nothing_is_dropped(function):
    assert simplified(function) == []


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x * torch.ones(2, 1, 1), [aten.mul.Tensor]),  # another shape
        (lambda x: x * torch.ones(3, 4, dtype=torch.float64), [aten.mul.Tensor]),  # another type
        (lambda x: x * torch.tensor([1.0, 1.0, 1.0, 2.0]), [aten.mul.Tensor]),
        (lambda x: 0 - x, [aten.rsub.Scalar]),
        (lambda x: torch.ones(3, 4) / x, [aten.div.Tensor]),
        (lambda x: torch.zeros(3, 4) - x, [aten.sub.Tensor]),
        (lambda x: torch.add(x, torch.zeros(3, 4), alpha=2.0), [aten.add.Tensor]),
        (lambda x: x * WEIGHT, [aten.mul.Tensor]),  # a parameter will change
        (lambda x: x * torch.rand(()).ceil(), [aten.rand.default, aten.ceil.default, aten.mul.Tensor]),
    ],
)
def test_everything_else_stays(function, expected):
    with torch.random.fork_rng():
        assert simplified(function) == expected


def test_what_is_written_to_stays():
    def function(x):
        ones = torch.ones(3, 4)
        y = x * ones
        ones.add_(1.0)
        z = x + torch.zeros(3, 4)
        z.mul_(2.0)
        return y * ones + z

    assert aten.add_.Tensor in simplified(function)


def test_what_is_written_to_in_a_list_stays():
    def function(x):
        ones, zeros = torch.ones(3, 4), torch.zeros(3, 4)
        torch._foreach_add_([ones, zeros], [x, x])
        return x * ones + zeros

    assert simplified(function) == [
        aten.ones.default,
        aten.zeros.default,
        aten._foreach_add_.List,
        aten.mul.Tensor,
        aten.add.Tensor,
    ]


def test_only_constants_that_are_needed_are_kept():
    graph = operations(lambda x: x * (torch.ones(3, 4).exp() - 1.0), X)
    simplify(graph)
    (kept,) = folded(graph).values()
    assert_close(kept, torch.ones(3, 4).exp() - 1.0)

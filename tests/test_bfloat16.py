"""Recorded graphs whose large products are in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from pyro_vae.infer.recording import bfloat16
from pyro_vae.infer.recording.record import record

aten = torch.ops.aten
SMALL, LARGE = (32, 64, 48), (256, 300, 400)  # rows, inputs, outputs


def product_of(size):
    rows, inputs, outputs = size
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    return (lambda x: [torch.addmm(bias, x, weight.T)]), torch.randn(rows, inputs)


def several_products_of(size):
    rows, inputs, outputs = size
    weights = torch.randn(5, inputs, outputs)
    return (lambda x: [torch.bmm(x, weights)]), torch.randn(5, rows, inputs)


@pytest.mark.parametrize("make", [product_of, several_products_of])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_large_products_are_in_bfloat16_and_small_ones_stay_as_they_are(make, size):
    function, x = make(size)
    graph = record(function, x)
    bfloat16.products_in_bfloat16(graph)
    products = {aten.mm.default, aten.bmm.default, aten.addmm.default}
    (node,) = [each for each in graph.graph.nodes if each.target in products]
    dtypes = {each.meta["val"].dtype for each in node.all_input_nodes}
    assert dtypes == {torch.bfloat16 if size is LARGE else torch.float32}
    (found,), (expected,) = graph(x), function(x)
    assert found.dtype == torch.float32
    if size is SMALL:
        assert torch.equal(found, expected)
    else:
        assert not torch.equal(found, expected)
        assert_close(found, expected, rtol=0, atol=8 * 2**-8 * size[1] ** 0.5)


def test_convolutions_are_in_bfloat16():
    weight, x = torch.randn(4, 2, 3, 3), torch.randn(5, 2, 8, 8)
    graph = record(lambda x: [torch.conv2d(x, weight)], x)
    bfloat16.products_in_bfloat16(graph)
    (node,) = [each for each in graph.graph.nodes if each.target is aten.convolution.default]
    assert {each.meta["val"].dtype for each in node.all_input_nodes} == {torch.bfloat16}
    assert_close(graph(x)[0], torch.conv2d(x, weight), rtol=0, atol=8 * 2**-8 * 18**0.5)

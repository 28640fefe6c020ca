"""Matrix products and convolutions in bfloat16, everything else in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from pyro_vae.infer.recording.operations import TensorKind

aten = torch.ops.aten
CONVOLUTIONS = {aten.convolution.default, aten.convolution_backward.default}
PRODUCTS = {aten.mm.default, aten.bmm.default, *CONVOLUTIONS}

#: Multiplications. With 784 * 400 for each datapoint, bfloat16 (AMX) is slower in batches of 32, and faster from 64 on.
LARGE = 2**24


def products_in_bfloat16(graph: GraphModule) -> None:
    """Rewrites a graph of float32 so that its products take bfloat16, which has 8 bits of precision and half the size.

    Their results are cast back to float32 at once: log-densities, sums and updates lose no precision. Weights stay in
    float32, as in mixed-precision training (Micikevicius et al. 2018, section 3.1). On a CPU, small matrix products
    stay as they are: the casts and the call would take longer.
    """
    _split_sums_from_products(graph)
    casts: dict[Node, Node] = {}

    def cast(node: Node) -> Node:
        """Each tensor is cast once, even if it is used more often, and before it is transposed."""
        if node not in casts:
            with graph.graph.inserting_after(node):
                if node.target is aten.t.default:
                    casts[node] = graph.graph.call_function(aten.t.default, (cast(node.all_input_nodes[0]),))
                else:
                    casts[node] = _to(graph, node, torch.bfloat16)
        return casts[node]

    for node in list(graph.graph.nodes):
        if node.target in PRODUCTS and all(map(_is_float32, node.all_input_nodes)) and _is_faster(node):
            for argument in node.all_input_nodes:
                node.replace_input_with(argument, cast(argument))
            outputs = [node] if isinstance(node.meta["val"], TensorKind) else list(node.users)
            for output in outputs:
                with graph.graph.inserting_after(output):
                    result = _to(graph, output, torch.float32)
                output.replace_all_uses_with(result, delete_user_cb=lambda user, result=result: user is not result)
    graph.graph.lint()
    graph.recompile()


def _split_sums_from_products(graph: GraphModule) -> None:
    for node in list(graph.graph.nodes):
        if node.target is aten.addmm.default and not node.kwargs and _is_float32(node):
            added, first, second = node.args
            if not _is_faster_product(first, second):
                continue
            with graph.graph.inserting_before(node):
                product = graph.graph.call_function(aten.mm.default, (first, second))
                total = graph.graph.call_function(aten.add.Tensor, (product, added))
            product.meta["val"] = total.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(total)
            graph.graph.erase_node(node)


def _is_faster(node: Node) -> bool:
    """Whether a product takes less time in bfloat16, with its casts."""
    return node.target in CONVOLUTIONS or _is_faster_product(*node.args)


def _is_faster_product(first: Any, second: Any) -> bool:
    """The same for a matrix product of these, or for several of them."""
    left, right = first.meta["val"], second.meta["val"]
    return left.device.type != "cpu" or left.shape.numel() * right.shape[-1] >= LARGE


def _to(graph: GraphModule, node: Node, dtype: torch.dtype) -> Node:
    result = graph.graph.call_function(aten._to_copy.default, (node,), {"dtype": dtype})
    result.meta["val"] = node.meta["val"]._replace(dtype=dtype)
    return result


def _is_float32(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, TensorKind) and value.dtype == torch.float32

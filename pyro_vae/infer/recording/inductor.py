"""Recorded graphs compiled to machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_vae.infer.recording.bfloat16 import PRODUCTS
from pyro_vae.infer.recording.operations import TensorKind
from pyro_vae.infer.recording.record import deprecations_ignored
from pyro_vae.system.private_apis import compile_graph, schema_of


@torch.no_grad()
def inductor(graph: GraphModule, *inputs: Tensor) -> Callable[..., Any]:
    """Compiles a recorded graph by Inductor, for inputs of these shapes.

    It takes seconds, and needs a C++ compiler, or Triton on a GPU. Random numbers still come from torch's kernels and
    generators: with the same seed they are the same.

    Raises:
        Exception: If there is no compiler, or Inductor cannot compile the graph.
    """
    lifted, attributes = _attributes_as_inputs(graph)
    with deprecations_ignored():
        run = compile_graph(lifted, [*attributes, *inputs])
    return lambda *inputs: run(*attributes, *inputs)


def _attributes_as_inputs(graph: GraphModule) -> tuple[GraphModule, list[Tensor]]:
    """A copy of the graph with its attributes as inputs: Inductor would treat their values as constants."""
    nodes, attributes = torch.fx.Graph(), {}
    copies: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            if node.target not in attributes:
                attributes[node.target] = nodes.placeholder(node.target.replace(".", "_"))
            copies[node] = attributes[node.target]
    output = nodes.graph_copy(graph.graph, copies)
    nodes.output(output)
    for node in nodes.nodes:
        node.meta = {}  # Inductor makes its own fake values
    lifted = GraphModule(torch.nn.Module(), nodes)
    return lifted, [getattr(graph, name) for name in attributes]


def seconds_saved(graph: GraphModule) -> float:
    """About how much time Inductor saves at each run, by fusing operations and reading memory less often.

    The rule is rough, but it gives the same number in every run, which a measurement does not.
    """
    seconds = 0.0
    for node in graph.graph.nodes:
        value, operation = node.meta.get("val"), node.target
        schema = schema_of(operation)
        if schema is None or not isinstance(value, TensorKind) or operation in _KEPT:
            continue
        is_view = any(argument.alias_info is not None for argument in schema.arguments)
        seconds += 0.0 if is_view else 4e-6 + 2e-10 * value.shape.numel()
    return seconds


_KEPT = PRODUCTS | {torch.ops.aten.addmm.default}

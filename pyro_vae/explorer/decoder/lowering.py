"""From an exported graph to the operations that JavaScript runs."""

from __future__ import annotations

from typing import Any

from pyro_vae.explorer.decoder import elementwise, movements, products, reductions
from pyro_vae.explorer.decoder.program import Program
from pyro_vae.explorer.decoder.translation import Translation

OPERATORS = {**elementwise.OPERATORS, **reductions.OPERATORS, **products.OPERATORS, **movements.OPERATORS}


def lower(exported: Any) -> Program:
    """Translates an exported graph.

    What depends on weights alone is computed here. What only moves values (views, slices, padding, upsampling) becomes
    strides or a list of positions.

    Args:
        exported: What :func:`~pyro_vae.explorer.decoder.tracing.trace` returns.

    Raises:
        ValueError: If the graph has an operator that the page cannot compute; the message names it.
    """
    translation = Translation(OPERATORS)
    signature = exported.graph_signature
    held = {**exported.state_dict, **exported.constants}
    targets = {spec.arg.name: spec.target for spec in signature.input_specs if spec.target is not None}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            if node.name in targets:
                translation.values[node] = held[targets[node.name]].detach()
            else:
                translation.input(node)
        elif node.op == "get_attr":
            translation.values[node] = getattr(exported.graph_module, node.target)
        elif node.op == "call_function":
            translation.call(node)
        elif node.op == "output":
            translation.output(node)
    return translation.program

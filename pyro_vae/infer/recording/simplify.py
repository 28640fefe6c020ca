"""Simpler graphs: fewer operations, the same results."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from pyro_vae.infer.recording.operations import TensorKind, shared_arguments
from pyro_vae.system.private_apis import schema_of

aten = torch.ops.aten

# Pyro and autograd add many of these: x / 1, x * 1, x + 0, x ** 1, and views of the whole tensor.
_NEUTRAL = {
    aten.div.Tensor: 1,
    aten.mul.Tensor: 1,
    aten.mul.Scalar: 1,
    aten.add.Tensor: 0,
    aten.sub.Tensor: 0,
    aten.pow.Tensor_Scalar: 1,
}
_COMMUTATIVE = {aten.mul.Tensor, aten.add.Tensor}
_VIEWS = {aten.detach.default, aten.expand.default, aten.view.default, aten.alias.default}
# The shape of the argument determines the result.
_CONSTANT = {aten.ones_like.default, aten.zeros_like.default, aten.full_like.default}
_Constants = dict[Node, Tensor]


def simplify(graph: GraphModule) -> None:
    """Drops operations that are not used or that do nothing, and computes constants once.

    Parameters and other attributes are not constants, since they may change. Tensors that are written to in place, or
    share memory with such a tensor, stay as they are.
    """
    graph.graph.eliminate_dead_code()
    written = _written_in_place(graph)
    _drop_what_does_nothing(graph, written, {})
    constants = _fold_constants(graph, written)
    _drop_what_does_nothing(graph, written, constants)
    _name_constants(graph, constants)
    graph.recompile()


def written_attributes(graph: GraphModule) -> list[Tensor]:
    """The tensors outside of the graph that it writes to, such as running statistics."""
    names = {str(node.target) for node in _written_in_place(graph) if node.op == "get_attr"}
    return [getattr(graph, name) for name in sorted(names)]


def _drop_what_does_nothing(graph: GraphModule, written: set[Node], constants: _Constants) -> None:
    for node in graph.graph.nodes:
        same = _returns_as_it_is(node, constants)
        if same is not None and not {node, same} & written:
            node.replace_all_uses_with(same)
    graph.graph.eliminate_dead_code()


def _returns_as_it_is(node: Node, constants: _Constants) -> Node | None:
    """The node with the same value, if this one does nothing."""
    arguments: tuple[Any, ...] = node.args
    if node.op != "call_function" or not arguments or not isinstance(arguments[0], Node):
        return None
    operation: Any = node.target
    if operation is aten.t.default and arguments[0].target is aten.t.default:
        return arguments[0].all_input_nodes[0]
    if operation in _VIEWS:
        return arguments[0] if _are_alike(node, arguments[0]) else None
    if operation not in _NEUTRAL or node.kwargs:
        return None
    for source, other in [arguments, arguments[::-1]][: 2 if operation in _COMMUTATIVE else 1]:
        if _are_alike(node, source) and _is_everywhere(other, _NEUTRAL[operation], constants):
            return source
    return None


def _are_alike(node: Node, source: Any) -> bool:
    """Whether they have the same shape, strides, dtype and device."""
    kind = node.meta.get("val")
    return isinstance(kind, TensorKind) and isinstance(source, Node) and source.meta.get("val") == kind


def _is_everywhere(value: Any, number: int, constants: _Constants) -> bool:
    """Whether it is this number, or a constant tensor with this number alone."""
    if isinstance(value, Node):
        return value in constants and bool((constants[value] == number).all())
    return value == number


def _fold_constants(graph: GraphModule, written: set[Node]) -> _Constants:
    """The nodes that have the same values in each call."""
    values: _Constants = {}
    for node in graph.graph.nodes:
        if node in written or not _is_pure(node):
            continue
        if node.target in _CONSTANT:
            arguments = node.args[0].meta["val"].empty(), *node.args[1:]
        elif node.target is aten.lift_fresh_copy.default:  # a tensor literal in the program
            arguments = (getattr(graph, node.args[0].target),)
        elif all(argument in values for argument in node.all_input_nodes):
            arguments = map_arg(node.args, values.__getitem__)
        else:
            continue
        value = node.target(*arguments, **map_arg(node.kwargs, values.__getitem__))
        if isinstance(value, Tensor):
            values[node] = value
    return values


def _name_constants(graph: GraphModule, constants: _Constants) -> None:
    """Replaces those that others need by attributes of the graph."""
    for node, value in constants.items():
        if constants.keys() >= node.users.keys():
            continue
        name = f"_folded_{node.name}"
        graph.register_buffer(name, value)
        with graph.graph.inserting_before(node):
            constant = graph.graph.get_attr(name)
        constant.meta["val"] = node.meta.get("val")
        node.replace_all_uses_with(constant)
    graph.graph.eliminate_dead_code()


def _is_pure(node: Node) -> bool:
    """Whether the node is an operation that always has the same result for the same arguments."""
    operation: Any = node.target
    schema = schema_of(operation)
    if schema is None or schema.is_mutable:
        return False
    return torch.Tag.nondeterministic_seeded not in operation.tags and "empty" not in operation.name()


def _written_in_place(graph: GraphModule) -> set[Node]:
    """The nodes whose memory some operation writes to."""
    group: dict[Node, Node] = {}  # by node: the first of those that share its memory
    attributes: dict[str, Node] = {}
    written = set()

    def first(node: Node) -> Node:
        while group.get(node, node) is not node:
            node = group[node]
        return node

    for node in graph.graph.nodes:
        if node.op == "get_attr":
            group[node] = first(attributes.setdefault(node.target, node))
        for argument, writes in _shared_memory(node):
            if writes:
                written.add(argument)
            group[first(node)] = first(argument)
    changed = {first(node) for node in written}
    return {node for node in graph.graph.nodes if first(node) in changed}


def _shared_memory(node: Node) -> Iterator[tuple[Node, bool]]:
    """The arguments whose memory the result of the node may share, and whether the node writes to it."""
    if node.target is operator.getitem:
        yield node.all_input_nodes[0], False
    if node.target is aten.native_batch_norm.default:  # its schema does not say so
        yield from ((each, True) for each in node.args[3:5] if isinstance(each, Node))
    schema = schema_of(node.target)
    if schema is not None:
        shared = shared_arguments(schema, node.args, node.kwargs)
        yield from ((each, writes) for each, writes in shared if isinstance(each, Node))

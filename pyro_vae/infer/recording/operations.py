"""The operations on tensors that a function runs, as a graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils.weak import WeakTensorKeyDictionary

from pyro_vae.system.private_apis import TorchDispatchMode, schema_of
from pyro_vae.system.trees import leaves_of, map_leaves

aten = torch.ops.aten


class NeedsValueError(RuntimeError):
    """A function decides by the value of a tensor, which may be another one in the next call."""


class TensorKind(NamedTuple):
    """What is known of a tensor in a graph: ``node.meta["val"]``. An operation with several results has a list."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> TensorKind:
        """That of a tensor."""
        stride = tensor.stride() if tensor.layout == torch.strided else ()
        return cls(tensor.shape, stride, tensor.dtype, tensor.device)

    def empty(self) -> Tensor:
        """A new tensor of this kind."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


def operations(function: Callable[..., Any], *inputs: Tensor) -> GraphModule:
    """Runs a function once. Returns a graph of its operations; a backward pass inside of it is part of them.

    ``torch.fx.experimental.proxy_tensor.make_fx`` finds the same operations, in three times the time. It also
    imports TorchDynamo, which takes 1.5 seconds.

    Args:
        function: What to run.
        inputs: Its inputs. Other tensors are attributes of the graph: the same objects, not copies.

    Raises:
        NeedsValueError: If the function decides by the value of a tensor.
        NotImplementedError: If it calls what cannot be part of a graph.
        Exception: Whatever the function raises.
    """
    recorder = _Recorder(inputs)
    with _autocast_cache_off(), recorder:
        results = function(*inputs)
    return recorder.graph_with(results)


@contextmanager
def _autocast_cache_off() -> Iterator[None]:
    """Lets each call cast the weights, so that the casts are part of the graph."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


class _Recorder(TorchDispatchMode):
    """Adds each operation to a graph when it runs."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self._graph = Graph()
        self._attributes: dict[str, Tensor] = {}  # the tensors of the graph that are neither inputs nor results
        self._nodes: Any = WeakTensorKeyDictionary()  # by tensor: the node that has this value
        self._constants: Any = WeakTensorKeyDictionary()  # tensors with the same values in each call, such as literals
        for i, tensor in enumerate(inputs):
            self._bind(tensor, self._graph.placeholder(f"input_{i}"))

    def graph_with(self, results: Any) -> GraphModule:
        """The graph that returns these tensors."""
        self._graph.output(map_leaves(self._argument, results))
        return GraphModule(self._attributes, self._graph)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ for kind in types):
            return NotImplemented  # a subclass of Tensor calls the operations that it consists of
        schema = schema_of(func)
        if schema is None:
            raise NotImplementedError(f"{func} cannot be recorded")
        if torch.is_inference_mode_enabled():  # otherwise autograd has done it
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        tensors = [each for each in leaves_of((args, kwargs)) if isinstance(each, Tensor)]
        if torch.Tag.data_dependent_output in func.tags or func is aten.is_nonzero.default:
            if any(map(self._may_change, tensors)):
                raise NeedsValueError(f"{func} needs the value of a tensor")
            return func(*args, **kwargs)
        is_literal = func is aten.lift_fresh.default
        if is_literal:  # each call of the graph gets a new copy, since it may write to it
            func = aten.lift_fresh_copy.default
        in_graph, named = map_leaves(self._argument, (tuple(args), kwargs))
        node = self._graph.create_node("call_function", func, in_graph, named, func.overloadpacket.__name__)
        result = func(*args, **kwargs)
        is_random = torch.Tag.nondeterministic_seeded in func.tags
        is_constant = bool(tensors) and all(each in self._constants for each in tensors) and not is_random
        if schema.is_mutable and not is_constant:
            self._forget_constants([each for each, writes in shared_arguments(schema, args, kwargs) if writes])
        self._bind(result, node, is_constant or is_literal)
        return result

    def _bind(self, value: Any, node: Node, is_constant: bool = False) -> None:
        """Notes that the node has this value."""
        if isinstance(value, Tensor):
            node.meta["val"] = TensorKind.of(value)
            self._nodes[value] = node
            if is_constant:
                self._constants[value] = True
        elif isinstance(value, list | tuple):
            parts = [self._graph.call_function(operator.getitem, (node, i)) for i in range(len(value))]
            for each, part in zip(value, parts, strict=True):
                self._bind(each, part, is_constant)
            node.meta["val"] = [part.meta.get("val") for part in parts]

    def _argument(self, value: Any) -> Any:
        """The node of a tensor; any other value as it is."""
        if isinstance(value, Tensor):
            if value not in self._nodes:
                name = f"tensor_{len(self._attributes)}"
                self._attributes[name] = value
                self._bind(value, self._graph.get_attr(name))
            return self._nodes[value]
        if not isinstance(value, _IN_CODE):
            raise NotImplementedError(f"an argument of type {type(value).__name__} cannot be recorded")
        return value

    def _may_change(self, tensor: Tensor) -> bool:
        """Whether the tensor has other values in other calls. What is outside of the function stays as it is."""
        node = self._nodes.get(tensor)
        return node is not None and node.op != "get_attr" and tensor not in self._constants

    def _forget_constants(self, written: list[Any]) -> None:
        """From now on, the values of these tensors, and of those that share their memory, may change."""
        memory = {each.untyped_storage().data_ptr() for each in written if isinstance(each, Tensor)}
        for each in list(self._constants):
            if each.untyped_storage().data_ptr() in memory:
                del self._constants[each]


def shared_arguments(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, bool]]:
    """The arguments whose memory the result of an operation may share, and whether it writes to them."""
    given = dict(zip([each.name for each in schema.arguments], args, strict=False)) | dict(kwargs)
    for described in schema.arguments:
        if described.alias_info is not None:
            value = given.get(described.name)
            for each in value if isinstance(value, list | tuple) else [value]:
                yield each, described.alias_info.is_write


_IN_CODE = (int, float, complex, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)

"""Every private name of torch and Pyro that the package uses, in this file alone.

Each entry says what a name is for, which versions have it, and what happens without it. If recording needs the name,
nothing is recorded, and programs run as Pyro runs them: the results are the same, but slower. The tests run with the
first and the last of the versions that an entry lists.

Not listed: what subclasses of ``torch.distributions.Distribution``, ``nn.Module`` and ``pyro.poutine.Messenger`` are
meant to use or to override, such as ``_validate_args`` of ``self``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pyro.infer.util
import pyro.poutine.runtime
import pyro.util
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, transforms
from torch.fx import GraphModule
from torch.optim import AdamW, Optimizer
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.overrides import TorchFunctionMode

from pyro_vae.system.kernel_source import Kernel, is_usual, one_source

# Recording


_HELD = ("_parameters", "_buffers", "_modules")
_NEEDED: dict[str, tuple[Any, str]] = {
    "pyro.poutine.runtime._PYRO_STACK": (pyro.poutine.runtime, "_PYRO_STACK"),
    "pyro.infer.util.torch": (pyro.infer.util, "torch"),
    "pyro.util.torch_isnan": (pyro.util, "torch_isnan"),
    "Distribution._validate_sample": (Distribution, "_validate_sample"),
    "torch.utils._python_dispatch.TorchDispatchMode": (torch.utils._python_dispatch, "TorchDispatchMode"),
    "OpOverload._schema": (torch.ops.aten.add.Tensor, "_schema"),
    "Tensor._backward_hooks": (Tensor, "_backward_hooks"),
    **{f"Module.{name}": (nn.Module(), name) for name in _HELD},
}


def check_recording() -> None:
    """Checks that the private names are there without which recording would be wrong.

    Raises:
        NotImplementedError: If some are not: then nothing can be recorded.
    """
    missing = [name for name, (owner, attribute) in _NEEDED.items() if not hasattr(owner, attribute)]
    if missing:
        versions = f"torch {torch.__version__} and Pyro {pyro.__version__}"
        raise NotImplementedError(f"{versions} do not have {', '.join(missing)}")


def handlers_are_active() -> bool:
    """Whether effect handlers of Pyro are around the caller, which a replayed step would not see.

    ``_PYRO_STACK`` has them (Pyro 1.9.1 to 1.9.2). Without it: True, so that nothing is recorded.
    """
    stack = getattr(pyro.poutine.runtime, "_PYRO_STACK", None)
    return stack is None or len(stack) > 0


def has_gradient_hooks(tensor: Tensor) -> bool:
    """Whether somebody wants to be told of the gradient of a tensor, which a replayed step would not do.

    ``Tensor._backward_hooks`` has them (torch 2.7 to 2.15). Without it: True, so that nothing is recorded.
    """
    return bool(getattr(tensor, "_backward_hooks", True))


def held_by(module: nn.Module) -> list[dict[str, Any]]:
    """The parameters, buffers and submodules of a module by name: the dictionaries that change when the module does.

    ``_parameters``, ``_buffers`` and ``_modules`` of ``nn.Module`` (torch 2.7 to 2.15). Without them: copies by the
    public methods, which do not change; :func:`check_recording` fails then, since a recorded step would not notice a
    change.
    """
    if all(hasattr(module, name) for name in _HELD):
        return [getattr(module, name) for name in _HELD]
    parameters, buffers = module.named_parameters(recurse=False), module.named_buffers(recurse=False)
    return [dict(parameters), dict(buffers), dict(module.named_children())]


def decompositions(names: Sequence[str]) -> dict[Any, Callable[..., Any]]:
    """How operators of ``torch.ops.aten`` are made of simpler ones, for ``run_decompositions`` of an exported program.

    ``torch._decomp.get_decompositions`` has them (torch 2.7 to 2.15). Without it: none, so that an exported program
    keeps these operators.
    """
    find = getattr(getattr(torch, "_decomp", None), "get_decompositions", None)
    known = [getattr(torch.ops.aten, name) for name in names if hasattr(torch.ops.aten, name)]
    return {} if find is None else find(known)


def schema_of(operation: Any) -> Any | None:
    """Which arguments an operation of a graph writes to, or shares memory with; None for what is no such operation.

    ``OpOverload._schema`` knows (torch 2.7 to 2.15). Without it: :func:`check_recording` fails.
    """
    return operation._schema if isinstance(operation, type(torch.ops.aten.add.Tensor)) else None


def value_checks() -> list[tuple[Any, str]]:
    """Owner and name of the functions by which Pyro and torch look at values to warn or to raise.

    They are disabled while something is recorded. ``pyro.util.torch_isnan`` (Pyro 1.9.1 to 1.9.2) and
    ``Distribution._validate_sample`` (torch 2.7 to 2.15). Without one: :func:`check_recording` fails.
    """
    return [(pyro.util, "torch_isnan"), (Distribution, "_validate_sample")]


def sums_without_selection() -> list[tuple[Any, str, Any]]:
    """Owner, name and temporary value of what lets the expectations of ``TraceEnum_ELBO`` be recorded.

    Pyro selects the terms of positive probability, unless all are positive. If it is traced, which it asks
    ``torch._C._get_tracing_state`` (Pyro 1.9.1 to 1.9.2), it always selects. While recording it is told so, and zeros
    replace the terms that are not selected. In a sum of products they have the same effect, and the number of terms
    does not depend on their values. If Pyro no longer asks, such a loss cannot be recorded, and its steps run as in
    Pyro.
    """
    return [(pyro.infer.util, "torch", _TorchThatTraces()), (Tensor, "masked_select", _with_zeros)]


def _with_zeros(terms: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, terms, torch.zeros_like(terms)).reshape(-1)


class _TorchThatTraces:
    _C = SimpleNamespace(_get_tracing_state=lambda: True)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


# Speed


def compile_graph(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Machine code for a graph, which draws random numbers from torch's generators.

    By ``torch._inductor.compile`` (torch 2.7 to 2.15). ``reorder_for_locality`` is off, since in torch 2.7 it changes
    the order of random draws. Inductor is told that the C++ compiler knows the instructions of this processor: to try
    them all takes up to nine seconds. If it does not, nothing can be compiled, and they are tried after all.

    Raises:
        Exception: If it cannot be compiled, or the function is gone: then the graph is replayed as it is.
    """
    from torch import _inductor  # imports take a second

    def compiled(examples: list[Any], **options: Any) -> Callable[..., Any]:
        options = {"fallback_random": True, "reorder_for_locality": False, **options}
        with _few_libraries():
            return _inductor.compile(graph, examples, options=options)

    for examples in (_described(inputs), list(inputs)):  # torch 2.7 fails where it finds what was compiled before
        try:
            return compiled(examples, **{"cpp.vec_isa_ok": True})
        except Exception:
            continue
    _forget_instructions()
    return compiled(list(inputs))


def _described(inputs: Sequence[Tensor]) -> list[Any]:
    """Fake tensors with the fixed shapes of these, so that Inductor finds what an earlier process has compiled.

    It looks only if the fake tensors have a ``ShapeEnv`` (torch 2.8 to 2.15). Without these names: the tensors
    themselves, so that everything but the C++ compiler's part is done again.
    """
    from torch._subclasses import fake_tensor
    from torch.fx.experimental import symbolic_shapes

    if not (hasattr(fake_tensor, "FakeTensorMode") and hasattr(symbolic_shapes, "ShapeEnv")):
        return list(inputs)
    mode = fake_tensor.FakeTensorMode(shape_env=symbolic_shapes.ShapeEnv())
    return [mode.from_tensor(each, static_shapes=True) for each in inputs]


def _forget_instructions() -> None:
    """Lets Inductor find out anew what the compiler knows. ``valid_vec_isa_list`` keeps it (torch 2.7 to 2.15)."""
    from torch._inductor import cpu_vec_isa

    forget = getattr(getattr(cpu_vec_isa, "valid_vec_isa_list", None), "cache_clear", None)
    if forget is not None:
        forget()


@contextmanager
def _few_libraries() -> Iterator[None]:
    """Lets Inductor make one library for each thread of its compiler, rather than one for each kernel in C++.

    A compiler spends most of its time on what all kernels include. ``AsyncCompile`` collects kernels by
    ``cpp_pybinding``, and compiles them at the latest in ``wait``; ``CppPythonBindingsCodeCache`` makes functions of
    Python of them (torch 2.7 to 2.15). If torch no longer has these names: one library for each kernel.
    """
    from torch._inductor import async_compile

    collector: Any = getattr(async_compile, "AsyncCompile", None)
    if not all(hasattr(collector, name) for name in _COLLECTS):
        yield
        return
    this_thread, kernels = threading.get_ident(), list[Kernel]()
    compile_now, wait = collector.cpp_pybinding, collector.wait

    def collect(self: Any, argtypes: Sequence[str], source: str) -> Any:
        if threading.get_ident() != this_thread or not is_usual(source):
            return compile_now(self, argtypes, source)
        kernels.append(Kernel(argtypes, source))
        return kernels[-1]

    def compile_all(self: Any, scope: dict[str, Any]) -> None:
        if threading.get_ident() == this_thread:
            try:
                functions = _functions(kernels, async_compile)
            except Exception:  # nothing is lost but time
                functions = [compile_now(self, *kernel) for kernel in kernels]
            made = dict(zip(map(id, kernels), functions, strict=True))
            scope.update({name: made[id(value)] for name, value in scope.items() if isinstance(value, Kernel)})
            kernels.clear()
        wait(self, scope)

    collector.cpp_pybinding, collector.wait = collect, compile_all
    try:
        yield
    finally:
        collector.cpp_pybinding, collector.wait = compile_now, wait


_COLLECTS = ("cpp_pybinding", "submit", "wait")


def _functions(kernels: Sequence[Kernel], async_compile: Any) -> list[Callable[..., None]]:
    """The kernels as functions of Python, from as many libraries as there are threads to compile in."""
    threads = async_compile.get_compile_threads()
    submit = async_compile.AsyncCompile.submit if threads > 1 else None
    functions: list[Any] = [None] * len(kernels)
    libraries = [
        _library(async_compile.CppPythonBindingsCodeCache, kernels[i::threads], submit)
        for i in range(min(threads, len(kernels)))
    ]
    for i, library in enumerate(libraries):
        functions[i::threads] = library()()
    return functions


def _library(cache: Any, kernels: Sequence[Kernel], submit: Any) -> Callable[[], Callable[[], tuple[Any, ...]]]:
    """Starts to compile kernels. Returns a function that waits for the library, and gives what returns its kernels."""
    source = one_source(kernels)
    parts = {
        "extra_parse_arg": source.bindings.replace("{", "{{").replace("}", "}}"),
        "call_entry_function": source.entry,
    }
    library: Any = type("Library", (cache,), parts)
    return library.load_pybinding_async([], source.kernels, submit_fn=submit)


def has_bfloat16() -> bool:
    """Whether the CPU has instructions for products in bfloat16.

    ``torch.ops.mkldnn._is_mkldnn_bf16_supported`` knows (torch 2.7 to 2.15). Without it: False, so that float32 is
    used, with a warning.
    """
    try:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except AttributeError:
        return False


def import_dynamo_late() -> None:
    """Lets optimizers be made, saved and loaded without TorchDynamo, whose import takes 1.5 seconds.

    ``torch._disable_dynamo`` imports it to exclude methods of ``Optimizer`` from it (torch 2.7 to 2.15), and keeps the
    function that it then calls as ``__dynamo_disable``. As long as nothing else has imported TorchDynamo, there is
    nothing to be excluded from. If torch no longer has these names, only the time is lost.
    """
    for name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad"):
        method = getattr(Optimizer, name)
        function = getattr(method, "__wrapped__", None)
        if function is not None and not hasattr(function, _REPLACED):
            setattr(function, _REPLACED, _without_dynamo(method, function))


def _without_dynamo(method: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **kwargs)
        if getattr(function, _REPLACED, None) is call:
            delattr(function, _REPLACED)
        return method(*args, **kwargs)

    return call


_REPLACED = "__dynamo_disable"


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether an optimizer calls functions around its steps, which an update by one kernel would not.

    ``_optimizer_step_pre_hooks`` and ``_optimizer_step_post_hooks`` have them (torch 2.7 to 2.15). Without these: True,
    so that the optimizer steps by itself.
    """
    names = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    return any(bool(getattr(optimizer, name, True)) for name in names)


def update_by_adam(
    kind: type[Optimizer],
    parameters: list[Tensor],
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    largest: list[Tensor],
    steps: list[Tensor],
    **options: Any,
) -> None:
    """A step of Adam or AdamW by one kernel, for tensors of one device and dtype.

    By ``torch._fused_adam_``, ``torch._fused_adamw_`` and ``torch._foreach_add_`` (torch 2.7 to 2.15). Without them: by
    ``torch.optim``'s functions, which call them, and which look at all tensors first.

    Args:
        kind: ``torch.optim.Adam`` or ``AdamW``.
        parameters: What is updated.
        gradients: Their gradients.
        first: The first moments.
        second: The second moments.
        largest: The largest second moments so far; empty without ``amsgrad``.
        steps: The numbers of steps so far.
        options: The settings by name.
    """
    is_decoupled = kind is AdamW
    update = getattr(torch, "_fused_adamw_" if is_decoupled else "_fused_adam_", None)
    if update is not None and hasattr(torch, "_foreach_add_"):
        torch._foreach_add_(steps, 1)
        update(parameters, gradients, first, second, largest, steps, **options)
    else:
        by_torch = adamw if is_decoupled else adam
        by_torch(parameters, gradients, first, second, largest, steps, fused=True, **options)


def mark_as_stepped(optimizer: Any) -> None:
    """Keeps schedulers from warning that the optimizer never stepped, where it stepped by one kernel, or was loaded.

    They look at ``_opt_called`` (torch 2.7 to 2.15). If they no longer do, they may warn without need.
    """
    optimizer._opt_called = True


def scale_in_place(tensors: list[Tensor], factor: float) -> None:
    """Multiplies all tensors by a number, by one kernel.

    By ``torch._foreach_mul_`` (torch 2.7 to 2.15). Without it: one after the other.
    """
    if hasattr(torch, "_foreach_mul_"):
        torch._foreach_mul_(tensors, factor)
    else:
        for tensor in tensors:
            tensor.mul_(factor)


# Looking at operations, modules and distributions


def is_transforming() -> bool:
    """Whether a transform of ``torch.func``, such as ``vmap`` or ``jacrev``, runs the caller.

    ``torch._C._functorch.peek_interpreter_stack`` knows (torch 2.7 to 2.15), and ``torch.compile`` understands it.
    Without it: False, so that checks of values fail under ``vmap``, and derivatives of ``VAE.encode`` are zero.
    """
    peek = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
    return peek is not None and peek() is not None


class _FunctionMode(TorchFunctionMode):
    """Sees functions of torch as they are called, rather than the operations that they consist of."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        mode: Any = self
        return mode.__torch_dispatch__(func, types, args, kwargs)


# Lets a subclass see every operation, by __torch_dispatch__ (torch 2.7 to 2.15). Without it: calls of functions, and
# nothing is recorded.
try:
    from torch.utils._python_dispatch import TorchDispatchMode as _TorchDispatchMode

    class TorchDispatchMode(_TorchDispatchMode):
        """Torch's, without a wrapper that imports torch's compiler, a thousand modules, for the first operation."""

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False
except ImportError:
    TorchDispatchMode = _FunctionMode  # type: ignore[assignment,misc]  # a stand-in with the same protocol


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to, as ``_version`` counts (torch 2.7 to 2.15).

    Without it: 0; callers compare the values too.
    """
    return getattr(tensor, "_version", 0)


def standard_gamma(concentration: Tensor) -> Tensor:
    """Draws from gamma distributions of rate 1.

    By ``torch._standard_gamma`` (torch 2.7 to 2.15). Without it: by ``torch.distributions.Gamma``.
    """
    if hasattr(torch, "_standard_gamma"):
        return torch._standard_gamma(concentration)
    return torch.distributions.Gamma(concentration, 1.0, validate_args=False).sample()


def mask_of(distribution: Any) -> Any:
    """The mask of a ``MaskedDistribution``, a tensor or a flag: ``_mask`` (Pyro 1.9.1 to 1.9.2).

    Without it: where the log-density of a draw is not 0. (It is also 0 for a value that has probability 1.)
    """
    if hasattr(distribution, "_mask"):
        return distribution._mask
    with torch.random.fork_rng():
        return distribution.log_prob(distribution.sample()) != 0


def inverse_of(transform: Any) -> Any | None:
    """The transform that this one is the inverse of; None if it is no inverse.

    ``_inv`` of an ``_InverseTransform`` (torch 2.7 to 2.15). Without the class: None.
    """
    kind = getattr(transforms, "_InverseTransform", None)
    return transform._inv if kind is not None and isinstance(transform, kind) else None


def validates(distribution: Any) -> bool:
    """Whether a distribution, or a class of them, checks its arguments and values.

    ``_validate_args`` says so (torch 2.7 to 2.15). Without it: True.
    """
    return getattr(distribution, "_validate_args", True)


def unsaved_buffers(module: nn.Module) -> set[str]:
    """The names of the buffers of a module that are not saved with it.

    ``_non_persistent_buffers_set`` (torch 2.7 to 2.15). Without it: those that are not in its ``state_dict``.
    """
    try:
        return module._non_persistent_buffers_set
    except AttributeError:
        return {name for name, _ in module.named_buffers(recurse=False)} - module.state_dict().keys()


def constraint_of(name: str) -> Any:
    """The constraint of a parameter in Pyro's store.

    The store has them as ``_constraints`` (Pyro 1.9.1 to 1.9.2). Without it: from the store's state, which drops what
    the parameters know of their unconstrained values.
    """
    store = pyro.get_param_store()
    constraints = getattr(store, "_constraints", None)
    return (store.get_state()["constraints"] if constraints is None else constraints)[name]

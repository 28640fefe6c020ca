"""Kernels that Inductor has written in C++, together in one source: a compiler begins once for all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_HEAD = re.compile(r'extern "C"\s+void\s+kernel\(')


class Kernel(NamedTuple):
    """A source that defines a function ``kernel`` with arguments of these types."""

    argtypes: Sequence[str]
    source: str


class OneSource(NamedTuple):
    """The parts of a source in C++ from which a module of Python is made."""

    kernels: str
    bindings: str  #: How Python calls them.
    entry: str  #: The body of the function that returns the kernels to Python, as a tuple.


def is_usual(source: str) -> bool:
    """Whether the source of a kernel can be in a file with others."""
    return len(_HEAD.findall(source)) == 1 and "#define" not in source


def one_source(kernels: Sequence[Kernel]) -> OneSource:
    """Puts kernels with usual sources together, each in a namespace of its own."""
    parts = dict.fromkeys(line for each in kernels for line in each.source.splitlines() if line.startswith("#include"))
    bindings, methods = ARGUMENT, ""
    for i, (argtypes, source) in enumerate(kernels):
        parts[f"namespace kernel_{i} {{\n{_HEAD.sub('static void kernel(', source)}\n}}"] = None
        arguments = ", ".join(f"argument<{kind.replace('const ', '')}>(args[{n}])" for n, kind in enumerate(argtypes))
        bindings += _BINDING % {"i": i, "count": len(argtypes), "arguments": arguments}
        methods += f'{{"kernel", (PyCFunction)(void (*)())kernel_{i}_py, METH_FASTCALL, ""}},\n'
    bindings += f"static PyMethodDef methods[] = {{\n{methods}}};\n"
    return OneSource("\n".join(parts), bindings, _ENTRY % {"count": len(kernels)})


# _torchinductor_pyobject_tensor_data_ptr is declared by Inductor, in front of the bindings
ARGUMENT = """
template <typename T> static T argument(PyObject* value) {
    T result;
    if constexpr (std::is_pointer_v<T>) result = static_cast<T>(_torchinductor_pyobject_tensor_data_ptr(value));
    else if constexpr (std::is_floating_point_v<T>) result = static_cast<T>(PyFloat_AsDouble(value));
    else result = static_cast<T>(PyLong_AsLongLong(value));
    if (PyErr_Occurred()) throw std::runtime_error("an argument has another type");
    return result;
}
"""
_BINDING = """
static PyObject* kernel_%(i)d_py(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
    try {
        if (nargs != %(count)d) throw std::runtime_error("requires %(count)d args");
        kernel_%(i)d::kernel(%(arguments)s);
        Py_RETURN_NONE;
    } catch (std::exception const& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
        return nullptr;
    }
}
"""
_ENTRY = """
PyObject* all = PyTuple_New(%(count)d);
for (Py_ssize_t i = 0; i < %(count)d; i++) PyTuple_SET_ITEM(all, i, PyCFunction_New(&methods[i], nullptr));
return all;
"""

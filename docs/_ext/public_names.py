"""References to an object by the file in which it is defined, and what the pages of classes leave out.

A signature names a class by its file (``pyro_vae.evidence.results.evidence.Evidence``), a page by the package that
exports it (``pyro_vae.evidence.Evidence``).
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from public import public_names
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

# How signatures name objects of other libraries: by their files, or by a name that only type checkers import.
ELSEWHERE = {
    "Distribution": "torch.distributions.distribution.Distribution",
    "Figure": "matplotlib.figure.Figure",
    "Module": "torch.nn.Module",
    "Path": "pathlib.Path",
    "Tensor": "torch.Tensor",
    "np.ndarray": "numpy.ndarray",
    "nn.Module": "torch.nn.Module",
    "pandas.core.frame.DataFrame": "pandas.DataFrame",
    "pathlib._local.Path": "pathlib.Path",
    "pandas.core.series.Series": "pandas.Series",
    "pd.DataFrame": "pandas.DataFrame",
    "pyro.distributions.torch_distribution.TorchDistribution": "pyro.distributions.TorchDistribution",
    "torch.nn.modules.container.Sequential": "torch.nn.Sequential",
    "torch.nn.modules.module.Module": "torch.nn.Module",
    "torch.optim.optimizer.Optimizer": "torch.optim.Optimizer",
}


def by_file() -> dict[str, list[str]]:
    """The public names of each object, by the name of its file and by each of its public names."""
    found: dict[str, list[str]] = {}
    for name, value in public_names().items():
        if not isinstance(value, str):
            found.setdefault(f"{value.__module__}.{getattr(value, '__qualname__', name)}", []).append(name)
    return found | {name: names for names in found.values() for name in names}


PUBLIC = by_file()


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Finds the page of an object of this library, and the name in an inventory of an object of another."""
    target = node.get("reftarget", "")
    node["reftarget"] = ELSEWHERE.get(target, target)  # for the extension intersphinx, which is called next
    domain = env.get_domain("py")
    for name in PUBLIC.get(target, []):
        if name in domain.objects:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)
    return None


def is_elsewhere(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out what a class inherits from torch, Pyro, scikit-learn or Python."""
    owner = getattr(value, "fget", None) or getattr(value, "__objclass__", value)
    module = getattr(owner, "__module__", None)
    return True if isinstance(module, str) and not module.startswith("pyro_vae") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects these functions to Sphinx."""
    app.connect("missing-reference", resolve, priority=400)
    app.connect("autodoc-skip-member", is_elsewhere)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

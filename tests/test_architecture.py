"""The house: imports run one way, no module has the name of a function beside it, and what is public is said once."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

import pyro_vae

PACKAGE = Path(pyro_vae.__file__).parent
MODULES = {
    ".".join(("pyro_vae", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# From the bottom to the top. A module imports what is below it, or in its own folder.
LAYERS = [
    "system",
    "checks html_table notebook_figure",
    "programs plots processes scripts saving exporting",
    "distributions data nn",
    "priors likelihoods posteriors weights",
    "models infer representation",
    "evidence training",
    "tables",
    "explorer",
    "pyro_vae",
    "cli",
    "sklearn __main__",
]
EVIDENCE = ["proposals", "runner", "unconstrained", "results", "ladder", "draws", "estimators", "diagnostics"]
INFER = [
    "kl_weight optimizers reparameterized gradient_moments recording",
    "pyro_step losses",
    "recorded_step",
    "svi gradient_noise",
]
# The modules with a list of public names that are not packages; one passes zuko on.
PUBLIC = {
    "data.binarize",
    "distributions.zuko_import",
    "infer.kl_weight",
    "plots",
    "processes",
    "scripts",
    "sklearn",
    "weights",
}


def imports(path):
    """What a module imports from the package when it runs: not what only type checkers read."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyro_vae"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("pyro_vae"))


def upward(layers, package):
    """Imports among the members of a package that do not run downward."""
    height = {name: i for i, layer in enumerate(layers) for name in layer.split()}

    def member(module):
        if module == package:
            return "pyro_vae" if package == "pyro_vae" else None  # the face of another package only gathers
        return module.removeprefix(f"{package}.").partition(".")[0] if module.startswith(f"{package}.") else None

    found = []
    for module, path in MODULES.items():
        mine = member(module)
        for imported in imports(path) if mine else ():
            other = member(imported)
            if other and other != mine and height[other] >= height[mine]:
                found.append(f"{module} imports {imported}")
    return sorted(set(found))


@pytest.mark.parametrize(
    ("layers", "package"),
    [(LAYERS, "pyro_vae"), (EVIDENCE, "pyro_vae.evidence"), (INFER, "pyro_vae.infer")],
    ids=["pyro_vae", "evidence", "infer"],
)
def test_imports_run_one_way(layers, package):
    assert not upward(layers, package)


def test_it_would_be_seen_if_they_did_not():
    assert "pyro_vae.cli.train imports pyro_vae.training" not in upward(LAYERS, "pyro_vae")
    assert upward(list(reversed(LAYERS)), "pyro_vae")


def test_no_module_imports_itself_by_a_detour():
    graph = {module: set(imports(path)) - {module} for module, path in MODULES.items()}
    ordered = set()
    while len(ordered) < len(graph):
        free = {module for module in graph.keys() - ordered if graph[module] <= ordered}
        assert free, f"cycle among {sorted(graph.keys() - ordered)}"
        ordered |= free


@pytest.mark.parametrize("name", [module for module, path in MODULES.items() if path.name == "__init__.py"])
def test_no_module_is_shadowed_by_what_its_package_exports(name):
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__):
        assert isinstance(getattr(package, module.name, package), ModuleType), f"{name}.{module.name}"


def test_one_module_writes_files():
    """What it writes is complete at any time; pictures are drawn in memory first."""
    writes = re.compile(r"""\.write_(bytes|text)\(|\bopen\([^)]*["'][wax]b?["']|\.savefig\((?!content|buffer)""")
    found = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and writes.search(ast.unparse(node))
    }
    assert found == {"pyro_vae.system.files"}


def public_names():
    """``__all__`` of each module that has one."""
    modules = {name: importlib.import_module(name) for name in MODULES if name != "pyro_vae.__main__"}
    return {name: module.__all__ for name, module in modules.items() if hasattr(module, "__all__")}


def test_all_lists_names_that_exist():
    missing = [
        f"{module}.{name}"
        for module, names in public_names().items()
        for name in names
        if not hasattr(importlib.import_module(module), name)
    ]
    assert not missing


def test_only_what_users_import_has_a_list_of_names():
    """Packages, and the modules that are public without being packages. Elsewhere an underscore says what is private."""
    packages = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    lists = {module.removeprefix("pyro_vae.") for module in public_names().keys() - packages}
    assert lists == PUBLIC

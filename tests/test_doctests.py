"""The examples in docstrings run, and every public name has one."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pyro
import pytest
import torch

import pyro_vae
from pyro_vae import VAE, likelihoods, nn, posteriors, priors
from pyro_vae.infer import losses

PACKAGE = Path(pyro_vae.__file__).parent
SOURCES = {
    ".".join(("pyro_vae", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path.read_text()
    for path in sorted(PACKAGE.rglob("*.py"))
}
# Packages with public names; pyro_vae.cli is a command line.
PUBLIC = [name for name, source in SOURCES.items() if "\n__all__" in source and not name.startswith("pyro_vae.cli")]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def namespace():
    """What an example may use without an import: the face of the package, and a small VAE with data."""
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(nn.mlp(2, [8], (1, 4, 4))),
        posteriors.Normal(nn.mlp((1, 4, 4), [8], 4)),
    )
    x = torch.bernoulli(torch.full((8, 1, 4, 4), 0.5))
    public = {name: getattr(pyro_vae, name) for name in pyro_vae.__all__}
    here = {"torch": torch, "pyro": pyro, "pyro_vae": pyro_vae, "losses": losses}
    return {**public, **here, "vae": vae, "x": x}


def failures(examples):
    """What the runner says of the examples that fail."""
    said = []
    doctest.DocTestRunner(optionflags=FLAGS).run(examples, out=said.append)
    return "".join(said)


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if ">>>" in source])
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [each for each in doctest.DocTestFinder().find(importlib.import_module(name), globs={}) if each.examples]
    assert found
    for each in found:
        pyro.clear_param_store()
        each.globs = namespace()
        said = failures(each)
        assert not said, said


def test_an_example_that_is_wrong_is_seen():
    assert "Expected:" in failures(doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None))


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_has_an_example(package):
    module = importlib.import_module(package)
    public = {name: getattr(module, name) for name in module.__all__}
    told = {name: each for name, each in public.items() if inspect.isclass(each) or inspect.isfunction(each)}
    assert not [name for name, each in told.items() if ">>>" not in (each.__doc__ or "")]


def test_what_type_checkers_ignore_has_its_reason_beside_it():
    """``type: ignore`` has its code and then a comment, in the same line."""
    bare = [
        f"{name}: {line.strip()}"
        for name, source in SOURCES.items()
        for line in source.splitlines()
        if "# type: ignore" in line and not re.search(r"# type: ignore\[[a-z, -]+\]  # \w", line)
    ]
    assert not bare

"""What takes seconds to import is imported when something needs it: not for help, errors of usage, or ``info``."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import small_vae

import pyro_vae
from pyro_vae import data, fit, load, save, saving
from pyro_vae.cli import main
from pyro_vae.cli.architecture import TABLES
from pyro_vae.saving import CheckpointError
from pyro_vae.saving.checkpoint import read, write
from pyro_vae.saving.file_names import BEST, LAST
from pyro_vae.system.tensor_files import ChecksumError, from_bytes, text_of, to_bytes

COMMANDS = ["train", "evaluate", "sample", "plot", "explore", "score", "encode", "impute", "share", "export", "info"]
LAZY = [pyro_vae, data, saving]
SLOW = ["torch", "pyro", "numpy", "pandas", "matplotlib", "arviz", "zuko", "torchvision", "lightning_fabric", "rich"]
COMPILER = ["torch._dynamo", "torch._inductor", "sympy"]

# Runs command lines in a new process: for each, the exit status and what it has imported.
PROGRAM = f"""
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pyro_vae.cli import main

found = []
for words in json.loads(sys.argv[1]):
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
    found.append([status, [name for name in {SLOW} if name in sys.modules], out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


def in_a_new_process(folder: Path, *lines: list[str]):
    """The exit status, the slow imports, stdout and stderr of each command line, one after the other."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, timeout=300)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a run with a validation loss, so that there are two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    x = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    fit(small_vae(), x, x, epochs=2, compile=False, progress=False, out=folder)
    return folder


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 15),
    reason="torch 2.7 imports it for the description of a model, whose tensors have no memory",
)
def test_training_and_evidence_do_not_import_the_compiler_of_torch(run):
    """TorchDynamo takes 1.5 seconds to import, and is needed where steps are compiled."""
    program = f"""
import sys, torch
from pyro_vae import evidence, fit, load, save
vae, x = load({str(run)!r}), torch.rand(9, 1, 4, 4).round()
done = fit(vae, x, x, epochs=2, progress=False, out="new", clip_norm=1.0, accumulate=2)
evidence.estimate(vae.model, vae.guide, x[:2], progress=False)
evidence.importance(vae.model, vae.guide, x, num_samples=10, progress=False)
print(vae.likelihood.__class__.__name__, len(done.history), [name for name in {COMPILER} if name in sys.modules])
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=run, timeout=300)
    assert done.stdout == "Bernoulli 2 []\n"


def test_help_imports_nothing_slow(tmp_path):
    parts = [["train", f"--{kind}", name] for kind, table in TABLES.items() for name in table]
    lines = [[*words, "--help"] for words in ([], *([command] for command in COMMANDS), *parts)]
    for line, (status, slow, out, _) in zip(lines, in_a_new_process(tmp_path, *lines), strict=True):
        assert (status, slow) == (0, []), line
        assert f"pyro-vae {line[0]}".removesuffix(" --help") in out


def test_the_version_is_printed(tmp_path):
    ((status, slow, out, _),) = in_a_new_process(tmp_path, ["--version"])
    assert (status, slow, out) == (0, [], f"pyro-vae {pyro_vae.__version__}\n")


ERRORS = {
    "": "Expected one of",
    "polish": "there is no command 'polish'",
    "train": "Missing from pyro-vae train: PATH",
    "train OUT --prior nothing": "'nothing' for argument '--prior'",
    "train OUT --epoch 3": "--epochs",
    "train OUT --lr fast": "--lr",
    "train OUT --particles 0": "--particles is 0",
    "train OUT --free-bits 1 --loss trace": "--free-bits replaces",
    "train OUT --data mnits": "there is no file, folder or data set 'mnits'; expected one of mnist,",
    "train OUT --data images.npz": "the data file 'images.npz' cannot be read: No such file or directory",
    "train OUT --data table.cvs": "the data file 'table.cvs' has an unknown format; expected one of .npy",
    "train OUT --size 8": "--size has no effect on 'mnist'",
    "evaluate RUN --limit 0": "--limit is 0",
    "sample RUN --count 0": "--count is 0",
    "explore RUN --out page.pdf": "expected a file .html",
    "share RUN": "expected --out FOLDER",
    "info MISSING": "there is no run or saved model in the folder 'MISSING'",
    **{
        f"{command} MISSING{more}": "there is no file or folder 'MISSING'"
        for command in COMMANDS[1:-1]
        for more in [{"impute": " --out x.npy", "share": " --out OUT"}.get(command, "")]
    },
    **{
        f"{command} RUN --data nowhere.csv{' --out x.npy' * (command == 'impute')}": "the data file 'nowhere.csv' cannot be read"
        for command in ("evaluate", "plot", "explore", "score", "encode", "impute")
    },
}


def test_errors_of_usage_import_nothing_slow(run, tmp_path):
    (tmp_path / "RUN").symlink_to(run)
    found = in_a_new_process(tmp_path, *(words.split() for words in ERRORS))
    for (words, message), (status, slow, out, err) in zip(ERRORS.items(), found, strict=True):
        assert (status, slow, out) == (2, [], ""), words
        (line,) = err.splitlines()
        assert line.startswith("pyro-vae: error: "), words
        assert message in line, words
    assert [path.name for path in tmp_path.iterdir()] == ["RUN"]


# info


def test_info_imports_nothing_slow(run, tmp_path):
    save(small_vae(), tmp_path / "saved")
    (tmp_path / "run").symlink_to(run)
    lines = [["info", name] for name in ("run", f"run/{BEST}", "saved")]
    for status, slow, out, _ in in_a_new_process(tmp_path, *lines):
        assert (status, slow) == (0, [])
        assert f"{sum(each.numel() for each in small_vae().parameters()):,}" in out


def without_counts(file: Path) -> None:
    tensors, content = read(file)
    del content["vae"]["parameters"]
    write(file, tensors, content)


def test_info_says_the_same_of_a_run_without_the_numbers_of_parameters(run, tmp_path, capsys):
    for name in (LAST, BEST):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert main(["info", str(tmp_path)]) == 0
    expected = capsys.readouterr().out
    for name in (LAST, BEST):
        without_counts(tmp_path / name)
    assert main(["info", str(tmp_path)]) == 0
    assert capsys.readouterr().out == expected
    parts = {name: sum(each.numel() for each in part.parameters()) for name, part in load(run).named_children()}
    lines = expected.splitlines()[1 : 1 + len(parts)]
    assert [(line.split()[0], int(line.split()[-1].replace(",", ""))) for line in lines] == [*parts.items()]


def test_info_finds_damage_in_the_best_weights(run, tmp_path, capsys):
    (tmp_path / LAST).write_bytes((run / LAST).read_bytes())
    content = bytearray((run / BEST).read_bytes())
    content[-1] ^= 1
    (tmp_path / BEST).write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its checksum does not match"):
        load(tmp_path)
    assert main(["info", str(tmp_path)]) == 2
    assert "is damaged: its checksum does not match" in capsys.readouterr().err


DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]
DTYPES += ["float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("name", DTYPES)
def test_a_text_is_read_and_checked_with_and_without_the_tensors(name):
    values = torch.tensor([[1, 0, 1], [0, 1, 1]]).to(getattr(torch, name))
    written = to_bytes({"b": values, "a": values[0, 0], "none": values[:0]}, "some text")
    assert text_of(written) == from_bytes(written)[1] == "some text"
    damaged = bytearray(written)
    damaged[-1] ^= 1
    for read_again in (text_of, from_bytes):
        with pytest.raises(ChecksumError):
            read_again(bytes(damaged))


# Packages whose names are imported when they are used


def for_type_checkers(package):
    """The names that type checkers read, with the module of each; None for a name that is itself a module."""
    tree = ast.parse(Path(package.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    for node in block.body:
        for alias in node.names:
            yield alias.name, None if node.module == package.__name__ else node.module


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_names_are_what_type_checkers_see(package):
    found = dict(for_type_checkers(package))
    assert sorted(found) == sorted(package.__all__)
    assert found.keys() <= set(dir(package))
    for name, module in found.items():
        expected = import_module(f"{package.__name__}.{name}") if module is None else vars(import_module(module))[name]
        assert getattr(package, name) is expected


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_a_name_that_does_not_exist_is_an_error(package):
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        _ = package.nothing
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec(f"from {package.__name__} import nothing")


# One process, which imports more and more: ``found`` is what it has imported by then.
IMPORTS = """
import json, sys

found = {}
def look(name):
    found[name] = sorted({module.partition(".")[0] for module in sys.modules})

import pyro_vae, pyro_vae.data, pyro_vae.saving
found["names"] = dir(pyro_vae)
look("package")
pyro_vae.SVI
look("a name")
from torch import eye, ones, distributions as dist
found["validates"] = [dist.Distribution._validate_args]
full = dist.MultivariateNormal(ones(2), eye(2))
found["divergence"] = dist.kl_divergence(full, dist.Independent(dist.Normal(ones(2), ones(2)), 1)).item()
from pyro_vae import *
found["validates"].append(dist.Distribution._validate_args)
assert VAE.push_to_hub
data.load("mnist")
from pyro_vae.training.logs import Pictures, TensorBoard
look("all names")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> dict:
    """What a new process has imported, after more and more statements."""
    command, folder = [sys.executable, "-c", IMPORTS], tmp_path_factory.mktemp("imports")
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, timeout=300)
    return json.loads(done.stdout)


def test_the_package_imports_a_name_when_it_is_used(imported):
    assert "torch" not in imported["package"]
    assert "torch" in imported["a name"]
    assert set(pyro_vae.__all__) <= set(imported["names"])


def test_any_programs_have_the_divergences_that_torch_lacks(imported):
    """Once there is ``SVI``, since losses look for them."""
    assert imported["divergence"] == 0


def test_importing_the_package_leaves_the_validation_of_distributions_on(imported):
    """Zuko switches it off."""
    assert "zuko" in imported["all names"]
    assert imported["validates"] == [True, True]


@pytest.mark.parametrize(
    "module",
    [
        *("arviz", "torchvision", "matplotlib", "PIL", "sklearn"),
        *("tensorboard", "mlflow", "wandb", "optuna", "huggingface_hub"),
    ],
)
def test_it_is_not_imported_before_it_is_needed(module, imported):
    """Neither by names of the package, nor by callbacks that use it, nor for MNIST, which is part of the package."""
    assert module not in imported["all names"]

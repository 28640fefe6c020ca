"""What ``fit`` writes, damaged in every way: it is refused in one sentence, or it is the same as before."""

from __future__ import annotations

import copy
import errno
import io
import json
import math
import os
import pickle
import resource
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EVENT, small_vae
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch.optim import lr_scheduler

import pyro_vae
from pyro_vae import VAE, CheckpointError, NotFiniteError, fit
from pyro_vae.saving.checkpoint import pack, read, unpack, write
from pyro_vae.system import tensor_files
from pyro_vae.system.randomness import get_generators, load_generators
from pyro_vae.training.optimizer_state import load_optimizer, load_scheduler

LAST, BEST = "last.safetensors", "best.safetensors"
SETTINGS = {
    "batch_size": 16,
    "seed": 1,
    "scheduler": partial(lr_scheduler.StepLR, step_size=1),
    "compile": False,
    "progress": False,
}


X = torch.rand(32, *EVENT, generator=torch.Generator().manual_seed(0)).bernoulli()


def new_vae() -> VAE:
    torch.manual_seed(0)
    return small_vae()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that is to go on."""
    out = tmp_path_factory.mktemp("run")
    fit(new_vae(), X, X[:10], epochs=2, out=out, **SETTINGS)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def go_on(out: Path, epochs: int = 3, vae=None):
    """Resumes, and sees that a failure has changed nothing."""
    vae = vae or new_vae()
    before, weights = contents(out), copy.deepcopy(vae.state_dict())
    try:
        return fit(vae, X, X[:10], epochs=epochs, out=out, resume=True, **SETTINGS)
    except CheckpointError:
        assert contents(out) == before
        assert equal(vae.state_dict(), weights)
        raise


def attempt(call):
    """What it gives, or the error, if it is one of those that there may be."""
    try:
        return call()
    except (CheckpointError, NotFiniteError) as error:
        known = ".safetensors", "the loss is", "is not finite, and is not saved"
        assert any(words in str(error) for words in known)  # noqa: PT017
        return error


def equal(a, b) -> bool:
    """Whether two trees are the same, NaN being NaN."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(type(k) is type(j) and equal(a[k], b[k]) for k, j in zip(a, b, strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


# Files that were damaged


@st.composite
def damage(draw, size: int, header: int):
    """A function from the bytes of a file to others."""
    position = st.one_of(st.integers(0, 8), st.integers(0, header), st.integers(0, size - 1))
    kind = draw(
        st.sampled_from(["flip", "flips", "zeros", "swap", "cut", "append", "insert", "drop", "length", "noise"])
    )
    start, other = draw(position), draw(position)
    length, noise = draw(st.integers(1, 300)), draw(st.binary(min_size=1, max_size=50))
    bits, number = draw(st.lists(st.integers(0, 7), min_size=1)), draw(st.integers(0, 2**64 - 1))

    def change(data: bytes) -> bytes:
        new = bytearray(data)
        if kind == "flip":
            new[start] ^= 1 << bits[0]
        elif kind == "flips":
            for i, bit in enumerate(bits):
                new[(start + i * other) % size] ^= 1 << bit
        elif kind == "zeros":
            new[start : start + length] = bytes(len(new[start : start + length]))
        elif kind == "swap":
            new[start], new[other] = new[other], new[start]
        elif kind == "cut":
            del new[start:]
        elif kind == "append":
            new += noise
        elif kind == "insert":
            new[start:start] = noise
        elif kind == "drop":
            del new[start : start + length]
        elif kind == "length":
            new[:8] = number.to_bytes(8, "little")
        else:
            new[start : start + len(noise)] = noise
        return bytes(new)

    return change


@given(choice=st.data())
def test_a_damaged_file_is_refused_or_is_the_same(run, tmp_path_factory, choice):
    name = choice.draw(st.sampled_from([LAST, BEST]))
    data = (run / name).read_bytes()
    damaged = choice.draw(damage(len(data), int.from_bytes(data[:8], "little") + 8))(data)
    out = tmp_path_factory.mktemp("damaged")
    (out / name).write_bytes(damaged)
    if isinstance(attempt(lambda: read(out / name)), CheckpointError):
        calls = [lambda: pyro_vae.load(out / name), lambda: pyro_vae.load(out), lambda: go_on(out)]
        assert all(isinstance(attempt(call), CheckpointError) for call in calls[: 2 + (name == LAST)])
    else:
        assert equal(read(out / name), read(run / name))


def test_every_byte_of_the_header_counts(run, tmp_path):
    """Also the values that tell nothing: that of the checksum, offsets, spaces."""
    data, expected = (run / BEST).read_bytes(), read(run / BEST)
    for i in range(0, int.from_bytes(data[:8], "little") + 8, 11):
        for bit in (1, 32):
            (tmp_path / BEST).write_bytes(data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :])
            content = attempt(lambda: read(tmp_path / BEST))
            assert isinstance(content, CheckpointError) or equal(content, expected)


def test_the_interpreter_survives_damaged_files(run, tmp_path):
    """In a process of its own, which would die of a fault in what is not Python."""
    generator = torch.Generator().manual_seed(0)
    for name in (LAST, BEST):
        for i in range(100):
            data = bytearray((run / name).read_bytes())
            for place in torch.randperm(300 if i % 2 else len(data), generator=generator)[: 1 + i % 7].tolist():
                data[place] ^= int(torch.randint(1, 256, (), generator=generator))
            (tmp_path / f"{i}.{name}").write_bytes(data[: len(data) - i if i % 3 else None])
    program = (
        "import sys, pathlib, pyro_vae\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try: pyro_vae.load(path)\n"
        "    except pyro_vae.CheckpointError: print('refused')\n"
    )
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["refused"] * 200


class _Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _pickled(attack):
    return pickle.dumps(attack)


def _saved_by_torch(attack):
    file = io.BytesIO()
    torch.save({"weights": torch.ones(2), "attack": attack}, file)
    return file.getvalue()


def _zipped(attack):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(attack))
    return file.getvalue()


def _with_checksum(text):
    weights = {"weight": torch.ones(2)}
    return save(weights, {"pyro_vae": text, "sha256": tensor_files._digest(tensor_files._stored(weights), text)})


FOREIGN = {
    "pickle": _pickled,
    "torch.save": _saved_by_torch,
    "zip": _zipped,
    "empty": lambda _: b"",
    "eight bytes": lambda _: bytes(8),
    "noise": lambda _: bytes(range(256)) * 8,
    "text": lambda _: b"epoch,loss\n1,2\n",
    "JSON": lambda _: b'{"format": 1}',
    "safetensors of others": lambda _: save({"weight": torch.ones(2)}),
    "others' metadata": lambda _: save({"weight": torch.ones(2)}, {"format": "pt"}),
    "a pickle within": lambda attack: _with_checksum(pickle.dumps(attack, 0).decode("latin-1")),
    "deep JSON": lambda _: _with_checksum("[" * 100_000),
    "a huge header": lambda _: (2**63).to_bytes(8, "little") + b"{}",
    "a huge tensor": lambda _: (
        b"\x58\0\0\0\0\0\0\0"
        + b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'.ljust(0x58)
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", [LAST, BEST])
def test_files_of_others_are_refused_and_nothing_in_them_is_executed(kind, name, tmp_path):
    attacked = tmp_path / "attacked"
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(FOREIGN[kind](_Attack(attacked)))
    for path in (out, out / name):
        with pytest.raises(CheckpointError, match=f"{name} is not a checkpoint of pyro_vae, or is damaged"):
            pyro_vae.load(path)
    with pytest.raises(CheckpointError if name == LAST else FileExistsError):
        go_on(out)
    assert not attacked.exists()


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        pyro_vae.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no checkpoint in the folder"):
        pyro_vae.load(tmp_path)
    (tmp_path / LAST).mkdir()
    with pytest.raises(IsADirectoryError):
        pyro_vae.load(tmp_path)
    with pytest.raises(IsADirectoryError):
        go_on(tmp_path)


# Files that are whole, but say what cannot be


def rewrite(path: Path, change, new: Path) -> None:
    """Writes another version of a file, with a checksum that is right."""
    tensors, content = read(path)
    changed = change(tensors, content)
    write(new, tensors, content if changed is None else changed)


def test_a_newer_format_is_refused_by_name(run, tmp_path):
    def change(_, content):
        content["format"] += 1
        content["versions"]["pyro_vae"] = "99.0"

    rewrite(run / LAST, change, tmp_path / LAST)
    for call in (lambda: pyro_vae.load(tmp_path), lambda: go_on(tmp_path)):
        with pytest.raises(CheckpointError, match=r"has format 2, of pyro_vae 99.0; expected 1"):
            call()


@pytest.mark.parametrize("content", [[], None, 3, "x", {}, {"format": "1"}, {"format": None}, {"format": []}])
def test_content_that_is_none_of_ours(content, tmp_path):
    (tmp_path / LAST).write_bytes(_with_checksum(json.dumps(content)))
    for call in (lambda: pyro_vae.load(tmp_path), lambda: go_on(tmp_path)):
        with pytest.raises(CheckpointError, match=LAST):
            call()


OTHER_VALUES = [None, True, 0, -1, 1.5, "x", "", [], [1, "a"], {}, {"tensor": "none"}, {"list": 3}, {"dict": [1]}]


def places(tree, path=()):
    """The paths to everything in a tree of JSON."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))


@settings(max_examples=50)
@given(choice=st.data())
def test_values_of_other_types_are_refused_or_do_no_harm(run, tmp_path_factory, choice):
    """Whatever is at any place of the content: what is refused is refused at once, and else training goes on."""
    content = read(run / LAST)[1]
    path = choice.draw(st.sampled_from([each for each in places(content) if each and each != ("format",)]))
    value = choice.draw(st.one_of(st.just(places), st.sampled_from(OTHER_VALUES)))

    def change(_, tree):
        for key in path[:-1]:
            tree = tree[key]
        if value is places:
            del tree[path[-1]]
        else:
            assume(type(value) is not type(tree[path[-1]]))
            tree[path[-1]] = value

    out = tmp_path_factory.mktemp("changed")
    rewrite(run / LAST, change, out / LAST)
    for call in (lambda: pyro_vae.load(out), lambda: pyro_vae.load(out, new_vae()), lambda: go_on(out)):
        attempt(call)


@settings(max_examples=30)
@given(choice=st.data())
def test_tensors_that_are_others_are_refused_or_do_no_harm(run, tmp_path_factory, choice):
    weights = pyro_vae.load(run / LAST).state_dict()
    name = choice.draw(st.sampled_from(sorted(read(run / LAST)[0])))
    kind = choice.draw(st.sampled_from(["missing", "another name", "longer", "shorter", "empty", "flat", "dtype"]))

    def change(tensors, _):
        tensor = tensors.pop(name)
        if kind == "dtype":
            tensors[name] = tensor.to(
                choice.draw(st.sampled_from([torch.float64, torch.int64, torch.bool, torch.half]))
            )
        elif kind != "missing":
            tensors[name + "'" * (kind == "another name")] = {
                "another name": lambda: tensor,
                "longer": lambda: torch.cat([tensor.flatten(), tensor.flatten()]),
                "shorter": lambda: tensor.flatten()[1:],
                "empty": lambda: tensor.new_empty(0),
                "flat": lambda: tensor.reshape(-1, 1),
            }[kind]()

    out = tmp_path_factory.mktemp("changed")
    rewrite(run / LAST, change, out / LAST)
    is_weight = not name.startswith("training:")
    for call in (lambda: pyro_vae.load(out), lambda: pyro_vae.load(out, new_vae())):
        result = attempt(call)
        assert isinstance(result, CheckpointError) if is_weight else equal(result.state_dict(), weights)
    result = attempt(lambda: go_on(out))
    assert isinstance(result, CheckpointError) or not is_weight


# Descriptions that nothing should be built of


LINEAR, SEQUENTIAL = "torch.nn.modules.linear.Linear", "torch.nn.modules.container.Sequential"
IDENTITY = {"class": "torch.nn.modules.linear.Identity", "arguments": {}}


def of(kind, **arguments):
    return {"class": kind, "arguments": arguments}


def vae_of(network):
    return of(
        "pyro_vae.models.vae.VAE",
        prior=of("pyro_vae.priors.standard_normal.StandardNormal", latent_dim=2),
        likelihood=of("pyro_vae.likelihoods.bernoulli.Bernoulli", network=network),
        posterior=of("pyro_vae.posteriors.normal.Normal", network=of(LINEAR, in_features=2, out_features=4)),
    )


ATTACKS = {
    "no class": of("os.system", command="touch attacked"),
    "no class of ours": of("pathlib.Path"),
    "a path": of("torch.nn.modules.../os.system"),
    "a function": of("pyro_vae.data.by_name.load", name="mnist"),
    "another function": of("pyro_vae.data.by_name"),
    "what a module has imported": of("torch.nn.modules.module.functools.partial"),
    "a module's module": of("pyro_vae.models.vae.nn.Linear", in_features=1, out_features=1),
    "another's class": of("pyro_vae.models.latent_variable_model.PyroModule"),
    "what was not imported": of("pyro_vae.__main__.main"),
    "a class as argument": of("pyro_vae.nn.residual_block.ResidualBlock", channels=1, activation={"type": "os.system"}),
    "no dictionary": ["Linear"],
    "a number": 3,
    "nothing": {},
    "itself": {"same": ""},
    "other arguments": of(LINEAR, inputs=3),
    "a bad argument": of(LINEAR, in_features="many", out_features=[]),
    "negative sizes": of(LINEAR, in_features=-1, out_features=-5),
    "division by zero": of("torch.nn.modules.normalization.GroupNorm", num_groups=0, num_channels=3),
    "too many features": of(LINEAR, in_features=10**12, out_features=1),
    "too many weights": of(LINEAR, in_features=60_000, out_features=60_000),
    "many modules": {
        "class": SEQUENTIAL,
        "modules": {str(i): of(LINEAR, in_features=10_000, out_features=1_000) for i in range(1_000)},
    },
    "many layers": of("torch.nn.modules.rnn.LSTM", input_size=1, hidden_size=1, num_layers=10**9),
    "many copies": of("torch.nn.modules.transformer.TransformerEncoder", encoder_layer=IDENTITY, num_layers=10**9),
    "many transforms": of(
        "pyro_vae.priors.masked_autoregressive_flow.MaskedAutoregressiveFlow", latent_dim=2, transforms=60_000
    ),
    "a large constant": of("pyro_vae.nn.one_hot.OneHot", network=IDENTITY, classes=60_000),
    "ones": of("pyro_vae.priors.vamp_prior.VampPrior", posterior=IDENTITY, pseudo_inputs={"ones": [60_000, 60_000]}),
    "a large result": vae_of(
        {
            "class": SEQUENTIAL,
            "modules": {
                "0": of("torch.nn.modules.flatten.Unflatten", dim=-1, unflattened_size=[1, 1, 2]),
                "1": of("torch.nn.modules.upsampling.Upsample", scale_factor=1e5),
            },
        }
    ),
    "a deep one": json.loads(f'{{"class": "{SEQUENTIAL}", "modules": {{"0": ' * 300 + "{}" + "}}" * 300),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_descriptions_that_are_attacks_are_refused(run, attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def change(_, content):
        content["vae"]["module"] = ATTACKS[attack]

    rewrite(run / LAST, change, tmp_path / LAST)
    state = torch.get_rng_state()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=f"{LAST} cannot be rebuilt by this version: ."):
        pyro_vae.load(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20  # two gigabytes, in kilobytes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


@pytest.mark.parametrize("word", ["load", "int64", "none", "float99", 3, None])
def test_dtypes_that_are_none(run, word, tmp_path):
    for name in ("dtype", "default_dtype"):
        rewrite(run / LAST, lambda _, content, name=name: content["vae"].update({name: word}), tmp_path / LAST)
        with pytest.raises(CheckpointError, match="cannot be rebuilt"):
            pyro_vae.load(tmp_path)


# What is packed is unpacked


def through_a_file(path: Path, tree):
    tensors = {}
    packed = pack("tree", tree, tensors)
    write(path, tensors, {"tree": packed})
    tensors, content = read(path)
    return unpack(content["tree"], tensors)


numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text())
shapes = st.lists(st.integers(0, 3), max_size=3)
tensors = st.builds(
    lambda shape, dtype: torch.arange(math.prod(shape)).reshape(shape).to(dtype),
    shapes,
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16, torch.uint8]),
)
keys = st.one_of(st.text(), st.integers(), st.sampled_from(["a", "b", "a.b", "0", 0]))
trees = st.recursive(
    st.one_of(numbers, tensors),
    lambda each: st.one_of(
        st.lists(each), st.lists(each).map(tuple), st.dictionaries(keys, each), st.dictionaries(keys, each).map(Counter)
    ),
    max_leaves=20,
)


@given(trees)
@example({"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}})
@example({1: torch.zeros(1), "1": torch.ones(1)})
def test_trees_come_back(tree):
    with tempfile.TemporaryDirectory() as folder:
        assert equal(through_a_file(Path(folder, "tree"), tree), tree)


@pytest.mark.parametrize("value", [object(), {1.5: 0}, {None: 0}, [set()], {"a": [lambda: 0]}, b"x", 1j])
def test_what_cannot_be_said_in_a_checkpoint(value):
    with pytest.raises(TypeError, match=r"^name.* is of type .*; a checkpoint holds tensors, numbers"):
        pack("name", value, {})


def test_numbers_of_numpy_are_numbers(tmp_path):
    tree = [np.float64(0.1), np.int64(3), np.float32(0.5)]
    assert equal(through_a_file(tmp_path / "tree", tree), [0.1, 3, 0.5])
    for epochs in (1, 2):
        fit(new_vae(), X, epochs=epochs, lr=np.float64(0.1), out=tmp_path / "run", resume=epochs > 1, progress=False)


class Warmth:
    """A schedule that a checkpoint cannot hold."""

    def __init__(self):
        self.seen = set()

    def __call__(self, epoch):
        return epoch


def test_a_scheduler_that_cannot_be_saved_is_found_before_the_first_step(tmp_path):
    vae = new_vae()
    before = copy.deepcopy(vae.state_dict())
    with pytest.raises(TypeError, match=r"^scheduler.lr_lambdas.0.seen is of type set; a checkpoint holds tensors"):
        fit(vae, X, epochs=1, scheduler=partial(lr_scheduler.LambdaLR, lr_lambda=Warmth()), out=tmp_path)
    assert equal(vae.state_dict(), before)
    assert not (tmp_path / LAST).exists()


def stepped(kind, **options):
    """An optimizer after two steps, with its parameters."""
    parameters = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3))]
    optimizer = kind(parameters, **options)
    for _ in range(2):
        step(optimizer)
    return optimizer


def step(optimizer) -> list[torch.Tensor]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def closure():
        optimizer.zero_grad()
        loss = sum((parameter - i).square().sum() for i, parameter in enumerate(parameters))
        loss.backward()
        return loss

    closure()
    optimizer.step(*[closure] * isinstance(optimizer, torch.optim.LBFGS))
    return [parameter.detach().clone() for parameter in parameters]


OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, lr=0.1),
    "Adam with a maximum": partial(torch.optim.Adam, lr=0.1, amsgrad=True),
    "Adam, fused": partial(torch.optim.Adam, lr=0.1, fused=True),
    "AdamW": partial(torch.optim.AdamW, lr=0.1),
    "SGD": partial(torch.optim.SGD, lr=0.1),
    "SGD with momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "RMSprop": partial(torch.optim.RMSprop, lr=0.1, centered=True, momentum=0.5),
    "Adagrad": partial(torch.optim.Adagrad, lr=0.1),
    "Adadelta": torch.optim.Adadelta,
    "Adamax": torch.optim.Adamax,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "ASGD": torch.optim.ASGD,
    "Rprop": torch.optim.Rprop,
    "Adafactor": torch.optim.Adafactor,
    "LBFGS": partial(torch.optim.LBFGS, lr=0.1, max_iter=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_go_on_from_a_file(name, tmp_path):
    optimizer = stepped(OPTIMIZERS[name])
    state = through_a_file(tmp_path / "state", optimizer.state_dict())
    assert equal(state, optimizer.state_dict())
    other = OPTIMIZERS[name](
        [torch.nn.Parameter(each.clone().detach()) for each in optimizer.param_groups[0]["params"]]
    )
    load_optimizer(other, state)
    assert equal(other.state_dict(), optimizer.state_dict())
    for _ in range(3):
        assert equal(step(other), step(optimizer))


SCHEDULERS = {
    "StepLR": partial(lr_scheduler.StepLR, step_size=2),
    "MultiStepLR": partial(lr_scheduler.MultiStepLR, milestones=[2, 4, 4]),
    "ConstantLR": lr_scheduler.ConstantLR,
    "LinearLR": partial(lr_scheduler.LinearLR, total_iters=4),
    "ExponentialLR": partial(lr_scheduler.ExponentialLR, gamma=0.9),
    "PolynomialLR": partial(lr_scheduler.PolynomialLR, total_iters=4),
    "CosineAnnealingLR": partial(lr_scheduler.CosineAnnealingLR, T_max=4),
    "CosineAnnealingWarmRestarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2),
    "OneCycleLR": partial(lr_scheduler.OneCycleLR, max_lr=0.5, total_steps=20),
    "CyclicLR": partial(lr_scheduler.CyclicLR, base_lr=0.1, max_lr=0.5, step_size_up=2, cycle_momentum=False),
    "LambdaLR": partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 1 / (1 + epoch)),
    "MultiplicativeLR": partial(lr_scheduler.MultiplicativeLR, lr_lambda=lambda _: 0.9),
    "ReduceLROnPlateau": partial(lr_scheduler.ReduceLROnPlateau, patience=0),
    "SequentialLR": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.9)], [2]
    ),
    "ChainedScheduler": lambda optimizer: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(optimizer), lr_scheduler.StepLR(optimizer, 2)]
    ),
}


def rate(optimizer, scheduler) -> float:
    step(optimizer)
    scheduler.step(*[1.0] * isinstance(scheduler, lr_scheduler.ReduceLROnPlateau))
    return optimizer.param_groups[0]["lr"]


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_go_on_from_a_file(name, tmp_path):
    optimizer = stepped(partial(torch.optim.SGD, lr=0.1))
    scheduler = SCHEDULERS[name](optimizer)
    for _ in range(3):
        rate(optimizer, scheduler)
    states = through_a_file(tmp_path / "state", [optimizer.state_dict(), scheduler.state_dict()])
    assert equal(states, [optimizer.state_dict(), scheduler.state_dict()])
    other = stepped(partial(torch.optim.SGD, lr=0.1))
    another = SCHEDULERS[name](other)
    load_optimizer(other, states[0])
    load_scheduler(another, states[1])
    assert equal(another.state_dict(), scheduler.state_dict())
    for _ in range(5):
        assert rate(other, another) == rate(optimizer, scheduler)


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_refuse_what_is_no_number(name):
    new = lambda: SCHEDULERS[name](stepped(partial(torch.optim.SGD, lr=0.1)))  # noqa: E731
    state = new().state_dict()
    # All but what it computes again.
    numbers = [key for key, value in state.items() if isinstance(value, int | float) and key != "mode_worse"]
    assert "last_epoch" in numbers or name == "ChainedScheduler"
    for key in numbers:
        for value in ("1", None, [1]):
            with pytest.raises(TypeError, match=rf"the scheduler's state\['{key}'\] is .*, and was"):
                load_scheduler(new(), {**state, key: value})


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("LBFGS", "SGD")])
def test_optimizers_refuse_tensors_of_other_shapes(name):
    state = stepped(OPTIMIZERS[name]).state_dict()
    tensors = [key for key, value in state["state"][0].items() if isinstance(value, torch.Tensor)]
    assert tensors
    for key in tensors:
        for change in (lambda tensor: torch.stack([tensor, tensor]), lambda tensor: tensor.flatten()[1:]):
            changed = {**state["state"][0], key: change(state["state"][0][key])}
            new = OPTIMIZERS[name]([torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(3))])
            with pytest.raises(ValueError, match=rf"the optimizer's state\['state'\]\[0\]\['{key}'\] is not a tensor"):
                load_optimizer(new, {**state, "state": {**state["state"], 0: changed}})


@pytest.mark.parametrize("numbers", [[0, 0], [1, 1], [1, 0], [0, None], [0, "x"], [0, 2], [0], [0, 1, 2]])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_refuse_states_of_other_parameters(name, numbers):
    """A state under a number that is there twice went to a parameter of another shape, and a step wrote past its end."""
    state = stepped(OPTIMIZERS[name]).state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0, 1]]
    changed = {**state, "param_groups": [{**state["param_groups"][0], "params": numbers}]}
    new = stepped(OPTIMIZERS[name])
    before = copy.deepcopy(new.state_dict())
    with pytest.raises(ValueError, match=r"the optimizer's state numbers the parameters .*; expected \[\[0, 1\]\]"):
        load_optimizer(new, changed)
    assert equal(new.state_dict(), before)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "LBFGS"])
def test_optimizers_go_on_with_channels_last(name, tmp_path):
    """A file has no memory formats, and a fused step pairs a parameter and its moments in the order of memory."""
    weights, *gradients = torch.randn(5, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))

    def take(optimizer, steps):
        (parameter,) = optimizer.param_groups[0]["params"]
        for gradient in steps:
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
            optimizer.step()
        return parameter.detach().contiguous()

    def new(start, memory_format):
        start = start.clone(memory_format=memory_format)
        return OPTIMIZERS[name]([torch.nn.Parameter(start)])

    expected = take(new(weights, torch.contiguous_format), gradients)
    optimizer = new(weights, torch.channels_last)
    there = take(optimizer, gradients[:2])
    other = new(there, torch.channels_last)
    load_optimizer(other, through_a_file(tmp_path / "file", optimizer.state_dict()))
    torch.testing.assert_close(take(other, gradients[2:]), expected)
    torch.testing.assert_close(take(optimizer, gradients[2:]), expected)


# States of random generators, of which torch checks little


INVALID_STATES = {
    "more words left than there are": lambda state: struct.pack_into("=iiQ", state, 8, 624, 1, 624),
    "one word left too many": lambda state: struct.pack_into("=iiQ", state, 8, 2, 1, 624),
    "a new one, with words left": lambda state: struct.pack_into("=iiQ", state, 8, 2, 1, 0),
    "no words left": lambda state: struct.pack_into("=iiQ", state, 8, 0, 1, 625),
    "negative": lambda state: struct.pack_into("=iiQ", state, 8, -1, 1, 626),
    "a place of more than 32 bits": lambda state: struct.pack_into("=iiQ", state, 8, 624, 1, 2**32 + 1),
    "without a seed": lambda state: struct.pack_into("=i", state, 12, 0),
    "words of zeros": lambda state: struct.pack_into("=624Q", state, 24, *[0] * 624),
    "a word of more than 32 bits": lambda state: struct.pack_into("=Q", state, 24 + 8 * 100, 2**32),
    "a normal draw that is NaN": lambda state: struct.pack_into("=d", state, 24 + 8 * 625, math.nan),
    "an infinite normal draw": lambda state: struct.pack_into("=f", state, 24 + 8 * 628, math.inf),
    "zeros": lambda state: state.__setitem__(slice(None), bytes(len(state))),
    "ones": lambda state: state.__setitem__(slice(None), b"\xff" * len(state)),
    "short": lambda state: state.pop(),
    "an older format": lambda state: state.__delitem__(slice(-8, None)),
    "long": lambda state: state.append(0),
    "empty": lambda state: state.clear(),
}


def generator_of(tensors) -> str:
    """The name of the tensor with the state of the CPU's generator."""
    (name,) = (name for name in tensors if name.endswith("generators.cpu"))
    return name


@pytest.mark.parametrize("name", INVALID_STATES)
def test_a_generator_never_gets_a_state_that_is_none(name, run, tmp_path):
    """torch took some of these: it then drew what was in memory behind the state, or zeros for ever."""

    def change(tensors, _):
        key = generator_of(tensors)
        state = bytearray(tensors[key].numpy().tobytes())
        INVALID_STATES[name](state)
        tensors[key] = torch.tensor(list(state), dtype=torch.uint8)

    rewrite(run / LAST, change, tmp_path / LAST)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    tensors = read(tmp_path / LAST)[0]
    with pytest.raises(
        ValueError, match=r"^the state of the generator \(cpu\) is none that it can have$|is not a tensor"
    ):
        load_generators({"cpu": tensors[generator_of(tensors)]}, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(CheckpointError, match=rf"{LAST} cannot be resumed: the state of the generator \(cpu\) is n"):
        go_on(tmp_path)


DRAWS = {
    "floats": lambda n: torch.rand(n),
    "doubles": lambda n: torch.rand(n, dtype=torch.float64),
    "normals": lambda n: torch.randn(n),
    "normal doubles": lambda n: torch.randn(n, dtype=torch.float64),
    "integers": lambda n: torch.randint(10, (n,)),
    "one normal": lambda _: torch.normal(torch.zeros(()), torch.ones(())),
    "gammas": lambda n: torch._standard_gamma(torch.full((n,), 0.5)),
}


@given(st.integers(-(2**63), 2**64 - 1), st.lists(st.tuples(st.sampled_from(sorted(DRAWS)), st.integers(0, 1300))))
def test_every_state_of_a_generator_is_taken_and_gives_the_same_draws(seed, draws):
    device = torch.device("cpu")
    torch.manual_seed(seed)
    for kind, count in draws:
        DRAWS[kind](count)
    state = get_generators(device)
    expected = [draw(700) for draw in DRAWS.values()]
    load_generators(state, device)
    assert all(map(torch.equal, [draw(700) for draw in DRAWS.values()], expected))


# Folders that cannot be written to


class Full:
    """A disk that is full from some write on: data are not taken, or taken and lost."""

    def __init__(self, monkeypatch, after: int):
        self.left = after
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor):  # noqa: ARG002
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / LAST
    write(path, {"a": torch.ones(3)}, {"old": True})
    before = contents(tmp_path)
    Full(monkeypatch, after=0)
    with pytest.raises(OSError, match=f"^cannot write '{path}': No space left on device$"):
        write(path, {"a": torch.zeros(3)}, {})
    assert contents(tmp_path) == before


def test_a_file_that_gets_too_large_leaves_the_old_one(tmp_path):
    """A fault of the system, in the middle of writing."""
    path = tmp_path / LAST
    write(path, {"a": torch.ones(3)}, {"old": True})
    before = contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"^cannot write '{path}': File too large$"):
            write(path, {"a": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("after", range(8))
def test_a_disk_that_fills_up_costs_no_more_than_since_the_last_save(after, tmp_path, monkeypatch):
    """Whichever file it is that cannot be written, the run goes on when there is space again, to the same bits."""
    expected = fit(new_vae(), X, X[:10], epochs=3, **SETTINGS)
    vae = new_vae()
    with monkeypatch.context() as patch:
        Full(patch, after=after)
        with pytest.raises(OSError, match=f"^cannot write '{tmp_path}/.*': No space left on device$"):
            fit(vae, X, X[:10], epochs=3, out=tmp_path, save_every=0, **SETTINGS)
    assert not [name for name in contents(tmp_path) if name.endswith(".new")]
    if (tmp_path / LAST).exists():
        pyro_vae.load(tmp_path)
    again = fit(new_vae(), X, X[:10], epochs=3, out=tmp_path, resume=True, **SETTINGS)
    assert after < 2 or (tmp_path / LAST).exists()
    assert equal(again.vae.state_dict(), expected.vae.state_dict())


@pytest.mark.parametrize("below", [False, True])
def test_a_file_in_the_place_of_the_folder(below, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(OSError, match="cannot write to the folder"):
        fit(new_vae(), X, epochs=1, out=file / "below" if below else file, **SETTINGS)
    assert file.read_text() == "mine"


def test_a_folder_in_the_place_of_a_file(tmp_path):
    path = tmp_path / LAST
    path.mkdir()
    with pytest.raises(OSError, match=f"^cannot write '{path}': Is a directory$"):
        write(path, {"a": torch.ones(3)}, {})
    assert [each.name for each in tmp_path.iterdir()] == [LAST]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=r"cannot write to the folder .*Permission denied"):
        fit(new_vae(), X, epochs=1, out=tmp_path, **SETTINGS)


def test_a_best_file_that_belongs_to_no_run_is_kept(run, tmp_path):
    (tmp_path / BEST).write_bytes((run / BEST).read_bytes())
    for resume in (False, True):
        with pytest.raises(FileExistsError, match=f"there is a {BEST}, but no {LAST}"):
            fit(new_vae(), X, epochs=1, out=tmp_path, resume=resume, **SETTINGS)
    assert contents(tmp_path) == {BEST: (run / BEST).read_bytes()}

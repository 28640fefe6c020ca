"""Exported files compute what the model does, in onnxruntime and by torch.export, and are written all or none."""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from conftest import EVENT, LATENT, small_vae
from test_parts import FITTING, identify, in_few, make
from torch import nn as torch_nn

from pyro_vae import (
    VAE,
    BottomUp,
    ConditionalPosterior,
    ConditionalVAE,
    HierarchicalVAE,
    SemiSupervisedVAE,
    TopDown,
    evidence,
    likelihoods,
    nn,
    posteriors,
    priors,
)
from pyro_vae.cli import main
from pyro_vae.exporting import ExportError, Program, export_programs, onnx_format
from pyro_vae.system import files

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra [export], is not installed")
pytest.importorskip("onnxscript", reason="onnxscript, of the extra [export], is not installed")


@pytest.fixture(scope="module", autouse=True)
def _operators_are_looked_up_once():
    """Torch looks up all operators, of its own and of ONNX, in each export: longer than all the rest of a small one."""
    from onnxscript._framework_apis import torch_2_5
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    patch = pytest.MonkeyPatch()
    for name, original in (
        ("get_torchlib_ops", torch_2_5.get_torchlib_ops),
        ("_collect_all_valid_cia_ops", getattr(utils, "_collect_all_valid_cia_ops", None)),
    ):
        once = functools.cache(original) if original else None
        for module in list(sys.modules.values()):
            if once and getattr(module, name, None) is original:
                patch.setattr(module, name, once)
    # Only an export with operators of its own would change this table.
    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
    yield
    patch.undo()


def by_onnx(path, inputs):
    """What an ONNX file gives, by name."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {each.name: inputs[each.name].numpy() for each in session.get_inputs()}
    names = [each.name for each in session.get_outputs()]
    return {name: torch.from_numpy(value) for name, value in zip(names, session.run(None, given), strict=True)}


def by_torch(path):
    """What a program of torch.export gives, as a function: to load it takes as long as a third of an export."""
    module = torch.export.load(path).module()
    return torch.no_grad()(lambda inputs: module(*inputs.values()))


def assert_agrees(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.isfinite().all() or "mean" in name, name
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4, equal_nan=True)


def together(programs):
    """All programs of a model as one, which is faster to export."""

    def function(*inputs):
        given = dict(zip(examples[0], inputs, strict=True))
        found = {}
        for program in programs:
            outputs = program.function(*(given[name] for name in program.examples[0]))
            found |= {f"{program.name}.{name}": value for name, value in outputs.items()}
        return found

    examples = tuple({name: t for program in programs for name, t in program.examples[i].items()} for i in (0, 1))
    words = {f"{program.name}.{name}": word for program in programs for name, word in program.words.items()}
    words |= {name: word for program in programs for name, word in program.words.items()}
    parts = [part for program in programs for part in program.parts]
    return Program("all", function, parts, examples, words, "everything")


def check(vae, folder, *sample_arguments, formats=("onnx", "torch"), only=None, **more):
    """Exports all programs of a model at once, and runs the files on data of other sizes.

    Args:
        vae: The model.
        folder: Where to.
        sample_arguments: The arguments of ``sample`` for these sizes.
        formats: The formats to try.
        only: The names of the programs; None for all.
        more: Further inputs by name, one for each of the sizes.
    """
    vae.eval()
    with pyro.validation_enabled(False), torch.no_grad():
        program = together([each for each in vae._export_programs() if only is None or each.name in only])
        export_programs([program], folder, formats)
        loaded = by_torch(folder / "all.pt2") if "torch" in formats else None
        for i, given in enumerate(vae._examples(*(sample_arguments or (11, 2)))):
            inputs = {
                name: {**given, **{name: value[i] for name, value in more.items()}}.get(name)
                for name in program.examples[0]
            }
            if "eps" in inputs:
                inputs["eps"] = torch.randn_like(given["z"])
            expected = program.function(*inputs.values())
            assert_agrees(by_onnx(folder / "all.onnx", inputs), expected)
            if loaded is not None:
                assert_agrees(loaded(inputs), expected)
    return {name.partition(".")[2]: value for name, value in expected.items()}


# Every part


FEW = in_few(FITTING)


def programs_with_new_parts(names):
    """The programs of a combination in which some part was in no combination before it."""
    before = FEW[: FEW.index(names)]
    prior, likelihood, posterior = (all(names[i] != others[i] for others in before) for i in range(3))
    return {
        *(["encoder"] if posterior else []),
        *(["decoder"] if likelihood else []),
        *(["log_likelihood"] if likelihood or prior else []),
    }


@pytest.mark.parametrize("names", [names for names in FEW if "Columns" not in names], ids=identify)
def test_every_part(names, tmp_path):
    """Columns of more kinds are in the table of ``test_other_networks_and_data``."""
    # The other format has few ways to differ, and takes time.
    check(VAE(*make(*names)), tmp_path, formats=["onnx"], only=programs_with_new_parts(names))


def test_every_part_is_in_a_program():
    found = {(i, part) for names in FEW for i, part in enumerate(names)}
    assert found == {(i, part) for names in FITTING for i, part in enumerate(names)}
    assert all(map(programs_with_new_parts, FEW))


def image_vae():
    event = (1, 5, 6)  # odd sizes are padded
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.DiscretizedLogistic(
            nn.convolutional_decoder(LATENT, (*event, 2), [4, 3], block=nn.ResidualBlock), 16
        ),
        posteriors.Normal(
            nn.convolutional_encoder(event, 2 * LATENT, [3, 4], block=torch_nn.BatchNorm2d)  # which has seen no data
        ),
    )


def recurrent_vae():
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Incomplete(likelihoods.HeteroscedasticNormal(nn.recurrent_decoder(LATENT, (5, 2, 2), 4))),
        posteriors.Normal(nn.MarkMissing(nn.recurrent_encoder((5, 4), 2 * LATENT, 4))),
    )


def series_vae():
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Normal(nn.series_decoder(LATENT, (5, 2), [4, 3]), 0.5),
        posteriors.Normal(nn.series_encoder((5, 2), 2 * LATENT, [3, 4])),
    )


def table_vae():
    columns = likelihoods.columns
    kinds = [columns.Real(2.0, 3.0), columns.Positive(), columns.Count(), columns.Binary(), columns.Categorical(3)]
    kinds.append(columns.Ordinal(4))
    size = sum(kind.num_parameters for kind in kinds)
    encoder = nn.ColumnFeatures(torch.nn.Identity(), kinds)
    encoder.network = nn.mlp(encoder.num_features, [8], 2 * LATENT)
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Incomplete(likelihoods.Columns(nn.mlp(LATENT, [8], size), kinds)),
        posteriors.Normal(encoder),
    )


def rescaled_vae():
    center, scale = torch.tensor([100.0, 0.0, 1.0]), torch.tensor([20.0, 1.0, 0.1])
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Incomplete(likelihoods.Rescaled(likelihoods.Normal(nn.mlp(LATENT, [8], 3), 0.5), center, scale)),
        posteriors.Normal(nn.Standardize(nn.FillMissing(nn.gated_mlp(3, [8], 2 * LATENT)), center, scale)),
    )


def embedding_vae():
    encoder = torch_nn.Sequential(
        torch_nn.Embedding(4, 3), torch_nn.Flatten(-2), torch_nn.Dropout(0.5), nn.mlp(9, [8], 2 * LATENT)
    )
    return VAE(
        priors.StandardNormal(LATENT), likelihoods.Categorical(nn.mlp(LATENT, [8], (3, 4))), posteriors.Normal(encoder)
    )


def large_vae():
    """Real widths: float64, so that counts beyond float32 differ."""
    return VAE(
        priors.VampPrior(q := posteriors.LowRankNormal(nn.Log1p(nn.mlp(40, [64], 8 * 3)), rank=1), torch.rand(5, 40)),
        likelihoods.NegativeBinomial(nn.mlp(8, [64], 40), likelihoods.PositiveParameter(torch.linspace(0.1, 50, 40))),
        q,
    ).double()


MODELS = {
    "images": image_vae,
    "recurrent": recurrent_vae,
    "series": series_vae,
    "table": table_vae,
    "rescaled": rescaled_vae,
    "embedding": embedding_vae,
    "float64": large_vae,
}


@pytest.mark.parametrize("name", MODELS)
def test_other_networks_and_data(name, tmp_path):
    has_both = name in ("images", "recurrent", "embedding")  # two kinds of layers with a state, and integers
    found = check(MODELS[name](), tmp_path, formats=["onnx", "torch"] if has_both else ["onnx"])
    assert found["code"].dtype == (torch.float64 if name == "float64" else torch.float32)


@pytest.mark.parametrize("top_down", [False, True])
def test_a_hierarchy(top_down, tmp_path):
    layer = posteriors.Normal(nn.mlp(1, [4], 2 * LATENT))
    if top_down:
        posterior = TopDown(
            [nn.mlp(EVENT, [4], 3), nn.mlp(3, [4], 3)],
            [posteriors.Normal(nn.mlp(3, [], 2 * LATENT)), posteriors.Normal(nn.mlp(3, [], 2))],
        )
    else:
        posterior = BottomUp(
            [posteriors.Normal(nn.mlp(EVENT, [4], 2 * LATENT)), posteriors.Normal(nn.mlp(LATENT, [4], 2))]
        )
    vae = HierarchicalVAE(
        priors.StandardNormal(1), [layer], likelihoods.Bernoulli(nn.mlp(LATENT, [4], EVENT)), posterior
    )
    found = check(vae, tmp_path, formats=["onnx"] if top_down else ["onnx", "torch"])
    assert {"z1", "z2", "z1_loc", "z2_scale", "logits", "log_prior"} <= found.keys()
    x = vae.sample(3)
    codes = vae.encode(x)
    (encoder,) = [program for program in vae._export_programs() if program.name == "encoder"]
    for name, value in codes.items():
        torch.testing.assert_close(encoder.function(x)[name], value)


def test_conditions(tmp_path):
    vae = ConditionalVAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(nn.mlp(LATENT + 3, [4], EVENT)),
        ConditionalPosterior(nn.mlp(EVENT, [4], 5), posteriors.Normal(nn.mlp(5 + 3, [4], 2 * LATENT))),
        conditions=3,
    )
    y = torch.rand(11, 3), torch.rand(2, 3)
    check(vae, tmp_path, *y, formats=["onnx"], y=y)


def test_labels(tmp_path):
    vae = SemiSupervisedVAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(nn.mlp(LATENT + 3, [4], EVENT)),
        posteriors.Normal(nn.mlp(16 + 3, [4], 2 * LATENT)),
        nn.mlp(EVENT, [4], 3),
        classes=3,
    )
    y = torch.arange(11) % 3, torch.tensor([2, 0])
    found = check(vae, tmp_path, *y, y=y)
    assert found["probabilities"].shape == (2, 3)


# What is in the files


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small VAE, and the folder of its files."""
    torch.manual_seed(0)
    vae, folder = small_vae(), tmp_path_factory.mktemp("exported") / "model"
    vae.export(folder)
    return vae, folder


def test_it_computes_what_the_methods_of_the_vae_do(exported, x):
    vae, folder = exported
    encoded = by_onnx(folder / "encoder.onnx", {"x": x})
    q = vae.posterior(x).base_dist
    assert_agrees(encoded, {"code": vae.encode(x), "loc": q.loc.detach(), "scale": q.scale.detach()})
    z = torch.randn(len(x), LATENT)
    decoded = by_onnx(folder / "decoder.onnx", {"z": z})
    assert_agrees(decoded, {"logits": vae.likelihood(z).base_dist.logits.detach(), "mean": vae.decode(z)})
    densities = by_onnx(folder / "log_likelihood.onnx", {"x": x, "z": z})
    expected = {"log_likelihood": vae.likelihood(z).log_prob(x), "log_prior": vae.prior().log_prob(z)}
    assert_agrees(densities, {name: value.detach() for name, value in expected.items()})
    torch.testing.assert_close(by_torch(folder / "decoder.pt2")({"z": z})["mean"], vae.decode(z))


def test_the_description_is_right(exported):
    _, folder = exported
    description = json.loads((folder / "export.json").read_text())
    assert {path.name for path in folder.iterdir()} == {
        "export.json",
        *(f"{name}.{suffix}" for name in ("encoder", "decoder", "log_likelihood") for suffix in ("onnx", "pt2")),
    }
    for program in description["programs"].values():
        (onnx,) = [file for file in program["files"] if file.endswith(".onnx")]
        session = onnxruntime.InferenceSession(str(folder / onnx), providers=["CPUExecutionProvider"])
        for described, real in ((program["inputs"], session.get_inputs()), (program["outputs"], session.get_outputs())):
            assert [each["name"] for each in described] == [each.name for each in real]
            assert [each["shape"][1:] for each in described] == [each.shape[1:] for each in real]
            assert all(isinstance(each.shape[0], str) for each in real)  # any number of rows
            assert {"float32": "tensor(float)"}[described[0]["dtype"]] == real[0].type
    assert "[0, 1]" in description["programs"]["encoder"]["inputs"][0]["what"]
    assert str(Path(__file__).parent).encode() not in (folder / "encoder.pt2").read_bytes()


def test_the_files_have_only_the_weights_that_they_need(exported):
    vae, folder = exported
    decoder = torch.export.load(folder / "decoder.pt2")
    assert sum(value.numel() for value in decoder.state_dict.values()) == sum(
        value.numel() for value in vae.likelihood.parameters()
    )


def test_they_run_where_there_is_no_torch(exported):
    script = """
import json, sys
sys.modules["torch"] = sys.modules["pyro_vae"] = None
import numpy, onnxruntime
about = json.load(open("export.json"))
for program in about["programs"].values():
    file = next(name for name in program["files"] if name.endswith(".onnx"))
    given = {each["name"]: numpy.ones([3, *each["shape"][1:]], each["dtype"]) for each in program["inputs"]}
    outputs = onnxruntime.InferenceSession(file).run([each["name"] for each in program["outputs"]], given)
    assert [list(value.shape) for value in outputs] == [[3, *each["shape"][1:]] for each in program["outputs"]]
    print(file)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=exported[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["encoder.onnx", "decoder.onnx", "log_likelihood.onnx"]


def test_a_flow_has_draws_and_their_densities(tmp_path):
    """Importance sampling with the outputs of the files alone agrees with ``evidence.importance``."""
    q = posteriors.InverseAutoregressive(
        nn.mlp(EVENT, [8], 2 * LATENT + 3), LATENT, 3, transforms=2, hidden_features=[8]
    )
    vae = VAE(priors.StandardNormal(LATENT), likelihoods.Bernoulli(nn.mlp(LATENT, [8], EVENT)), q)
    for parameter in vae.parameters():  # q is then near the prior and the posterior, so that weights are nearly equal
        parameter.data *= 0.3
    with pyro.validation_enabled(False):
        export_programs([each for each in vae.eval()._export_programs() if each.name != "decoder"], tmp_path, "onnx")
    x, draws = torch.rand(3, *EVENT).bernoulli(), 2000
    many = x.repeat_interleave(draws, 0)
    z = by_onnx(tmp_path / "encoder.onnx", {"x": many, "eps": torch.randn(len(many), LATENT)})
    p = by_onnx(tmp_path / "log_likelihood.onnx", {"x": many, "z": z["z"]})
    log_w = (p["log_likelihood"] + p["log_prior"] - z["log_q"]).unflatten(0, (3, draws))
    found = log_w.logsumexp(1) - np.log(draws)
    expected = evidence.importance(vae.model, vae.guide, x, num_samples=draws)
    # Two independent estimates of about normal errors: beyond 6 standard errors of the difference once in 10^8.
    assert ((found - expected.log_prob).abs() <= 6 * 2**0.5 * expected.std_error + 1e-4).all()
    torch.testing.assert_close(vae.posterior(many).log_prob(z["z"]), z["log_q"], rtol=1e-3, atol=1e-3)


# Nothing changes besides the files


def test_the_model_stays_as_it_is(tmp_path):
    vae = small_vae().train()
    vae.posterior.network[1].register_forward_hook(lambda *_: None)
    state = torch.get_rng_state()
    vae.export(tmp_path, "torch")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in vae.modules())
    assert not list(pyro.get_param_store().keys())
    assert pyro.poutine.runtime._PYRO_STACK == []
    x = torch.rand(3, *EVENT).bernoulli()
    torch.testing.assert_close(by_torch(tmp_path / "encoder.pt2")({"x": x})["code"], vae.encode(x))


def test_formats_can_be_chosen_and_old_files_go(exported, tmp_path, monkeypatch):
    vae, folder = exported[0], shutil.copytree(exported[1], tmp_path / "old")
    (folder / "mine.pt2").write_text("mine")
    vae.export(folder, "onnx")
    assert {path.suffix for path in folder.iterdir() if path.name != "mine.pt2"} == {".onnx", ".json"}
    assert (folder / "mine.pt2").read_text() == "mine"
    for formats in ([], ["tflite"]):
        with pytest.raises(ValueError, match=r"formats? is .*expected .*'onnx'"):
            vae.export(folder, formats)
    monkeypatch.setattr(onnx_format, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"^ONNX files need onnx and .*: pip install 'pyro-vae\[export\]'$"):
        vae.export(tmp_path / "new")
    assert not (tmp_path / "new").exists()


class Looks(torch_nn.Module):
    """A network that cannot be traced."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


class NoSuchOperator(torch_nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Noisy(torch_nn.Module):
    """A network of which no file can compute the same."""

    def forward(self, x):
        return x + torch.rand_like(x)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Looks(), "^decoder cannot be traced by torch.export: "),
        (NoSuchOperator(), r"^decoder cannot be exported as ONNX: ONNX has no operator for \w*bessel_j0$"),
        (Noisy(), r"^decoder.onnx gives \w+ with a difference of .* for 7 rows$"),
    ],
    ids=["looks at values", "no operator", "noise"],
)
def test_what_cannot_be_exported_is_named_and_nothing_is_written(network, message, exported, tmp_path):
    folder = shutil.copytree(exported[1], tmp_path / "old")
    before = contents(folder)
    vae = small_vae()
    vae.likelihood.network = torch_nn.Sequential(network, vae.likelihood.network)
    decoder = vae.eval()._export_programs()[1:2]
    for place in (folder, tmp_path / "new"):
        with pyro.validation_enabled(False), pytest.raises(ExportError, match=message):
            export_programs(decoder, place)
    assert contents(folder) == before
    assert not (tmp_path / "new").exists()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [0, 2])
def test_a_full_disk_and_ctrl_c_leave_the_old_export(error, after, exported, tmp_path, monkeypatch):
    folder = shutil.copytree(exported[1], tmp_path / "old")
    before = contents(folder)
    calls = []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > after:
            raise error

    monkeypatch.setattr(files.os, "fsync", fsync)
    examples = ({"x": torch.ones(3, 2)}, {"x": torch.ones(1, 2)})
    words = {"x": "numbers", "y": "twice as many"}
    doubles = [Program(name, lambda x: {"y": 2 * x}, [], examples, words, "2 x") for name in ("encoder", "other")]
    with pytest.raises(type(error), match="No space left" if isinstance(error, OSError) else None):
        export_programs(doubles, folder, ["torch"])
    assert contents(folder) == before


def test_ctrl_c_while_files_get_their_names_waits(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).write_bytes(b"old")
    original = Path.replace

    def interrupted(self, target):
        if target.name == "a":
            os.kill(os.getpid(), 2)
        return original(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.replace_all({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert contents(tmp_path) == {"a": b"new", "b": b"new"}


# The command


def test_the_command(tmp_path, capsys):
    rows = np.random.default_rng(0)
    lines = ["length,kind", *(f"{rows.normal():.3f},{'ab'[i % 2]}" for i in range(60))]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    run = str(tmp_path / "run")
    words = ["--epochs", "1", "--network.hidden", "4", "--latent-dim", "2", "--pictures-every", "0", "--no-tensorboard"]
    assert main(["train", run, "--data", str(tmp_path / "data.csv"), "--compile", "none", *words]) == 0
    capsys.readouterr()
    assert main(["export", run, "--formats", "onnx"]) == 0
    out = capsys.readouterr().out
    for name in ("encoder.onnx", "decoder.onnx", "log_likelihood.onnx", "export.json"):
        assert f"{run}/export/{name}" in out
    assert "inputs   x [n, 2]" in out
    description = json.loads((tmp_path / "run" / "export" / "export.json").read_text())
    assert [column["name"] for column in description["columns"]] == ["length", "kind"]
    assert description["columns"][1]["categories"] == ["a", "b"]
    assert main(["export", run, "--formats", "tflite"]) == 2
    assert "tflite" in capsys.readouterr().err

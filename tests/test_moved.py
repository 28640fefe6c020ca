"""Runs that were saved before modules moved still load: the files in ``saved_before_the_move`` are of then."""

import inspect
import json
import shutil
from pathlib import Path

import parts
import pytest
import torch
from test_loading import MODELS, encoder, top_down

import pyro_vae
from pyro_vae import fit, load
from pyro_vae.saving.description import build, describe
from pyro_vae.saving.difference import difference
from pyro_vae.saving.moved import MOVED

SAVED = Path(__file__).parent / "saved_before_the_move"
DESCRIPTIONS = json.loads((SAVED / "descriptions.json").read_text())


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("model", DESCRIPTIONS)
def test_a_description_of_then_builds_the_model_of_now(model, monkeypatch):
    monkeypatch.setattr(parts, "encoder", encoder)
    now = MODELS[model]()
    then = build(DESCRIPTIONS[model], now.state_dict())
    assert difference(now, then) is None
    then.load_state_dict(now.state_dict())
    assert describe(then) == describe(now)


NORMS = {
    torch.nn.BatchNorm1d: {"num_features": 4, "track_running_stats": True},
    torch.nn.InstanceNorm2d: {"num_features": 4},
    torch.nn.GroupNorm: {"num_groups": 2, "num_channels": 4},
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", NORMS)
def test_norms_described_with_a_newer_torch(kind, affine, bias):
    """torch 2.15 describes them with a flag for the bias, which torch 2.7 does not have."""
    described = {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "arguments": {**NORMS[kind], "affine": affine, "bias": bias},
    }
    description = {"dtype": "float32", "default_dtype": "float32", "frozen": [], "module": described}
    expected = {name for name, there in (("weight", affine), ("bias", affine and bias)) if there}
    has_flag = "bias" in inspect.signature(kind).parameters
    if has_flag or affine == bias:
        assert {name for name, _ in build(description, {}).named_parameters()} == expected
    else:
        with pytest.raises(ValueError, match=f"^{kind.__name__} has no argument bias in this version$"):
            build(description, {})


def test_an_argument_of_a_version_to_come_is_named():
    module = {"class": "torch.nn.modules.linear.Linear", "arguments": {"in_features": 1, "out_features": 1, "new": 1}}
    with pytest.raises(ValueError, match=r"^Linear has no argument new in this version$"):
        build({"dtype": "float32", "default_dtype": "float32", "frozen": [], "module": module}, {})


def test_the_descriptions_of_then_use_every_name_that_has_moved():
    text = (SAVED / "descriptions.json").read_text()
    assert all(f'"{old}.' in text for old in MOVED)


def test_a_run_of_then_loads_and_can_be_resumed(tmp_path):
    shutil.copytree(SAVED / "run", tmp_path / "run")
    vae = load(tmp_path / "run")
    assert type(vae) is pyro_vae.HierarchicalVAE
    torch.manual_seed(0)
    x = top_down().sample(20)
    run = fit(top_down(), x, x, epochs=2, batch_size=10, seed=0, out=tmp_path / "run", resume=True, progress=False)
    assert [row["epoch"] for row in run.history] == [1, 2]

"""Models with a card, in a folder and on the Hugging Face Hub, whose methods are replaced by a folder: no network."""

from __future__ import annotations

import inspect
import math
import re
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import EVENT, small_vae
from test_checkpoint import _Attack, _pickled, contents, equal
from test_loading import MODELS, assert_same, own_prior, top_down

from pyro_vae import VAE, CheckpointError, HierarchicalVAE, evidence, fit, load, save
from pyro_vae.models.latent_variable_model import LatentVariableModel
from pyro_vae.plots import new_figure
from pyro_vae.saving.card import TAGS
from pyro_vae.saving.checkpoint import read
from pyro_vae.saving.yaml_text import to_yaml

X = torch.rand(20, *EVENT, generator=torch.Generator().manual_seed(0)).bernoulli()
FILES = {"README.md", "config.json", "model.safetensors"}
NASTY = [
    "",
    "no",
    "1.0",
    "a: b # c",
    "- x",
    "'\"\\",
    "é ± 漢字 😀",
    "two\nlines\tand a tab",
    "---",
    "null",
    "{",
    "\x85",
]


def found(mean=-91.406, error=0.0213):
    """What looks like a result of evidence."""
    return SimpleNamespace(mean=mean, mean_error=error, summary=lambda: "log p(x) of 7 images\n``` and a fence")


def read_card(folder):
    """The metadata and the text, as the Hub reads them."""
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    card = hub.ModelCard((folder / "README.md").read_text())
    return card.data.to_dict(), card.text


# The card


@pytest.mark.parametrize(
    "value", [*NASTY, 1, -1.5, True, {"a": [{"b": "c", "d": ["e", {"f": 1}]}, "g"], "h": {"i": []}}]
)
def test_yaml_is_read_back(value):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    expected = value.replace("\x85", "") if isinstance(value, str) else value
    assert yaml.safe_load(to_yaml({"key": value})) == {"key": expected}
    assert yaml.safe_load(to_yaml([value, [value]])) == [expected, [expected]]


@pytest.mark.parametrize("model", ["bottom up", "conditional", "semi-supervised", "Laplace", "convolutional"])
def test_the_card_loads_the_model(model, tmp_path):
    vae = MODELS[model]()
    vae.save_pretrained(tmp_path / "a", name=str(tmp_path / "a"))
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
    head, text = read_card(tmp_path / "a")
    assert head == {"library_name": "pyro_vae", "tags": list(TAGS)}
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}
    exec(code, names)
    assert_same(vae, names["vae"])
    assert_same(vae, load(tmp_path / "a"))
    save(vae, tmp_path / "b")  # the same, but for the card
    assert equal(read(tmp_path / "a" / "model.safetensors"), read(tmp_path / "b" / "model.safetensors"))
    assert (tmp_path / "a" / "config.json").read_bytes() == (tmp_path / "b" / "config.json").read_bytes()


def test_the_card_says_how_good_it_is(tmp_path):
    settings = {"epochs": 3, "transform": None, "loss": "a | b\nc"}
    small_vae().save_pretrained(
        tmp_path,
        evidence=found(),
        data="Digits: 28 x 28",
        settings=settings,
        license="mit",
        tags=["digits"],
        name="u/n",
    )
    head, text = read_card(tmp_path)
    assert head["license"] == "mit"
    assert head["tags"] == [*TAGS, "digits"]
    (entry,) = head["model-index"]
    (result,) = entry["results"]
    assert (entry["name"], result["dataset"]["name"]) == ("u/n", "Digits: 28 x 28")
    assert result["dataset"]["type"] == "digits-28-x-28"
    assert result["metrics"][0]["value"] == -91.406
    assert "± 0.021, 95%" in result["metrics"][0]["name"]
    assert "log p(x) = -91.406 ± 0.021 nats per datapoint (95%" in text
    assert "````\nlog p(x) of 7 images\n``` and a fence\n````" in text
    assert "## Data\n\nDigits: 28 x 28\n" in text
    assert "| epochs | 3 |\n| loss | a \\| b c |" in text
    assert "transform" not in text
    assert "| likelihood | Bernoulli | 168 |" in text


def test_a_bound_has_no_error(tmp_path):
    small_vae().save_pretrained(tmp_path, evidence=found(error=math.inf))
    head, text = read_card(tmp_path)
    assert "log p(x) >= -91.41 nats per datapoint: a lower bound on average" in text
    assert "(a lower bound)" in head["model-index"][0]["results"][0]["metrics"][0]["name"]
    small_vae().save_pretrained(tmp_path, evidence=found(-math.inf, math.nan))
    assert "model-index" not in read_card(tmp_path)[0]


def test_results_of_evidence_are_taken(tmp_path):
    vae = small_vae()
    result = evidence.estimate(vae.model, vae.guide, X, progress=False)
    vae.save_pretrained(tmp_path, evidence=result)
    head, text = read_card(tmp_path)
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == result.mean
    assert result.summary() in text
    with pytest.raises(TypeError, match=r"evidence is of type float; expected a result of evidence.estimate"):
        vae.save_pretrained(tmp_path, evidence=-91.4)


def test_pictures_are_beside_it(tmp_path):
    for name in ("samples.png", "two words.png"):
        new_figure(figsize=(1, 1)).savefig(tmp_path / name)
    pictures = [str(tmp_path / "samples.png"), tmp_path / "two words.png"]
    small_vae().save_pretrained(tmp_path / "a", pictures=pictures)
    text = read_card(tmp_path / "a")[1]
    shown = re.findall(r"!\[.*\]\(<(.*)>\)", text)
    assert shown == ["samples.png", "two words.png"]
    for name in shown:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    ("pictures", "error", "message"),
    [
        ("samples.png", TypeError, "pictures is 'samples.png'; expected a list of files"),
        (["none.png"], FileNotFoundError, "none.png"),
        (["README.md"], ValueError, r"'README.md' is not a picture; expected .gif, .jpeg"),
        (["samples.png", "more/samples.png"], ValueError, "two pictures have the name 'samples.png'"),
    ],
)
def test_what_is_no_picture_is_refused_before_anything_is_written(pictures, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples.png").write_bytes(b"")
    with pytest.raises(error, match=message):
        small_vae().save_pretrained("model", pictures=pictures)
    assert not (tmp_path / "model").exists()


def test_a_card_that_was_changed_is_kept(tmp_path):
    vae = small_vae()
    vae.save_pretrained(tmp_path, data="old")
    vae.save_pretrained(tmp_path, data="new")
    card = tmp_path / "README.md"
    assert "## Data\n\nnew" in card.read_text()
    mine = re.sub("<!--.*-->\n", "", card.read_text()).replace("new", "mine")
    card.write_text(mine)
    with pytest.warns(UserWarning, match=r"README.md' was edited or not written by pyro_vae, and is kept"):
        vae.save_pretrained(tmp_path, data="newer")
    assert card.read_text() == mine
    assert_same(vae, load(tmp_path))


@pytest.mark.filterwarnings("ignore:the weights are saved")
def test_the_card_of_parts_of_ones_own_says_so(tmp_path):
    vae = own_prior()
    vae.save_pretrained(tmp_path)
    text = read_card(tmp_path)[1]
    assert "A part is not from this library (prior is a parts.TorchPrior)" in text
    assert_same(vae, VAE.from_pretrained(tmp_path, own_prior()))


# From a folder


def test_every_kind_of_folder_is_taken(tmp_path):
    vae = small_vae()
    fit(vae, X, epochs=1, compile=False, progress=False, out=tmp_path / "run")
    save(vae, tmp_path / "model")
    for path in ("run", "model", "model/model.safetensors"):
        assert_same(VAE.from_pretrained(str(tmp_path / path)), vae)
        assert_same(LatentVariableModel.from_pretrained(tmp_path / path), vae)


def test_another_class_is_named(tmp_path):
    save(top_down(), tmp_path)
    with pytest.raises(TypeError, match=r"is a HierarchicalVAE; expected a VAE: call HierarchicalVAE.from_pretrained"):
        VAE.from_pretrained(tmp_path)
    assert type(HierarchicalVAE.from_pretrained(tmp_path)) is HierarchicalVAE


def test_paths_are_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for path in (tmp_path / "user" / "name", str(tmp_path / "none"), "./none", "~/none/none", "a/b/c", "", Path("a/b")):
        with pytest.raises(FileNotFoundError):
            VAE.from_pretrained(path)


def test_without_huggingface_hub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    vae = small_vae()
    vae.save_pretrained(tmp_path)
    assert_same(vae, VAE.from_pretrained(tmp_path))
    words = r"install a package: pip install 'pyro-vae\[hub\]'"
    with pytest.raises(ImportError, match=f"there is no folder 'user/name'; to load it from the .* Hub, {words}"):
        VAE.from_pretrained("user/name")
    with pytest.raises(ImportError, match=r"the Hugging Face Hub needs a package: pip install 'pyro-vae\[hub\]'"):
        vae.push_to_hub("user/name")


# On the Hub


class Hub:
    """A folder instead of the Hub. Each method takes only what that of huggingface_hub takes, and is noted."""

    def __init__(self, folder, monkeypatch):
        import huggingface_hub

        self.folder, self.calls = folder, {}
        for owner, name in [
            (huggingface_hub, "snapshot_download"),
            *((huggingface_hub.HfApi, each) for each in ("create_repo", "create_branch", "upload_folder")),
            *((huggingface_hub.HfApi, each) for each in ("file_exists", "hf_hub_download")),
        ]:
            monkeypatch.setattr(owner, name, self._noted(name, inspect.signature(getattr(owner, name))))
        init = huggingface_hub.HfApi.__init__

        def noted(api, *arguments, **options):
            self.token = options.get("token")
            init(api, *arguments, **options)

        monkeypatch.setattr(huggingface_hub.HfApi, "__init__", noted)

    def _noted(self, name, signature):
        def method(*arguments, **options):
            bound = {
                key: each for key, each in signature.bind(*arguments, **options).arguments.items() if key != "self"
            }
            self.calls[name] = bound
            return getattr(self, name)(**bound)

        return method

    def create_repo(self, repo_id, **_):
        whole = repo_id if "/" in repo_id else f"me/{repo_id}"
        (self.folder / whole).mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(repo_id=whole)

    def create_branch(self, **_):
        pass

    def upload_folder(self, repo_id, folder_path, **_):
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/1")

    def file_exists(self, repo_id, filename, **_):
        return (self.folder / repo_id / filename).exists()

    def hf_hub_download(self, repo_id, filename, **_):
        return str(self.folder / repo_id / filename)

    def snapshot_download(self, repo_id, allow_patterns, cache_dir, **_):
        shutil.copytree(
            self.folder / repo_id,
            cache_dir,
            ignore=lambda _, names: {name for name in names if not any(fnmatch(name, each) for each in allow_patterns)},
        )
        return str(cache_dir)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    monkeypatch.chdir(tmp_path)
    return Hub(tmp_path / "hub", monkeypatch)


def test_what_is_pushed_is_loaded(hub, tmp_path):
    vae = small_vae()
    url = vae.push_to_hub("me/digits", evidence=found(), data="Digits", license="mit", private=True, token="secret")
    assert url == "https://huggingface.co/me/digits/commit/1"
    assert hub.token == "secret"
    assert hub.calls["create_repo"] == {"repo_id": "me/digits", "private": True, "exist_ok": True}
    assert hub.calls["upload_folder"]["create_pr"] is False
    assert "create_branch" not in hub.calls
    there = hub.folder / "me" / "digits"
    assert {path.name for path in there.iterdir()} == FILES
    assert 'VAE.from_pretrained("me/digits")' in (there / "README.md").read_text()
    assert "secret" not in "".join(map(str, contents(there).values()))
    options = {"revision": "v1", "token": True, "local_files_only": True, "force_download": True}
    assert_same(VAE.from_pretrained("me/digits", cache_dir=tmp_path / "cache", **options), vae)
    assert hub.calls["snapshot_download"].items() >= options.items()


def test_a_name_without_a_user_and_a_branch(hub):
    small_vae().push_to_hub("digits", revision="next", commit_message="Words")
    assert 'from_pretrained("me/digits")' in (hub.folder / "me" / "digits" / "README.md").read_text()
    assert hub.calls["create_branch"] == {"repo_id": "me/digits", "branch": "next", "exist_ok": True}
    assert hub.calls["upload_folder"].items() >= {"revision": "next", "commit_message": "Words"}.items()


def test_nothing_is_created_for_what_cannot_be_pushed(hub):
    with pytest.raises(FileNotFoundError):
        small_vae().push_to_hub("me/digits", pictures=["none.png"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrong'"):
        small_vae().push_to_hub("me/digits", wrong=True)
    assert hub.calls == {}


@pytest.mark.parametrize(("card", "is_kept"), [("---\nlicense: mit\n---\n", False), ("", False), ("# Mine\n", True)])
def test_a_card_on_the_hub_that_was_changed_is_kept(hub, card, is_kept):
    there = hub.folder / "me" / "digits" / "README.md"
    there.parent.mkdir(parents=True)
    there.write_text(card)
    if is_kept:
        with pytest.warns(UserWarning, match=r"README.md of 'me/digits' was edited or not written by pyro_vae"):
            small_vae().push_to_hub("me/digits")
    else:
        small_vae().push_to_hub("me/digits")
    assert (there.read_text() == card) == is_kept
    assert load(there.parent).latent_shape == (2,)


def test_only_two_files_are_downloaded_and_none_is_executed(hub, tmp_path):
    attacked = tmp_path / "attacked"
    there = hub.folder / "me" / "digits"
    small_vae().push_to_hub("me/digits")
    for name in ("pytorch_model.bin", "modeling.py", "model.pkl", "conftest.py", "setup.py"):
        (there / name).write_bytes(_pickled(_Attack(attacked)))
    VAE.from_pretrained("me/digits", cache_dir=tmp_path / "cache")
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"config.json", "model.safetensors"}
    (there / "model.safetensors").write_bytes(_pickled(_Attack(attacked)))
    with pytest.raises(CheckpointError, match="is not a checkpoint of pyro_vae, or is damaged"):
        VAE.from_pretrained("me/digits", cache_dir=tmp_path / "cache2")
    (there / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"'me/digits' has no model.safetensors on the Hugging Face Hub"):
        VAE.from_pretrained("me/digits", cache_dir=tmp_path / "cache3")
    assert not attacked.exists()


def test_the_cache_of_huggingface_hub_is_read(tmp_path):
    """The real function, which needs no network for what is in its cache."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    vae, repository = small_vae(), tmp_path / "models--me--digits"
    commit = "0" * 40
    save(vae, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert_same(VAE.from_pretrained("me/digits", cache_dir=tmp_path, local_files_only=True), vae)
    with pytest.raises(OSError, match=r"^there is no folder 'me/none', and it cannot be downloaded from the .* Hub: "):
        VAE.from_pretrained("me/none", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(OSError, match=r"^there is no folder 'me/no name', and .*: Repo id must "):
        VAE.from_pretrained("me/no name", cache_dir=tmp_path, local_files_only=True)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("create_repo", "cannot create 'me/digits'"), ("upload_folder", "cannot upload to 'me/digits'")],
)
def test_errors_of_the_hub_name_the_repository(hub, name, problem, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("403 Forbidden")

    monkeypatch.setattr(hub, name, fail)
    with pytest.raises(OSError, match=rf"^{problem} on the Hugging Face Hub: 403 Forbidden$"):
        small_vae().push_to_hub("me/digits")

"""The command line on users' own data: what it sees, the parts that it chooses, and every command on every kind."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from test_cli import error, run

from pyro_vae import evidence, likelihoods, load, posteriors, priors
from pyro_vae.cli import look
from pyro_vae.cli.data import Data
from pyro_vae.cli.likelihoods import LIKELIHOODS
from pyro_vae.cli.posteriors import POSTERIORS
from pyro_vae.cli.priors import PRIORS
from pyro_vae.cli.run_files import data_of, rows_of, seen_of
from pyro_vae.evidence.diagnostics.gaps import family
from pyro_vae.representation.roc_auc import roc_auc

RNG = np.random.default_rng(0)
N = 40
SMALL = ["--latent-dim", "2", "--epochs", "2", "--batch-size", "16", "--compile", "none", "--no-tensorboard"]


def frame():
    z = RNG.normal(size=N)
    table = pd.DataFrame(
        {
            "length": 10 + z,
            "mass": np.exp(2 * z),
            "eggs": RNG.poisson(np.exp(1 + z)) + 2,
            "kind": np.where(z > 0.4, "owl", np.where(z < -0.4, "wren", "crow")),
            "male": RNG.random(N) < 0.5,
            "ring": [f"ring {i}" for i in range(N)],
            "site": ["north", "south"] * (N // 2),
        }
    )
    for i, name in enumerate(["length", "mass", "kind"]):
        table.loc[np.arange(N) % 5 == i, name] = None
    return table


def write_table(folder):
    frame().to_csv(folder / "birds.csv", index=False)
    return folder / "birds.csv"


def write_images(folder):
    for i in range(N):
        path = folder / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (8, 10, 3), dtype=np.uint8)).save(path)
    return folder / "photos"


def write_array(name, array):
    def write(folder):
        np.save(folder / f"{name}.npy", array)
        return folder / f"{name}.npy"

    return write


def write_counts(folder):
    sparse.save_npz(folder / "cells.npz", sparse.csr_matrix(RNG.poisson(0.5, (N, 12)) * RNG.integers(1, 4, (N, 12))))
    return folder / "cells.npz"


SERIES = np.cumsum(RNG.normal(size=(N, 9, 2)), axis=1)
SERIES[RNG.random(SERIES.shape) < 0.1] = np.nan
# The file, what is said of it, the likelihood and the networks.
KINDS = {
    "colour images": (write_images, "40 colour images, 8 x 10, 8 bit, 2 classes", "discretized-logistic", "convolutional"),
    "channels last": (
        write_array("rgb", RNG.integers(0, 256, (N, 8, 12, 3), dtype=np.uint8)),
        "40 colour images, 8 x 12, 8 bit", "discretized-logistic", "convolutional",
    ),
    "grey images": (
        write_array("grey", RNG.integers(0, 256, (N, 8, 8), dtype=np.uint8)),
        "40 grey images, 8 x 8, 8 bit", "discretized-logistic", "convolutional",
    ),
    "binary images": (write_array("binary", RNG.integers(0, 2, (N, 1, 8, 8))), "40 binary images, 8 x 8", "bernoulli", "mlp"),
    "table": (write_table, "a table of 40 rows and 7 columns", "columns", "mlp"),
    "sparse counts": (write_counts, "sparse counts, 40 vectors of 12 values, counts", "negative-binomial", "mlp"),
    "series": (
        write_array("series", SERIES),
        "40 series of 9 steps and 2 features, real numbers, with missing values", "normal", "series",
    ),
    "vectors": (write_array("vectors", 1e4 + 3e3 * RNG.normal(size=(N, 5))), "40 vectors of 5 values, real numbers", "normal", "mlp"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_on_every_kind_of_data(kind, tmp_path, capsys):
    write, words, likelihood, network = KINDS[kind]
    data, out = write(tmp_path), tmp_path / "run"
    fewer = ["--network", network, "--network.channels", 4, 8] if network == "convolutional" else []
    said = run(capsys, "train", out, "--data", data, *SMALL, "--dry-run")
    assert words in said
    assert f"{likelihood} likelihood, {network} networks; change with --likelihood" in said
    assert not out.exists()
    assert words in run(capsys, "train", out, "--data", data, *SMALL, *fewer)
    if kind != "channels last":  # which differs from colour images by how it is read
        assert "log p(x)" in run(capsys, "evaluate", out, "--limit", 2, "--tolerance", 0.5)
    assert "codes.csv" in run(capsys, "encode", out)
    codes = pd.read_csv(out / "codes.csv")
    assert list(codes)[:3] == ["row", "z0", "z1"]
    assert len(codes) == N
    assert ("label" in codes) == (kind == "colour images")
    if kind == "colour images":  # the others are like it, or in test_scores_are_those_of_the_model
        run(capsys, "score", out, "--limit", 2, "--tolerance", 0.5)
        scores = pd.read_csv(out / "scores.csv")
        assert len(scores) == 2
        assert np.isfinite(scores[["log_prob", "reconstruction_error"]]).all(axis=None)
    suffix = ".csv" if kind == "table" else ".npy"
    run(capsys, "sample", out, "--count", 3, "--draws", tmp_path / f"draws{suffix}")
    assert "codes.png" in run(capsys, "plot", out)


def test_real_numbers_are_standardized_and_densities_are_in_their_units(tmp_path, capsys):
    data, out = KINDS["vectors"][0](tmp_path), tmp_path / "run"
    run(capsys, "train", out, "--data", data, *SMALL)
    vae = load(out)
    assert isinstance(vae.likelihood, likelihoods.Rescaled)
    assert vae.likelihood.center.mean() == pytest.approx(1e4, rel=0.1)
    run(capsys, "train", tmp_path / "raw", "--data", data, *SMALL, "--standardize", "no")
    assert not isinstance(load(tmp_path / "raw").likelihood, likelihoods.Rescaled)
    assert "expected one of normal, heteroscedastic-normal" in error(
        capsys,
        "train",
        tmp_path / "other",
        "--data",
        KINDS["binary images"][0](tmp_path),
        *SMALL,
        "--standardize",
        "yes",
    )


def test_a_table_is_imputed_with_intervals_and_observed_values_stay(tmp_path, capsys):
    data, out = write_table(tmp_path), tmp_path / "run"
    run(capsys, "train", out, "--data", data, "--labels", "site", *SMALL)
    said = run(capsys, "impute", out, "--out", tmp_path / "filled.csv", "--intervals", 0.9, "--draws", 20)
    assert "filled in 24 values of 24 of 40 datapoints" in said
    before, after = pd.read_csv(data), pd.read_csv(tmp_path / "filled.csv")
    assert list(after) == list(before)
    assert not after.isna().any(axis=None)
    pd.testing.assert_frame_equal(after.where(before.notna()), before, check_dtype=False)
    lower, upper = (pd.read_csv(tmp_path / f"filled_{end}.csv") for end in ("lower", "upper"))
    gaps = before["mass"].isna()
    assert (lower["mass"][gaps] < upper["mass"][gaps]).all()
    assert (lower["mass"][~gaps] == upper["mass"][~gaps]).all()
    assert set(after["kind"]) == {"owl", "wren", "crow"}


def test_a_table_is_read_as_in_the_run_whatever_a_new_file_looks_like(tmp_path, capsys):
    data, out = write_table(tmp_path), tmp_path / "run"
    run(capsys, "train", out, "--data", data, "--column", "eggs:real", *SMALL)
    kinds = {each["name"]: each["kind"] for each in json.loads((out / "command.json").read_text())["table"]}
    assert kinds["eggs"] == "real"
    new = frame()[:3].assign(kind="owl")  # one category only
    new.to_csv(tmp_path / "new.csv", index=False)
    run(capsys, "encode", out, "--data", tmp_path / "new.csv")
    assert len(pd.read_csv(out / "codes.csv")) == 3
    new.assign(kind="gull").to_csv(tmp_path / "other.csv", index=False)
    assert "column 'kind' (categorical) has 3 invalid values: the first is 'gull'" in error(
        capsys, "encode", out, "--data", tmp_path / "other.csv"
    )


BAD = {
    "an unknown kind": (["--column", "eggs:number"], "the kind of column 'eggs' is 'number'"),
    "no kind": (["--column", "eggs"], "--column is 'eggs'; expected NAME:KIND"),
    "an unknown column": (["--column", "wings:real"], "kinds has the column 'wings'; the table has length, mass"),
    "unknown labels": (["--labels", "country"], "--labels is 'country'; the table"),
    "another likelihood": (["--likelihood", "bernoulli", "--missing", "no"], "that are NaN or outside of [0, 1]"),
}


@pytest.mark.parametrize("name", BAD)
def test_options_that_cannot_be_are_refused_before_any_work(name, tmp_path, capsys):
    words, message = BAD[name]
    assert message in error_after_words(
        capsys, "train", tmp_path / "run", "--data", write_table(tmp_path), *SMALL, *words
    )


def error_after_words(capsys, *words):
    """As ``error``, where what is seen may be printed first."""
    from pyro_vae.cli import main

    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_a_broken_image_is_named(tmp_path, capsys):
    folder = write_images(tmp_path)
    (folder / "cat" / "zz.png").write_bytes(b"no image")
    assert "zz.png' cannot be read" in error(capsys, "train", tmp_path / "run", "--data", folder, *SMALL)
    run(capsys, "train", tmp_path / "run", "--data", folder, *SMALL, "--skip-broken", "--size", 6)
    assert load(tmp_path / "run").event_shape == (3, 6, 6)


def test_a_folder_larger_than_memory_is_read_as_needed(tmp_path, capsys, monkeypatch):
    folder = write_images(tmp_path)
    look.look.cache_clear()
    monkeypatch.setattr(look, "MOST_NUMBERS", 1000)
    monkeypatch.setattr(look, "ROWS", 6)
    monkeypatch.setattr(look, "MOST_HELD_OUT", 3)
    said = run(capsys, "train", tmp_path / "run", "--data", folder, *SMALL)
    assert "40 colour images, 8 x 10, 8 bit, larger than memory: read as they are needed, 2 classes" in said
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["step"].tolist() == [2, 4]  # 32 images for training, in batches of 16
    run(capsys, "evaluate", tmp_path / "run", "--limit", 2, "--tolerance", 0.5)
    assert "choose --split test or valid" in error(capsys, "encode", tmp_path / "run")
    run(capsys, "encode", tmp_path / "run", "--split", "test")
    assert len(pd.read_csv(tmp_path / "run" / "codes.csv")) == 3
    look.look.cache_clear()


def test_classes_are_integers(tmp_path, capsys):
    np.save(tmp_path / "dna.npy", RNG.integers(0, 4, (N, 7)))
    options = ["--likelihood", "categorical", "--likelihood.classes", 4]
    run(capsys, "train", tmp_path / "run", "--data", tmp_path / "dna.npy", *SMALL, *options)
    run(capsys, "evaluate", tmp_path / "run", "--limit", 3)
    assert load(tmp_path / "run").sample(3).dtype == torch.int64


COUNTS = ["heterogeneous-negative-binomial", "negative-binomial", "poisson", "zero-inflated"]
OTHERS = {
    **{name: (write_counts, ["--likelihood", name]) for name in COUNTS},
    "recurrent": (KINDS["series"][0], ["--network", "recurrent", "--network.hidden", 4]),
    "sphere": (KINDS["vectors"][0], ["--prior", "hyperspherical", "--posterior", "projected-normal"]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_parts_for_other_data_than_images(name, tmp_path, capsys):
    write, words = OTHERS[name]
    run(capsys, "train", tmp_path / "run", "--data", write(tmp_path), *SMALL, *words)
    loaded = load(tmp_path / "run")
    assert loaded.sample(3).shape[1:] == loaded.event_shape
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert np.isfinite(history["valid_loss"]).all()


FLOW = ["--posterior.transforms", 1, "--posterior.hidden", 8, "--posterior.context", 4]
GREY = write_array("grey", (np.arange(64).reshape(8, 8) * 3 + RNG.integers(0, 60, (N, 8, 8))).astype(np.uint8))
# Each likelihood once, with another posterior: the data, the posterior and other words.
SCORED = {
    "bernoulli": (KINDS["binary images"][0], "low-rank", ["--posterior.rank", 1]),
    "categorical": (
        write_array("dna", RNG.integers(0, 4, (N, 7))),
        "full-normal", ["--likelihood", "categorical", "--likelihood.classes", 4],
    ),
    "columns": (write_table, "product-of-experts", []),
    "continuous-bernoulli": (GREY, "iaf", ["--likelihood", "continuous-bernoulli", *FLOW]),
    "discretized-logistic": (GREY, "spline", ["--likelihood", "discretized-logistic", *FLOW]),
    **{name: (write_counts, "normal", ["--likelihood", name]) for name in COUNTS},
    "normal": (KINDS["vectors"][0], "projected-normal", ["--prior", "hyperspherical"]),
    "heteroscedastic-normal": (KINDS["series"][0], "product-of-experts", ["--likelihood", "heteroscedastic-normal"]),
}  # fmt: skip


def test_scores_are_tested_with_every_posterior_and_likelihood():
    assert {*LIKELIHOODS} == {*SCORED}
    assert {*POSTERIORS} == {posterior for _, posterior, _ in SCORED.values()}


@pytest.mark.parametrize("name", SCORED)
def test_scores_are_those_of_the_model(name, tmp_path, capsys):
    """log p(x) against importance sampling with the guide; the reconstruction error against p(x | z) at the code."""
    write, posterior, words = SCORED[name]
    data, out = write(tmp_path), tmp_path / "run"
    run(capsys, "train", out, "--data", data, *SMALL, "--posterior", posterior, *words)
    has_mean = posterior not in ("iaf", "spline", "projected-normal")
    has_regret = name in ("categorical", "columns", "continuous-bernoulli", "poisson")  # of four posteriors
    run(capsys, "score", out, "--split", "test", "--limit", 3, *(["--regret"] if has_regret else []))
    scores = torch.tensor(pd.read_csv(out / "scores.csv").drop(columns="row").to_numpy())
    vae = load(out)
    options = data_of(out, Data())
    x, _ = rows_of(seen_of(out, options), options, "test", lambda _: slice(3), vae)
    torch.manual_seed(0)
    known = evidence.importance(vae.model, vae.guide, x, num_samples=5000, progress=False)
    assert scores.isfinite().all()
    slack = scores[:, 1] + 5 * known.std_error + 0.02
    assert ((scores[:, 0] - known.log_prob).abs() < slack).all()
    if has_regret:
        assert (scores[:, 3] > -0.5).all()  # up to Monte Carlo error, a fitted q is not worse
    if has_mean:
        expected = -vae.likelihood(vae.encode(x)).log_prob(x)
        assert torch.allclose(scores[:, 2], expected.double(), rtol=1e-4)


def test_anomalies_have_an_area_under_the_roc_curve(tmp_path, capsys):
    x = RNG.normal(size=(N, 4))
    x[30:] += 8
    np.savez(tmp_path / "x.npz", train=x, train_labels=(np.arange(N) >= 30).astype(int))
    run(capsys, "train", tmp_path / "run", "--data", tmp_path / "x.npz", *SMALL, "--standardize", "no")
    said = run(capsys, "score", tmp_path / "run", "--anomaly", 1, "--regret", "--tolerance", 0.5)
    area = float(said.split("area under the ROC curve, -log p(x): ")[1].split()[0])
    scores = pd.read_csv(tmp_path / "run" / "scores.csv")
    assert area == pytest.approx(
        roc_auc(torch.tensor(-scores["log_prob"]), torch.tensor(scores["label"] == 1)), abs=1e-3
    )
    assert area > 0.9
    assert "likelihood regret" in said
    assert "expected the class of some datapoints" in error(capsys, "score", tmp_path / "run", "--anomaly", 5)


def test_the_area_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    torch.manual_seed(0)
    for scores in (torch.randn(200), torch.randint(4, (200,)).double(), torch.zeros(200)):
        positive = torch.rand(200) < 0.2
        assert roc_auc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive.numpy(), scores.numpy()))


def test_the_area_is_the_share_of_pairs_in_order():
    torch.manual_seed(0)
    scores, positive = torch.randint(5, (50,)).double(), torch.rand(50) < 0.3
    pairs = scores[positive][:, None] - scores[~positive]
    assert roc_auc(scores, positive) == pytest.approx(((pairs > 0).double() + (pairs == 0).double() / 2).mean().item())
    with pytest.raises(ValueError, match="positive has 0 of 3"):
        roc_auc(torch.zeros(3), torch.zeros(3))


NOT_A_NAME = {
    "Incomplete", "Rescaled", "PositiveParameter", "columns",  # options of others: --missing, --standardize
    "LinearGaussian",  # knows its likelihood
}  # fmt: skip
NAMES = {
    **dict.fromkeys(likelihoods.__all__, LIKELIHOODS),
    **{part: POSTERIORS for part in posteriors.__all__ if part != "Normal"},
    **dict.fromkeys(priors.__all__, PRIORS),
}


@pytest.mark.parametrize("part", sorted(set(NAMES) - NOT_A_NAME))
def test_every_part_has_a_name_on_the_command_line(part):
    made = {"VampPrior": "Vamp"}
    assert made.get(part, part) in {each.__name__ for each in NAMES[part].values()}


def test_underscores_in_options_are_hyphens_for_the_defaults_of_a_table_too(tmp_path, capsys):
    words = ["train", tmp_path / "run", "--data", write_table(tmp_path), "--dry-run"]
    said = run(capsys, *words, "--batch_size", 8, "--latent_dim=3", "--lr", 0.5)
    assert "--posterior product-of-experts --latent-dim 3 --network.hidden 32 --lr 0.5" in said
    assert "--batch-size 8" in said


def test_a_dry_run_says_the_options_that_a_run_has(tmp_path, capsys):
    words = ["train", tmp_path / "run", "--data", write_table(tmp_path), "--epochs", 1, "--no-tensorboard"]
    said = run(capsys, *words, "--dry-run").splitlines()[-1].split()
    run(capsys, *words)
    options = json.loads((tmp_path / "run" / "command.json").read_text())["options"]
    assert said[0] == "options:"
    for flag, value in zip(said[1::2], said[2::2], strict=True):
        assert str(options[flag.removeprefix("--")]).strip("[]") == value


@pytest.mark.parametrize(
    ("rows", "steps"), [(1, 1000), (64, 1000), (200, 1000), (400, 2000), (1000, 3000), (4999, 3000)]
)
def test_a_small_table_is_trained_for_about_five_steps_a_row(rows, steps):
    options = look._options_of_table(rows, 5)
    batches = -(-rows // int(options["--batch-size"][0]))  # the last one has fewer rows
    assert 0.9 * steps <= int(options["--epochs"][0]) * batches <= 1.3 * steps
    assert "--epochs" not in look._options_of_table(5000, 5)


def labelled_arrays(folder):
    np.savez(folder / "x.npz", x=RNG.normal(size=(N, 4)), species=np.arange(N) % 2)
    np.savez(folder / "new.npz", x=RNG.normal(size=(N, 4)))
    return folder / "x.npz", ["--labels", "species"]


def labelled_table(folder):
    path = write_table(folder)
    frame().drop(columns="site").to_csv(folder / "new.csv", index=False)
    return path, ["--labels", "site"]


@pytest.mark.parametrize("make", [labelled_arrays, labelled_table])
def test_a_run_of_labelled_data_is_used_on_data_without_labels(make, tmp_path, capsys):
    data, options = make(tmp_path)
    run(capsys, "train", tmp_path / "run", "--data", data, *options, *SMALL, "--seed", 1)
    run(capsys, "encode", tmp_path / "run")
    assert "label" in pd.read_csv(tmp_path / "run" / "codes.csv")
    new = tmp_path / f"new{data.suffix}"
    run(capsys, "encode", tmp_path / "run", "--data", new)
    assert "label" not in pd.read_csv(tmp_path / "run" / "codes.csv")
    run(capsys, "explore", tmp_path / "run", "--data", new, "--lowest", 0)


def test_datapoints_without_a_label_are_in_no_area_under_the_roc_curve(tmp_path, capsys):
    table = pd.DataFrame(RNG.normal(size=(N, 2)), columns=["a", "b"])
    table["odd"] = np.where(np.arange(N) < 30, "no", "yes")
    table.loc[:9, "odd"] = None
    table.loc[:9, ["a", "b"]] += 100
    table.to_csv(tmp_path / "x.csv", index=False)
    words = ["--labels", "odd", *SMALL, "--posterior", "normal"]
    run(capsys, "train", tmp_path / "run", "--data", tmp_path / "x.csv", *words)
    said = run(capsys, "score", tmp_path / "run", "--anomaly", 1, "--tolerance", 0.5)
    scores = pd.read_csv(tmp_path / "run" / "scores.csv").query("label >= 0")
    expected = roc_auc(
        torch.tensor(scores["reconstruction_error"].to_numpy()), torch.tensor((scores["label"] == 1).to_numpy())
    )
    assert float(said.split("reconstruction error: ")[1].split()[0]) == pytest.approx(expected, abs=1e-3)


def test_anomalies_are_not_all_datapoints(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", train=RNG.normal(size=(N, 4)), train_labels=np.ones(N, dtype=int))
    run(capsys, "train", tmp_path / "run", "--data", tmp_path / "x.npz", *SMALL)
    assert "expected the class of some datapoints, not of all" in error(
        capsys, "score", tmp_path / "run", "--anomaly", 1
    )


def test_more_epochs_are_refused_with_a_reason(tmp_path, capsys):
    np.save(tmp_path / "x.npy", RNG.normal(size=(N, 4)))
    words = [
        "train",
        tmp_path / "run",
        "--data",
        tmp_path / "x.npy",
        "--lr-decay",
        "linear",
        "--no-tensorboard",
        "--epochs",
    ]
    run(capsys, *words, 1)
    assert "--epochs is 1 there and 2 here, and --lr-decay linear depends on it" in error(capsys, *words, 2, "--resume")


def test_a_sparse_matrix_has_no_names(tmp_path, capsys):
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_matrix(RNG.poisson(0.5, (N, 12))))
    words = ["train", tmp_path / "run", "--data", tmp_path / "x.npz"]
    assert "--labels is 'kind'; the sparse matrix" in error(capsys, *words, "--labels", "kind")
    assert "--array is 'x'; the sparse matrix" in error(capsys, *words, "--array", "x")


def test_pseudo_inputs_have_no_gaps(tmp_path, capsys):
    data = write_table(tmp_path)
    words = ["train", tmp_path / "run", "--data", data, "--prior", "vamp", "--prior.components", 20, *SMALL]
    run(capsys, *words)
    assert load(tmp_path / "run").prior.pseudo_inputs.isfinite().all()
    x = torch.tensor([[torch.nan, 1.0], [torch.nan, torch.nan], [torch.nan, 3.0]])
    made = PRIORS["vamp"](3)(2, torch.nn.Identity(), x).pseudo_inputs
    assert made[:, 0].tolist() == [0.0] * 3
    assert sorted(set(made[:, 1].tolist())) == [1.0, 3.0]


def test_what_impute_cannot_do_is_said_before_it_works(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.where(RNG.random((N, 4)) < 0.2, np.nan, RNG.normal(size=(N, 4))))
    run(capsys, "train", tmp_path / "run", "--data", tmp_path / "x.npy", *SMALL)
    words = ["impute", tmp_path / "run", "--out", tmp_path / "filled.npy"]
    for options, message in (
        (["--draws", 0], "--draws is 0; expected an integer of at least 1"),
        (["--intervals", 0], "--intervals is 0.0; expected a number between 0 and 1"),
        (["--intervals", 0.9], "--intervals is 0.9, and the run is not of a table"),
    ):
        assert message in error(capsys, *words, *options)
    assert not (tmp_path / "filled.npy").exists()


def test_medians_may_have_more_draws_than_means(tmp_path, capsys, monkeypatch):
    def options_of(*_, num_draws, num_samples, probability):  # noqa: ARG001
        raise ValueError(f"{num_draws} draws, {num_samples} samples")

    monkeypatch.setattr("pyro_vae.tables.fill_table", options_of)
    run(capsys, "train", tmp_path / "run", "--data", write_table(tmp_path), *SMALL)
    words = ["impute", tmp_path / "run", "--out", tmp_path / "filled.csv", "--draws"]
    assert "1001 draws, 1001 samples" in error(capsys, *words, 1001)
    assert "100 draws, 1000 samples" in error(capsys, *words, 100)


@pytest.mark.parametrize("option", ["batch-size", "epochs", "clip-norm"])
def test_an_error_names_the_option(option, tmp_path, capsys):
    np.save(tmp_path / "x.npy", RNG.normal(size=(N, 4)))
    said = error(capsys, "train", tmp_path / "run", "--data", tmp_path / "x.npy", f"--{option}", 0)
    assert f"error: --{option} is 0" in said


def test_labels_that_a_table_does_not_have_are_refused(tmp_path, capsys):
    data, out = write_table(tmp_path), tmp_path / "run"
    run(capsys, "train", out, "--data", data, "--labels", "site", *SMALL)
    frame().drop(columns="site").to_csv(tmp_path / "new.csv", index=False)
    for command in ("score", "encode", "plot", "explore", "evaluate"):
        said = error(capsys, command, out, "--labels", "sites")
        assert "--labels is 'sites'; the table" in said
        assert said.endswith("has length, mass, eggs, kind, male, ring, site")
        assert "--labels is 'site'" in error(capsys, command, out, "--data", tmp_path / "new.csv", "--labels", "site")
    run(capsys, "encode", out, "--data", tmp_path / "new.csv")  # labels of the run alone need not be there


def test_a_regret_that_is_not_possible_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(family, "TRANSFORMS", ())  # the flow is then found nowhere
    data, out = KINDS["vectors"][0](tmp_path), tmp_path / "run"
    run(capsys, "train", out, "--data", data, *SMALL, "--posterior", "iaf", *FLOW)
    monkeypatch.setattr(evidence, "estimate", lambda *_, **__: pytest.fail("it has begun"))
    assert "--regret is not possible with this posterior: site 'z' of the guide, a" in error(
        capsys, "score", out, "--regret"
    )


def test_a_run_with_other_defaults_cannot_be_resumed_and_says_why(tmp_path, capsys):
    """As runs of an older version, in which a column had no scale of its own."""
    words = ["train", tmp_path / "run", "--data", write_table(tmp_path), *SMALL]
    run(capsys, *words)
    path = tmp_path / "run" / "command.json"
    stored = json.loads(path.read_text())
    others = {**stored["options"], "posterior": "normal", "lr": 0.001}
    path.write_text(json.dumps({**stored, "options": others}))
    said = error_after_words(capsys, *words, "--resume")
    assert "--posterior is 'normal' there and 'product-of-experts' here (also different: --lr)" in said
    del stored["table"][0]["shared"]
    path.write_text(json.dumps(stored))
    said = error_after_words(capsys, *words, "--resume")
    assert "cannot be resumed: column 'length' is described differently there" in said


GREYS = np.random.default_rng(0).random((N, 9, 8))
PADDED = np.where(np.arange(9)[:, None] < RNG.integers(3, 9, (N, 1, 1)), GREYS, np.nan)
UNCLEAR = {
    "images with gaps": (np.where(RNG.random(GREYS.shape) < 0.1, np.nan, GREYS), "40 grey images, 9 x 8, numbers from 0 to 1, with missing values"),
    "padded series": (PADDED, "40 series of 9 steps and 8 features, numbers from 0 to 1, with missing values"),
    "levels as integers": ((255 * GREYS).astype(int), "counts; if these are images with levels from 0 to 255, save them as bytes"),
    "levels as floats": ((255 * GREYS[:, None]).round(), "counts; if these are images with levels from 0 to 255, save them as bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCLEAR)
def test_images_and_series_are_told_apart_or_the_choice_is_explained(name, tmp_path, capsys):
    array, words = UNCLEAR[name]
    np.save(tmp_path / "x.npy", array)
    assert words in run(capsys, "train", tmp_path / "run", "--data", tmp_path / "x.npy", "--dry-run")


def test_series_with_features_first_are_refused_with_advice(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(50, 2, 40)))
    assert "a series has 2 steps, too few" in (
        text := error(capsys, "train", tmp_path / "run", "--data", tmp_path / "x.npy")
    )
    assert "if the array is [n, features, steps], exchange its last two dimensions" in text

"""Formats of other libraries: HDF5, Zarr, Hugging Face datasets, .h5ad, polars; arrays that are read by rows."""

import ctypes
import gc
import pickle
import sys
from math import prod
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from test_cli import error, run
from torch.utils.data import DataLoader

from pyro_vae import VAE, likelihoods, nn, posteriors, priors
from pyro_vae.cli import look
from pyro_vae.cli.command_line import main
from pyro_vae.cli.data import Data
from pyro_vae.data import ArrayFile, ImageFolder, SparseCounts, read_frame
from pyro_vae.data.from_file import read_arrays
from pyro_vae.data.hugging_face import DatasetImages
from pyro_vae.tables import Table, fill_table

RNG = np.random.default_rng(0)
N = 40
PHOTOS = RNG.integers(0, 256, (N, 8, 12, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 3, N)
FIRST = torch.from_numpy(PHOTOS).permute(0, 3, 1, 2) / 255  # channels first
SMALL = ["--latent-dim", "2", "--epochs", "2", "--batch-size", "16", "--compile", "none", "--no-tensorboard"]


def save_npy(path, array, **more):
    assert not more
    np.save(path, array)


def save_npz(path, array, **more):
    np.savez(path, images=array, **more)


def save_pt(path, array, **more):
    arrays = {"images": array, **more}
    torch.save(
        {name: torch.from_numpy(each.astype(each.dtype.newbyteorder("="))) for name, each in arrays.items()}, path
    )


def save_hdf5(path, array, **more):
    with pytest.importorskip("h5py").File(path, "w") as file:
        file.create_dataset("some/images", data=array, chunks=(7, *array.shape[1:]), compression="gzip")
        for name, each in more.items():
            file[name] = each


def save_zarr(path, array, zarr_format=3, **more):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for name, each in {"images": array, **more}.items():
        group.create_array(name, shape=each.shape, dtype=each.dtype, chunks=(7, *each.shape[1:]))[:] = each


def save_zarr_2(path, array, **more):
    save_zarr(path, array, 2, **more)


SAVE = {
    "x.npy": save_npy, "x.npz": save_npz, "x.pt": save_pt, "x.h5": save_hdf5, "x.hdf5": save_hdf5,
    "x.zarr": save_zarr, "v2.zarr": save_zarr_2, "folder": save_zarr,
}  # fmt: skip
BY_ROWS = [name for name in SAVE if name not in ("x.npz", "x.pt")]
ARRAYS = {
    "channels last": (PHOTOS, FIRST),
    "bytes without channels": (PHOTOS[..., 0], FIRST[:, :1]),
    "big-endian": (PHOTOS[:, 0, :, 0].astype(">i4"), torch.from_numpy(PHOTOS[:, 0, :, 0].astype(np.float32))),
    "doubles": (PHOTOS[:, 0, :, 0] / 7.0, torch.from_numpy(PHOTOS[:, 0, :, 0] / 7.0).float()),
    "halves": (np.float16(PHOTOS[:, 0, :, 0]), torch.from_numpy(PHOTOS[:, 0, :, 0]).float()),
    "booleans": (PHOTOS[..., 0] > 99, torch.from_numpy(PHOTOS[..., 0] > 99).float().unsqueeze(1)),
    "gaps": (np.where(PHOTOS[:, 0, :, 0] > 99, np.nan, 1.5), torch.where(torch.from_numpy(PHOTOS[:, 0, :, 0]) > 99, torch.nan, 1.5)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAVE)
@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_the_same_in_every_format(name, kind, tmp_path):
    array, expected = ARRAYS[kind]
    SAVE[name](tmp_path / name, array)
    assert torch.equal(read_arrays(tmp_path / name)["train"].nan_to_num(-1), expected.nan_to_num(-1))
    if name in BY_ROWS:
        rows = ArrayFile(tmp_path / name)
        assert rows.shape == expected.shape[1:]
        chosen = [3, 0, 17, 3, N - 1]
        assert torch.equal(rows.tensor(chosen).nan_to_num(-1), expected[chosen].nan_to_num(-1))
        batches = DataLoader(rows, 16, num_workers=2 if kind == "channels last" else 0)
        assert torch.equal(torch.cat(list(batches)).nan_to_num(-1), expected.nan_to_num(-1))


@pytest.mark.parametrize("name", [name for name in SAVE if name != "x.npy"])
def test_one_of_several_arrays_is_chosen_with_its_labels(name, tmp_path):
    path = tmp_path / name
    SAVE[name](path, PHOTOS, labels=LABELS, kinds=LABELS[::-1].copy())
    assert read_arrays(path)["train_labels"].tolist() == LABELS.tolist()
    assert read_arrays(path, labels="kinds")["train_labels"].tolist() == LABELS[::-1].tolist()
    if name in BY_ROWS:
        assert ArrayFile(path).labels.tolist() == LABELS.tolist()
    SAVE[name](path, PHOTOS, masks=PHOTOS[..., :1])
    with pytest.raises(
        ValueError, match=r"has the arrays .*images \[40, 8, 12, 3\].*; choose one with array="
    ) as caught:
        read_arrays(path)
    assert "masks [40, 8, 12, 1]" in str(caught.value)
    assert torch.equal(read_arrays(path, "masks")["train"], FIRST[:, :1])
    with pytest.raises(ValueError, match=r"array is 'faces'; the data file '.*' has"):
        read_arrays(path, "faces")
    SAVE[name](path, PHOTOS, labels=LABELS[:5])
    with pytest.raises(ValueError, match=r"labels of the data file '.*' has shape \[5\]; expected \[40\]"):
        read_arrays(path)


@pytest.mark.parametrize("labels", [np.eye(3)[LABELS], np.array([b"a", b"b", b"c"])[LABELS]], ids=["one-hot", "words"])
@pytest.mark.parametrize("name", ["x.npz", "x.h5"])
def test_arrays_called_labels_that_are_none_are_left_alone(name, labels, tmp_path):
    SAVE[name](tmp_path / name, PHOTOS, labels=labels)
    image = "some/images" if name == "x.h5" else "images"
    assert read_arrays(tmp_path / name, image).keys() == {"train"}
    with pytest.raises(ValueError, match="labels of the data file"):
        read_arrays(tmp_path / name, image, "labels")


def test_an_array_is_chosen_on_the_command_line(tmp_path, capsys):
    data, out = tmp_path / "x.h5", tmp_path / "run"
    save_hdf5(data, PHOTOS, masks=PHOTOS[..., :1], kinds=LABELS)
    assert "choose one with --array NAME" in error(capsys, "train", out, "--data", data, *SMALL)
    said = run(capsys, "train", out, "--data", data, "--array", "some/images", "--labels", "kinds", *SMALL)
    assert "40 colour images, 8 x 12, 8 bit, 3 classes" in said
    run(capsys, "encode", out)
    assert pd.read_csv(out / "codes.csv")["label"].tolist() == LABELS.tolist()


# Data larger than memory


BIG = (3, 128, 128)  # 48 KiB as bytes, 192 KiB as floats
linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists() or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="measures memory as Linux with glibc does",
)


def big_array(path, n):
    """An array of zeros, without writing them."""
    if path.suffix == ".npy":
        np.lib.format.open_memmap(path, "w+", np.uint8, (n, *BIG)).flush()
    elif path.suffix == ".h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file.create_dataset("x", (n, *BIG), "u1")
    else:
        pytest.importorskip("zarr").create_array(path, shape=(n, *BIG), chunks=(1, *BIG), dtype="u1")
    return ArrayFile(path)


def big_folder(path, n):
    path.mkdir()
    Image.new("RGB", BIG[1:], (0, 99, 255)).save(path / "0.png")
    for i in range(1, n):
        (path / f"{i}.png").hardlink_to(path / "0.png")
    return ImageFolder(path)


def big_dataset(path, n):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    big_folder(path.with_suffix(".images"), 1)
    content = {"photo": [str(path.with_suffix(".images") / "0.png")] * n}
    dataset = datasets.Dataset.from_dict(content, features=datasets.Features({"photo": datasets.Image()}))
    return DatasetImages(path, dataset, "photo")


def peak(function):
    """The largest memory of this process while a function is called, in bytes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed before could be used again
    Path("/proc/self/clear_refs").write_text("5")  # forgets the largest so far
    function()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


@linux
@pytest.mark.parametrize(
    ("make", "suffix"),
    [(big_array, ".npy"), (big_array, ".h5"), (big_array, ".zarr"), (big_folder, ""), (big_dataset, "")],
)
def test_the_memory_that_reading_takes_does_not_grow_with_the_data(make, suffix, tmp_path):
    """The last line shows that the measure sees it if all rows are in memory."""

    def read(rows):
        for part in torch.randperm(len(rows)).split(20):
            rows.tensor(part.tolist())

    small, large = make(tmp_path / f"small{suffix}", 100), make(tmp_path / f"large{suffix}", 800)
    more = 700 * prod(BIG)
    read(small)  # what is allocated once
    before = peak(lambda: read(small))
    grown = peak(lambda: read(large)) - before
    assert grown < more / 2, f"{grown / 2**20:.0f} MiB"
    assert peak(large.tensor) - before > 2 * more


def anonymous(process):
    """The memory that a process has allocated, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


@linux
def test_a_worker_returns_the_memory_of_its_batches(tmp_path):
    rows = big_array(tmp_path / "x.npy", 2400)
    batches = iter(DataLoader(rows, 32, num_workers=1, multiprocessing_context="fork"))
    (worker,) = batches._workers
    found = []
    for _ in batches:
        found.append(anonymous(worker.pid))
        if len(found) == 70:  # before the worker ends
            break
    assert max(found[60:]) - max(found[:15]) < 8 * 32 * 4 * prod(BIG)


@pytest.fixture
def little_memory(monkeypatch):
    """Everything is larger than memory."""
    look.look.cache_clear()
    monkeypatch.setattr(look, "MOST_NUMBERS", 100)
    monkeypatch.setattr(look, "MOST_HELD_OUT", 3)
    yield
    look.look.cache_clear()


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", ["x.npy", "x.h5", "x.zarr", "cells.npz", "hugging face"])
def test_data_larger_than_memory_are_read_as_they_are_needed(name, tmp_path, capsys):
    data, out = tmp_path / name, tmp_path / "run"
    if name == "cells.npz":
        sparse.save_npz(data, sparse.csr_matrix(RNG.poisson(0.5, (N, 12))))
    elif name == "hugging face":
        save_dataset(data, photos_dataset())
    else:
        SAVE[name](data, PHOTOS)
    said = run(capsys, "train", out, "--data", data, *SMALL)
    assert "larger than memory: read as they are needed" in said
    assert pd.read_csv(out / "history.csv")["step"].tolist() == [2, 4]  # 32 for training, in batches of 16
    assert "the data are larger than memory; choose --split test or valid" in error(capsys, "encode", out)
    assert main(["encode", str(out), "--split", "train"]) == 0
    assert "larger than memory: 32 of 32 datapoints are used" in capsys.readouterr().err
    assert len(pd.read_csv(out / "codes.csv")) == 32
    run(capsys, "encode", out, "--split", "test")
    assert len(pd.read_csv(out / "codes.csv")) == 3


@pytest.mark.usefixtures("little_memory")
def test_splits_of_a_large_file_are_its_own(tmp_path):
    with pytest.importorskip("h5py").File(tmp_path / "x.h5", "w") as file:
        file["train"], file["train_labels"] = PHOTOS[:30], LABELS[:30]
        file["valid"], file["test"] = PHOTOS[30:35], PHOTOS[35:]
    seen = Data(str(tmp_path / "x.h5")).look()
    assert sorted(seen.files.indices) == list(range(30))
    assert torch.equal(seen.splits.valid, FIRST[30:33])
    assert torch.equal(seen.splits.test, FIRST[35:38])


@pytest.mark.usefixtures("little_memory")
def test_classes_larger_than_memory_are_integers(tmp_path, capsys):
    np.save(tmp_path / "dna.npy", RNG.integers(0, 4, (N, 7)))
    run(capsys, "train", tmp_path / "run", "--data", tmp_path / "dna.npy", *SMALL,
        "--likelihood", "categorical", "--likelihood.classes", 4)  # fmt: skip
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 2


def test_rows_of_other_files_cannot_be_read_alone(tmp_path):
    save_npz(tmp_path / "x.npz", PHOTOS)
    with pytest.raises(ValueError, match=r"cannot be read without the others; expected one of .npy, .h5, .hdf5, .zarr"):
        ArrayFile(tmp_path / "x.npz")


# Hugging Face


def save_dataset(path, dataset):
    import datasets

    datasets.disable_progress_bars()
    dataset.save_to_disk(path)


def photos_dataset():
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c"])})
    content = {"photo": [Image.fromarray(each) for each in PHOTOS], "kind": LABELS.tolist()}
    return datasets.Dataset.from_dict(content, features=kinds)


def table_dataset():
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features(
        {
            "a": datasets.Value("float64"),
            "b": datasets.Value("int32"),
            "word": datasets.Value("string"),
            "kind": datasets.ClassLabel(names=["u", "v", "w"]),
        }
    )
    content = {
        "a": RNG.normal(size=N).tolist(),
        "b": [None, *RNG.poisson(9, N - 1).tolist()],
        "word": ["x", "y"] * (N // 2),
        "kind": LABELS.tolist(),
    }
    return datasets.Dataset.from_dict(content, features=kinds)


def test_a_saved_data_set_of_images(tmp_path):
    save_dataset(tmp_path / "photos", photos_dataset())
    seen = Data(str(tmp_path / "photos")).look()
    assert seen.words == "40 colour images, 8 x 12, 8 bit, 3 classes"
    assert torch.equal(seen.whole[0], FIRST)
    assert seen.whole[1].tolist() == LABELS.tolist()
    assert seen.classes == ("a", "b", "c")
    assert Data(str(tmp_path / "photos"), size=(4, 6)).look().splits.train.shape[1:] == (3, 4, 6)


def test_a_saved_data_set_of_a_table(tmp_path):
    dataset = table_dataset()
    save_dataset(tmp_path / "table", dataset)
    (stream,) = (tmp_path / "table").glob("*.arrow")
    for path in (tmp_path / "table", stream):
        frame = read_frame(path)
        assert frame["kind"].tolist() == [["u", "v", "w"][each] for each in LABELS]
        assert frame["b"].isna().tolist() == [True] + [False] * (N - 1)
        assert frame["a"].tolist() == dataset["a"][:]
        seen = Data(str(path), labels="kind").look()
        assert seen.table.summary().count("\n") == 2
        assert seen.classes == ("u", "v", "w")


def test_unknown_classes_have_no_label(tmp_path, capsys):
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["z", "unused", "a"])})
    labels = [-1, None, *[0, 2] * (N // 2 - 1)]  # -1 is what datasets has for unknown classes
    content = {"photo": [Image.fromarray(each) for each in PHOTOS], "kind": labels}
    save_dataset(tmp_path / "photos", datasets.Dataset.from_dict(content, features=kinds))
    seen = Data(str(tmp_path / "photos")).look()
    assert seen.whole[1].tolist() == [-1, -1, *[0, 1] * (N // 2 - 1)]
    assert seen.classes == ("z", "a")
    (stream,) = (tmp_path / "photos").glob("*.arrow")
    run(capsys, "train", tmp_path / "run", "--data", stream, *SMALL)
    run(capsys, "explore", tmp_path / "run", "--labels", "kind", "--lowest", 0)
    assert '"labels": ["z", "a"' in (tmp_path / "run" / "explorer.html").read_text()


def test_columns_of_arrays_keep_their_dtype(tmp_path):
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features(
        {"x": datasets.Array2D((8, 12), "uint8"), "kind": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    save_dataset(
        tmp_path / "x",
        datasets.Dataset.from_dict({"x": PHOTOS[..., 0].tolist(), "kind": LABELS.tolist()}, features=kinds),
    )
    seen = Data(str(tmp_path / "x")).look()
    assert torch.equal(seen.whole[0], FIRST[:, :1])
    assert seen.whole[1].tolist() == LABELS.tolist()


def test_one_of_several_data_sets_is_chosen(tmp_path, capsys):
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict({"train": table_dataset(), "test": table_dataset()})
    save_dataset(tmp_path / "both", both)
    said = error(capsys, "train", tmp_path / "run", "--data", tmp_path / "both")
    assert "has 2 data sets; choose one" in said
    assert str(tmp_path / "both" / "test") in said


def test_feather_files_may_be_called_arrow(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1.5, None, 3.0], "b": ["x", "y", None]})
    frame.to_feather(tmp_path / "x.arrow")
    pd.testing.assert_frame_equal(read_frame(tmp_path / "x.arrow"), frame)


# .h5ad

COUNTS = RNG.poisson(0.5, (N, 12)).astype(np.float32)


def write_h5ad(path, x, **layers):
    anndata = pytest.importorskip("anndata")
    kinds = pd.DataFrame(
        {"kind": pd.Categorical(np.array(["T", "B", "NK"])[LABELS])}, index=[f"cell {i}" for i in range(N)]
    )
    anndata.AnnData(x, obs=kinds, layers=layers).write_h5ad(path)


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_counts_of_cells_with_their_labels(form, tmp_path):
    write_h5ad(tmp_path / "x.h5ad", form(COUNTS))
    assert torch.equal(SparseCounts.read(tmp_path / "x.h5ad").tensor(), torch.from_numpy(COUNTS))
    seen = Data(str(tmp_path / "x.h5ad"), labels="kind").look()
    assert seen.words == "sparse counts, 40 vectors of 12 values, counts, 3 classes"
    assert torch.equal(seen.whole[0], torch.from_numpy(COUNTS))
    assert seen.whole[1].tolist() == [{0: 2, 1: 0, 2: 1}[each] for each in LABELS]
    assert seen.classes == ("B", "NK", "T")


def test_counts_may_be_in_a_layer(tmp_path, capsys):
    write_h5ad(tmp_path / "x.h5ad", sparse.csr_matrix(np.log1p(COUNTS)), raw=sparse.csr_matrix(COUNTS))
    with pytest.raises(
        ValueError, match=r"X of the data file '.*x.h5ad' has values that are not counts; .*layers: raw"
    ):
        SparseCounts.read(tmp_path / "x.h5ad")
    assert torch.equal(SparseCounts.read(tmp_path / "x.h5ad", "raw").tensor(), torch.from_numpy(COUNTS))
    words = ["train", tmp_path / "run", "--data", tmp_path / "x.h5ad"]
    assert "array is 'spliced'" in error(capsys, *words, "--array", "spliced")
    assert "labels is 'age'; obs of the data file" in error(capsys, *words, "--array", "raw", "--labels", "age")
    assert "40 vectors of 12 values" in run(capsys, *words, "--array", "raw", *SMALL)


# polars


def test_frames_of_polars_are_those_of_pandas():
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "length": RNG.normal(size=N),
            "eggs": pd.array([None, *RNG.poisson(9, N - 1)], dtype="Int64"),
            "male": pd.array([None, *([True, False] * N)[: N - 1]], dtype="boolean"),
            "kind": ["owl", "wren", None, "crow"] * (N // 4),
        }
    )
    other = polars.DataFrame(
        {name: frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame}
    )
    table = Table.of(other)
    assert table.summary() == Table.of(frame).summary()
    assert torch.equal(table.tensor(other).nan_to_num(-1), Table.of(frame).tensor(frame).nan_to_num(-1))
    assert table.frame(table.tensor(other)).dtypes.astype(str)["eggs"] == "Int64"
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Incomplete(table.likelihood(nn.mlp(2, [8], table.num_parameters))),
        posteriors.Normal(table.encoder(nn.mlp(table.num_features, [8], 4))),
    )
    filled = fill_table(table, vae.model, vae.guide, other, num_draws=10, progress=False).frame
    assert isinstance(filled, pd.DataFrame)
    assert not filled.isna().any(axis=None)
    assert filled["length"].tolist() == other["length"].to_list()
    with pytest.raises(TypeError, match=r"frame is of type LazyFrame; .*; call its method collect\(\)"):
        Table.of(other.lazy())


# Packages that are not installed, and code in files

PACKAGES = {
    "x.h5": ("h5py", "files"), "x.zarr": ("zarr", "files"), "x.h5ad": ("anndata", "counts"),
    "x.parquet": ("pyarrow", "tables"), "x.xlsx": ("openpyxl", "tables"),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_not_installed_is_named(name, tmp_path, capsys, monkeypatch):
    package, extra = PACKAGES[name]
    if name == "x.xlsx":
        pytest.importorskip("openpyxl")
        pd.DataFrame({"a": [1.5]}).to_excel(tmp_path / name)
    for module in [each for each in sys.modules if each.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    if name == "x.parquet":
        monkeypatch.setitem(sys.modules, "fastparquet", None)
    if name == "x.zarr":
        (tmp_path / name).mkdir()
    elif name != "x.xlsx":
        (tmp_path / name).write_bytes(b"PK\3\4")
    said = error(capsys, "train", tmp_path / "run", "--data", tmp_path / name)
    assert said.endswith(f"install {package}: pip install 'pyro-vae[{extra}]'")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_nothing_in_a_zarr_folder_is_executed(tmp_path, capsys, monkeypatch):
    pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    Path("x.zarr").mkdir()
    Path("x.zarr/.zarray").write_text(
        '{"zarr_format": 2, "shape": [4, 2], "chunks": [4, 2], "dtype": "<f8", "compressor": null, "fill_value": 0, '
        '"order": "C", "filters": [{"id": "pickle"}]}'
    )
    Path("x.zarr/0.0").write_bytes(pickle.dumps(Evil()))
    assert "it has pickled Python objects" in error(capsys, "train", "run", "--data", "x.zarr")
    assert not Path("executed").exists()

"""Files that cannot be trained on, or not as they are: each is refused in one sentence, or read as it is meant."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from test_cli import error, run

from pyro_vae.data import ImageFolder, SparseCounts, read_frame
from pyro_vae.data.formats import format_of
from pyro_vae.data.from_file import read_arrays
from pyro_vae.data.hugging_face import open_dataset
from pyro_vae.tables import Table

RNG = np.random.default_rng(0)
N = 40
REAL, COUNT = RNG.normal(size=N), RNG.poisson(9, N)
PHOTOS = RNG.integers(0, 256, (N, 8, 12, 3), dtype=np.uint8)


def lines(*columns):
    return "".join(",".join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


def text(content, encoding="utf-8"):
    return lambda path: path.write_bytes(content.encode(encoding))


def content(value):
    return lambda path: path.write_bytes(value)


def cut(make, keep=0.5):
    """A file of which the last part is not there."""

    def write(path):
        make(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(keep * len(whole))])

    return write


def array(value):
    return lambda path: np.save(path, value)


def hdf5(value, name="x", **options):
    def write(path):
        with pytest.importorskip("h5py").File(path, "w") as file:
            if value is not None:
                file.create_dataset(name, data=value, **options)

    return write


def of_pandas(path):
    with pytest.importorskip("h5py").File(path, "w") as file:
        group = file.create_group("frame")
        group.attrs["pandas_type"] = "frame"
        group["block0_values"] = np.zeros((5, 2))


def zarr(value, damage=None):
    def write(path):
        group = pytest.importorskip("zarr").open_group(path, mode="w")
        if value is not None:
            group.create_array("x", shape=value.shape, dtype=value.dtype)[:] = value
        if damage is not None:
            next(each for each in sorted(path.rglob(damage)) if each.is_file()).write_bytes(b"{")

    return write


def dataset(columns, damage=None):
    def write(path):
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
        datasets.Dataset.from_dict(columns).save_to_disk(path)
        if damage is not None:
            damage(next(path.glob("*.arrow")))

    return write


def h5ad(x, **layers):
    return lambda path: pytest.importorskip("anndata").AnnData(x, layers=layers).write_h5ad(path)


def frame(columns, writer="to_parquet"):
    def write(path):
        pytest.importorskip("openpyxl" if writer == "to_excel" else "pyarrow")
        getattr(pd.DataFrame(columns), writer)(path, index=False)

    return write


def photos(**others):
    """A folder with good images, and others."""

    def write(path):
        path.mkdir()
        for i in range(12):
            Image.fromarray(PHOTOS[i]).save(path / f"{i}.png")
        for name, make in others.items():
            make(path / name.replace("_", "."))

    return write


def image(value, **options):
    return lambda path: Image.fromarray(value).save(path, **options)


DATES = [f"2020-01-{i % 28 + 1:02}" for i in range(N)]
DAMAGED = "cannot be read: it is damaged, or in another format than its name says"
NOTHING = "No such file or directory"
# The name, how it is written, what is said.
BAD = {
    "nothing.npy": ("x.npy", None, NOTHING),
    "nothing.h5": ("x.h5", None, NOTHING),
    "nothing.zarr": ("x.zarr", None, NOTHING),
    "nothing.csv": ("x.csv", None, NOTHING),
    "nothing.h5ad": ("x.h5ad", None, NOTHING),
    "empty.npy": ("x.npy", content(b""), "the data file '.*' cannot be read: it is empty"),
    "empty.h5": ("x.h5", content(b""), "cannot be read: it is empty"),
    "empty.zarr": ("x.zarr", Path.mkdir, DAMAGED),
    "empty.h5ad": ("x.h5ad", content(b""), "cannot be read: it is empty"),
    "empty.arrow": ("x.arrow", content(b""), "cannot be read: it is empty"),
    "empty.parquet": ("x.parquet", content(b""), "the table '.*' cannot be read: it is empty"),
    "empty.csv": ("x.csv", content(b""), "cannot be read: it is empty"),
    "no array": ("x.h5", hdf5(None), "the data file '.*' has no arrays"),
    "no array, zarr": ("x.zarr", zarr(None), "the data file '.*' has no arrays"),
    "strings": ("x.h5", hdf5(np.array([[b"a", b"b"]] * 5)), "x of the data file '.*' is not an array of numbers"),
    "strings.npy": ("x.npy", array(np.array([["a", "b"]] * 5)), "is not an array of numbers"),
    "dates.npy": ("x.npy", array(np.zeros((5, 2), "datetime64[s]")), "is not an array of numbers"),
    "records": ("x.h5", hdf5(np.zeros(5, [("a", "f4"), ("b", "i4")])), "is not an array of numbers"),
    "complex": ("x.h5", hdf5(np.zeros((5, 2), complex)), r"is complex128 of shape \[5, 2\]; expected numbers"),
    "zero rows": ("x.h5", hdf5(np.zeros((0, 5))), r"is float64 of shape \[0, 5\]; expected numbers \[n, \*event\], with at least"),
    "zero rows.npy": ("x.npy", array(np.zeros((0, 5))), r"is float64 of shape \[0, 5\]; expected"),
    "zero columns": ("x.h5", hdf5(np.zeros((5, 0))), r"of shape \[5, 0\]; expected"),
    "a vector": ("x.h5", hdf5(np.zeros(5)), r"of shape \[5\]; expected"),
    "one image": ("x.npy", array(np.zeros((64, 64, 3), np.uint8)), r"has bytes of shape \[64, 64, 3\], which look like one colour image"),
    "a number": ("x.h5", hdf5(3.0), r"of shape \[\]; expected"),
    "infinite": ("x.npy", array(np.full((20, 3), np.inf)), "has infinite numbers, or numbers too large for float32"),
    "too large": ("x.npy", array(np.full((20, 3), 1e300)), "has infinite numbers, or numbers too large for float32"),
    "cut.npy": ("x.npy", cut(array(PHOTOS)), DAMAGED),
    "cut.h5": ("x.h5", cut(hdf5(PHOTOS)), DAMAGED),
    "text.h5": ("x.h5", text("no array"), DAMAGED),
    "cut.zarr": ("x.zarr", zarr(PHOTOS, "zarr.json"), DAMAGED),
    "cut chunk.zarr": ("x.zarr", zarr(PHOTOS, "0"), DAMAGED),
    "of pandas": ("x.h5", of_pandas, "has a table of pandas; save it as .parquet or .csv"),
    "unknown": ("x.mat", text("a"), r"\.mat' has an unknown format; expected one of .npy"),
    "cut data set": ("x", dataset({"a": [1.5] * 200}, cut(lambda _: None)), "the data set '.*' cannot be read"),
    "half a data set": ("x", dataset({"a": [1.5] * 200}, Path.unlink), NOTHING),
    "text.arrow": ("x.arrow", text("hello"), DAMAGED),
    "cut.h5ad": ("x.h5ad", cut(h5ad(sparse.eye(5, format="csr"))), DAMAGED),
    "other.h5ad": ("x.h5ad", hdf5(PHOTOS), DAMAGED),
    "no X": ("x.h5ad", lambda path: pytest.importorskip("anndata").AnnData(obs=pd.DataFrame(index=["a", "b"])).write_h5ad(path), "has no X; choose a layer"),
    "negative counts.h5ad": ("x.h5ad", h5ad(-sparse.eye(5, format="csr")), "has values that are not counts; .*its layers: none"),
    "negative counts.npz": ("x.npz", lambda path: sparse.save_npz(path, -sparse.eye(5, format="csr")), "has 5 values that are not counts"),
    "an empty folder": ("x", Path.mkdir, "the folder '.*' has no images; expected files .png"),
    "a folder of texts": ("x", lambda path: (path.mkdir(), (path / "a.txt").write_text("a")), "has no images"),
    "an empty image": ("x", photos(z_png=content(b"")), "z.png' cannot be read: it is damaged"),
    "half an image": ("x", photos(z_png=cut(image(PHOTOS[0]))), "z.png' cannot be read: it is damaged"),
    "floats": ("x", photos(z_tif=image(RNG.random((8, 12)).astype(np.float32))), "have floats as pixels; save them as an array"),
    "other sizes": ("x", photos(z_png=image(PHOTOS[0, :, :9])), "have 2 different sizes, such as 8 x 9 and 8 x 12; give one size"),
    "turned": ("x", photos(z_jpg=lambda path: Image.fromarray(PHOTOS[0]).save(path, exif=turned())), "have 2 different sizes, such as 8 x 12 and 12 x 8"),
    "ragged": ("x.csv", text("a,b\n1,2\n3\n"), "line 3 of the table '.*' has 1 fields; expected 2"),
    "no rows": ("x.csv", text("a,b\n"), "has no rows"),
    "two of a name": ("x.csv", text("a,a\n" + lines(REAL, COUNT)), "the table '.*' has two columns with the name 'a'"),
    "no header": ("x.csv", text("1.5,2.5\n" + lines(REAL, COUNT)), "the first line of the table '.*' has numbers, 1.5, 2.5, ...; expected the names"),
    "no header, and words": ("x.csv", text("owl,2.5\n" + lines(["owl", "wren"] * 20, REAL)), "the first line of the table '.*' has numbers, 2.5, ...; expected the names"),
    "spaces": ("x.csv", text("a b\n" + "".join(f"{x} {y}\n" for x, y in zip(REAL, COUNT, strict=True))), "the lines of the table '.*' have one field, such as 'a b'; expected fields that are separated by"),
    "units": ("x.csv", text("a,b\n" + lines(REAL, [f"{x}.5 EUR" for x in range(N)])), "column 'b' has numbers as text, such as '0.5 EUR'"),
    "dates in words": ("x.csv", text("a,b\n" + lines(REAL, [f"{i % 28 + 1} Jan 2020" for i in range(N)])), "column 'b' has dates or times"),
    "American dates": ("x.csv", text("a,b\n" + lines(REAL, [f'"January {i % 28 + 1}, 2020"' for i in range(N)])), "column 'b' has dates or times"),
    "times of day": ("x.csv", text("a,b\n" + lines(REAL, [f"{i % 24}:{i:02}" for i in range(N)])), "column 'b' has dates or times"),
    "Latin-1": ("x.csv", text("a,b\n" + lines(REAL, ["ä", "ö"] * 20), "latin-1"), "cannot be read: it is not text in UTF-8"),
    "all missing": ("x.csv", text("a,b\n" + lines(REAL, [""] * N)), "column 'b' has no values: all are missing; give it the kind drop"),
    "one infinite": ("x.csv", text("a,b\n" + lines(REAL, ["inf", *COUNT[1:]])), "column 'b' has 1 infinite values; make them missing"),
    "dates.csv": ("x.csv", text("a,b\n" + lines(REAL, DATES)), "column 'b' has dates or times; convert them to numbers, or give it the kind drop"),
    "dates.xlsx": ("x.xlsx", frame({"a": REAL, "b": pd.to_datetime(DATES)}, "to_excel"), "column 'b' has dates or times"),
    "dates.parquet": ("x.parquet", frame({"a": REAL, "b": pd.to_datetime(DATES).date}), "column 'b' has dates or times"),
    "numbers and words": ("x.csv", text("a,b\n" + lines(REAL, [*COUNT[1:], "?"])), r"column 'b' has numbers, and words such as '\?'"),
    "decimal commas": ("x.csv", text("a,b\n" + lines(COUNT, [f'"{x:.3f}"'.replace(".", ",") for x in REAL])), "column 'b' has numbers as text, such as"),
    "thousands": ("x.csv", text("a,b\n" + lines(REAL, [f'"{1000 * x:,}"' for x in COUNT + np.arange(N)])), "column 'b' has numbers as text"),
    "huge integers": ("x.csv", text("a,b\n" + lines(REAL, [10**25 + 7 * i for i in range(N)])), "column 'b' has numbers as text"),
    "lists": ("x.parquet", frame({"a": REAL, "b": [[1, 2]] * N}), "column 'b' has lists or other objects"),
    "one row": ("x.csv", text("a,b\n1.5,2.5\n"), r"no column of the table is left: all are dropped, such as 'a' \(one value only\)"),
    "a folder": ("x.csv", Path.mkdir, "the folder '.*' has no images"),
}  # fmt: skip
READERS = {
    "arrays": read_arrays,
    "": read_arrays,
    "counts": SparseCounts.read,
    "table": lambda path: Table.of(read_frame(path)),
    "images": lambda path: ImageFolder(path).tensor(),
    "dataset": open_dataset,
}


def turned():
    """The EXIF of a camera that was held upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_in_one_sentence(name, tmp_path, capsys):
    file, write, message = BAD[name]
    if write is not None:
        write(tmp_path / file)
    with pytest.raises((ValueError, OSError), match=message):
        READERS[format_of(tmp_path / file)](tmp_path / file)
    said = error(capsys, "train", tmp_path / "run", "--data", tmp_path / file)
    with pytest.raises(ValueError, match=message):
        raise ValueError(said)
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_a_name_that_is_nothing_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = error(capsys, "train", "run", "--data", "photos")
    assert said.startswith("pyro-vae: error: there is no file, folder or data set 'photos'; expected one of mnist")
    Path("photos").touch()
    assert "'photos' has an unknown format: its name has no suffix" in error(capsys, "train", "run", "--data", "photos")


@pytest.fixture
def as_another_user():
    """Root may read everything, so the test is another user for a while."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


@pytest.mark.parametrize("name", ["x.npy", "x.h5", "x.csv", "x.h5ad", "photos"])
def test_what_may_not_be_read_is_said(name, tmp_path, capsys, request):
    path = tmp_path / name
    if name == "photos":
        photos()(path)
        path = next(path.iterdir())
    else:
        path.write_bytes(b"a")
    path.chmod(0)
    for folder in (tmp_path, tmp_path / name):
        if folder.is_dir():
            folder.chmod(0o777)
    for folder in tmp_path.parents[:3]:  # with a folder for each process of xdist
        folder.chmod(0o755)
    request.getfixturevalue("as_another_user")
    said = error(capsys, "train", tmp_path / "run", "--data", tmp_path / name)
    assert "Permission denied" in said
    assert str(path) in said


WITHOUT_EFFECT = {
    "--size of an array": ("x.npy", array(PHOTOS), ["--size", "4"]),
    "--column of an array": ("x.npy", array(PHOTOS), ["--column", "a:real"]),
    "--array of a table": ("x.csv", text("a,b\n" + lines(REAL, COUNT)), ["--array", "x"]),
    "--labels of images": ("x", photos(), ["--labels", "x"]),
}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_an_option_without_effect_is_refused(name, tmp_path, capsys):
    file, write, words = WITHOUT_EFFECT[name]
    write(tmp_path / file)
    said = error(capsys, "train", tmp_path / "run", "--data", tmp_path / file, *words)
    assert f"{words[0]} has no effect on" in said


# Tables that are read as they are meant

EXPECTED = pd.DataFrame({"a": REAL.round(3), "b": COUNT})
COMMAS = lines(REAL.round(3), COUNT)
MEANT = {
    "a mark of the byte order": "\ufeffa,b\n" + COMMAS,
    "semicolons": "a;b\n" + COMMAS.replace(",", ";"),
    "decimal commas": "a;b\n" + COMMAS.replace(",", ";").replace(".", ","),
    "vertical bars": "a|b\n" + COMMAS.replace(",", "|"),
    "spaces after commas": "a, b\n" + COMMAS.replace(",", ", "),
    "commas at the ends": "a,b,\n" + COMMAS.replace("\n", ",\n"),
    "tabs": "a\tb\n" + COMMAS.replace(",", "\t"),
    "lines of Windows": ("a,b\n" + COMMAS).replace("\n", "\r\n"),
    "quotes": '"a","b"\n' + COMMAS,
    "empty lines": "a,b\n" + COMMAS.replace("\n", "\n\n"),
}


@pytest.mark.parametrize("name", MEANT)
def test_texts_are_read_as_they_are_meant(name, tmp_path):
    text(MEANT[name])(tmp_path / "x.csv")
    pd.testing.assert_frame_equal(read_frame(tmp_path / "x.csv"), EXPECTED)


def test_a_first_line_of_data_is_suspected(tmp_path, recwarn):
    text("owl,north\n" + lines(["owl", "wren"] * 20, ["north", "south"] * 20))(tmp_path / "x.csv")
    with pytest.warns(UserWarning, match="may be data, not names: 'owl' is also a value below it"):
        read_frame(tmp_path / "x.csv")
    recwarn.clear()
    text("body length\n" + lines(REAL))(tmp_path / "x.csv")
    assert list(read_frame(tmp_path / "x.csv")) == ["body length"]
    assert not recwarn.list


def test_codes_of_missing_values_are_suspected(recwarn):
    values = np.where(np.arange(N) % 7 == 0, -999.0, REAL)
    with pytest.warns(UserWarning, match="column 'a' has -999 6 times, far from all other values; if it means that"):
        Table.of(pd.DataFrame({"a": values}))
    recwarn.clear()
    Table.of(pd.DataFrame({"a": [*range(980, 1020)], "b": RNG.normal(0, 1000, N).round()}))
    assert not recwarn.list


def test_an_index_that_was_saved_is_left_out(tmp_path):
    rows = pd.DataFrame({"a": REAL, "b": COUNT}).sample(frac=0.8, random_state=0)
    rows.to_csv(tmp_path / "x.csv")
    assert Table.of(read_frame(tmp_path / "x.csv")).columns[0].kind == "drop"


def test_a_decimal_comma_with_gaps(tmp_path):
    text("a;b\n1,5;x\n;y\n-2;z\n")(tmp_path / "x.csv")
    assert read_frame(tmp_path / "x.csv")["a"].fillna(0).tolist() == [1.5, 0, -2]


def test_names_and_fields_may_have_line_breaks(tmp_path):
    text('"a\nb",c\n"x\ny",1\n')(tmp_path / "x.csv")
    assert read_frame(tmp_path / "x.csv").to_dict("list") == {"a\nb": ["x\ny"], "c": [1]}


def test_names_may_be_numbers_in_order(tmp_path):
    pd.DataFrame(PHOTOS[:, 0, :, 0]).to_csv(tmp_path / "x.csv", index=False)
    assert list(read_frame(tmp_path / "x.csv")) == [str(i) for i in range(12)]


def test_decimal_numbers_and_booleans_with_gaps_are_what_they_are():
    from decimal import Decimal

    table = Table.of(
        pd.DataFrame(
            {"a": [Decimal(f"{x:.4f}") for x in REAL], "b": [True, False, None, True] * (N // 4)}, dtype=object
        )
    )
    assert [column.kind for column in table.kept] == ["real", "binary"]
    assert table.kept[1].categories == (False, True)


ROUNDED = {
    "identifiers": (10**9 + 7919 * np.arange(N), "integers that float32 cannot represent: 10.* becomes 10.*; leave it out if it is an"),
    "times": (1.6e9 + REAL, "numbers so large that float32 rounds off their differences; subtract a constant"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUNDED)
def test_numbers_that_float32_cannot_hold_are_said(name, tmp_path, recwarn):
    values, message = ROUNDED[name]
    columns = pd.DataFrame({"a": REAL, "b": values})
    table = Table.of(columns, {"b": "real"})
    with pytest.warns(UserWarning, match=f"column 'b' has {message}"):
        table.tensor(columns)
    np.save(tmp_path / "x.npy", np.stack([values, values]).T)
    with pytest.warns(UserWarning, match=f"array of the data file '.*x.npy' has {message}"):
        read_arrays(tmp_path / "x.npy")
    recwarn.clear()
    table.tensor(columns.assign(b=values - values[0]))  # differences below 2**24
    torch.set_default_dtype(torch.float64)
    try:
        assert table.tensor(columns)[:, 1].tolist() == values.tolist()
    finally:
        torch.set_default_dtype(torch.float32)
    assert not recwarn.list


# Images that are read as they are meant


def test_photos_are_turned_as_the_camera_was_held(tmp_path):
    levels = np.zeros((16, 32, 3), dtype=np.uint8)
    levels[:, :16] = 255  # the left half of the file is the top of the photo
    Image.fromarray(levels).save(tmp_path / "a.jpg", exif=turned())
    images = ImageFolder(tmp_path)
    assert images.shape == (3, 32, 16)
    assert images[0][:, :14].min() > 0.9
    assert images[0][:, 18:].max() < 0.1


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "P", "L", "LA", "1"])
def test_images_of_any_mode_are_mixed_with_colour(mode, tmp_path):
    levels = np.zeros((8, 8, 3), dtype=np.uint8)
    levels[:4] = 255
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(levels).convert(mode).save(tmp_path / ("b.tif" if mode == "CMYK" else "b.png"))
    assert torch.equal(*ImageFolder(tmp_path).tensor())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled(suffix, tmp_path):
    Image.fromarray(np.array([[0, 257 * 77], [257 * 128, 65535]], dtype=np.uint16)).save(tmp_path / f"a{suffix}")
    assert ImageFolder(tmp_path).bytes_at(0).tolist() == [[[0, 77], [128, 255]]]


def test_hidden_files_of_systems_are_left_out(tmp_path):
    photos()(tmp_path / "x")
    for name in ("._0.png", ".DS_Store", ".cache/0.png", "__MACOSX/._0.png"):
        (tmp_path / "x" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "x" / name).write_bytes(b"no image")
    images = ImageFolder(tmp_path / "x")
    assert len(images) == 12
    assert images.labels is None


def test_all_frames_but_the_first_are_left_out_with_a_warning(tmp_path):
    first, *others = (Image.fromarray(each) for each in PHOTOS[:3])
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    with pytest.warns(
        UserWarning,
        match=r"1 of 1 images have several frames, but only frame 1 of each is used: the first is '.*a.gif'",
    ):
        images = ImageFolder(tmp_path)
    first.save(tmp_path / "a.gif")
    assert torch.equal(images[0], ImageFolder(tmp_path)[0])


def test_a_broken_image_in_training_is_one_sentence(tmp_path, capsys, monkeypatch):
    """Of a folder larger than memory only the first bytes of the files are read before training."""
    from pyro_vae.cli import look

    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(N):
        make = image(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        (cut(make, 0.9) if i % 4 == 3 else make)(folder / f"{i:02}.jpg")
    look.look.cache_clear()
    monkeypatch.setattr(look, "MOST_NUMBERS", 100)
    monkeypatch.setattr(look, "ROWS", 1)
    monkeypatch.setattr(look, "MOST_HELD_OUT", 1)
    monkeypatch.setattr(look, "split_rows", lambda *_: [torch.arange(2, N), torch.tensor([0]), torch.tensor([1])])
    try:
        words = ["--latent-dim", "2", "--epochs", "1", "--compile", "none", "--no-tensorboard", "--batch-size", "8"]
        from pyro_vae.cli import main

        assert main(["train", str(tmp_path / "run"), "--data", str(folder), *words]) == 2
        *_, last = capsys.readouterr().err.splitlines()
        assert last.startswith("pyro-vae: error: the image '")
        assert last.endswith("cannot be read: it is damaged")
    finally:
        look.look.cache_clear()


def test_broken_images_of_a_data_set_are_left_out(tmp_path, capsys):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    kinds = datasets.Features({"photo": datasets.Image()})
    content = {"photo": [None, *(Image.fromarray(each) for each in PHOTOS)]}
    datasets.Dataset.from_dict(content, features=kinds).save_to_disk(tmp_path / "x")
    words = ["train", tmp_path / "run", "--data", tmp_path / "x", "--dry-run"]
    assert "the image 0 in" in error(capsys, *words)
    assert "40 colour images, 8 x 12" in run(capsys, *words, "--skip-broken")

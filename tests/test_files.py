"""Users' own files: images, tables and sparse counts, as they are and as they should not be."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse
from torch.utils.data import DataLoader

from pyro_vae import VAE, fit, likelihoods, nn, posteriors, priors
from pyro_vae.data import ImageFolder, SparseCounts, read_frame

RNG = np.random.default_rng(0)


def write(path, size=(8, 6), colour=True, **options):
    """An image of this height and width; returns its levels."""
    levels = RNG.integers(0, 256, (*size, 3) if colour else size, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).save(path, **options)
    return levels


def test_colour_images_are_read_as_they_are(tmp_path):
    levels = [write(tmp_path / f"{i}.png") for i in range(3)]
    images = ImageFolder(tmp_path)
    assert repr(images) == "ImageFolder(3 colour images, 8 x 6)"
    assert images.shape == (3, 8, 6)
    for image, expected in zip(images.tensor(), levels, strict=True):
        assert torch.equal((image * 255).round().byte(), torch.from_numpy(expected).permute(2, 0, 1))


def test_grey_images_have_one_channel_unless_one_is_coloured(tmp_path):
    levels = write(tmp_path / "a.png", colour=False)
    grey = ImageFolder(tmp_path)
    assert torch.equal(grey.bytes_at(0)[0], torch.from_numpy(levels))
    write(tmp_path / "b.png")
    assert ImageFolder(tmp_path).shape == (3, 8, 6)


def test_subfolders_are_labels(tmp_path):
    for name in ("cat/1.png", "dog/1.png", "dog/deep/2.jpg"):
        write(tmp_path / name)
    images = ImageFolder(tmp_path)
    assert images.classes == ["cat", "dog"]
    assert images.labels.tolist() == [0, 1, 1]
    write(tmp_path / "loose.png")
    assert ImageFolder(tmp_path).labels is None


def test_sixteen_bits_and_palettes_keep_their_brightness(tmp_path):
    Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16)).save(tmp_path / "white.png")
    palette = Image.fromarray(np.full((4, 4), 128, dtype=np.uint8)).convert("P")
    palette.save(tmp_path / "zgrey.png")
    images = ImageFolder(tmp_path)
    assert images.shape == (1, 4, 4)
    assert images[0].min() == 1
    assert images[1].mean() == pytest.approx(128 / 255, abs=0.02)


@pytest.mark.parametrize("crop", [True, False])
def test_sizes(tmp_path, crop):
    """A red left half and a blue right one: cropped to a square, both are left; stretched, too."""
    levels = np.zeros((10, 40, 3), dtype=np.uint8)
    levels[:, :20, 0], levels[:, 20:, 2] = 255, 255
    levels[:, :10, 1] = 255  # a green edge, which is cut off
    Image.fromarray(levels).save(tmp_path / "a.png")
    image = ImageFolder(tmp_path, size=4, crop=crop)[0]
    assert image.shape == (3, 4, 4)
    assert image[0, :, 0].min() > 0.9
    assert image[2, :, -1].min() > 0.9
    assert (image[1].max() > 0.5) == (not crop)


def test_images_of_different_sizes_need_a_size(tmp_path):
    write(tmp_path / "a.png", (8, 6))
    write(tmp_path / "b.png", (9, 6))
    with pytest.raises(ValueError, match="have 2 different sizes, such as 8 x 6 and 9 x 6; give one size"):
        ImageFolder(tmp_path)
    assert ImageFolder(tmp_path, size=(5, 7)).tensor().shape == (2, 3, 5, 7)


def test_a_broken_image_is_named_or_left_out(tmp_path):
    write(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"the image '.*b.jpg' cannot be read: it is damaged.*skip_broken=True"):
        ImageFolder(tmp_path)
    (tmp_path / "c.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"2 of 3 images cannot be read, and are left out: the first is '.*b.jpg'"):
        images = ImageFolder(tmp_path, skip_broken=True)
    assert [path.name for path in images.paths] == ["a.jpg"]
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(ValueError, match=r"the image '.*c.jpg' cannot be read: it is damaged"):
        ImageFolder(tmp_path).tensor()


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no images; expected files .png"):
        ImageFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        ImageFolder(tmp_path / "none")
    write(tmp_path / "a.png")
    with pytest.raises(ValueError, match="size is 0; expected an integer of at least 1"):
        ImageFolder(tmp_path, size=0)


def test_a_model_trains_on_a_folder_as_it_is(tmp_path):
    for i in range(12):
        write(tmp_path / f"{i}.png", (8, 8))
    images = ImageFolder(tmp_path)
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.DiscretizedLogistic(nn.mlp(2, [8], (*images.shape, 2))),
        posteriors.Normal(nn.mlp(images.shape, [8], 4)),
    )
    run = fit(vae, DataLoader(images, 4, num_workers=1), epochs=2, progress=False, compile=False)
    assert len(run.history) == 2


FRAME = pd.DataFrame({"a": [1.5, None, 3.0], "b": ["x", "y", None]})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".feather", ".xlsx"])
def test_a_table_is_read_from_every_kind_of_file(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    if suffix in (".parquet", ".feather"):
        pytest.importorskip("pyarrow")
    if suffix == ".xlsx":
        pytest.importorskip("openpyxl")
    writers = {
        ".csv": FRAME.to_csv,
        ".tsv": lambda path, **k: FRAME.to_csv(path, sep="\t", **k),
        ".xlsx": FRAME.to_excel,
    }
    if suffix in writers:
        writers[suffix](path, index=False)
    else:
        {".parquet": FRAME.to_parquet, ".feather": FRAME.to_feather}[suffix](path)
    pd.testing.assert_frame_equal(read_frame(path), FRAME)


BAD_TABLES = {
    "a ragged row": ("a,b\n1,2\n3\n", r"line 3 of the table '.*t.csv' has 1 fields; expected 2"),
    "a longer row": ("a,b\n1,2,9\n", r"line 2 of the table '.*t.csv' has 3 fields; expected 2"),
    "no rows": ("a,b\n", "has no rows"),
    "nothing": ("", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_tables_that_cannot_be_are_refused(tmp_path, name):
    text, message = BAD_TABLES[name]
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_frame(tmp_path / "t.csv")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"the table '.*t.csv' cannot be read"):
        read_frame(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"has an unknown format; expected one of .csv"):
        read_frame(tmp_path / "t.doc")
    with pytest.raises(FileNotFoundError):
        read_frame(tmp_path / "none.csv")


COUNTS = sparse.random(30, 20, 0.2, random_state=0, data_rvs=lambda n: RNG.integers(1, 9, n)).tocoo()


@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
def test_sparse_counts_are_the_dense_ones(tmp_path, form):
    sparse.save_npz(tmp_path / "x.npz", COUNTS.asformat(form))
    counts = SparseCounts.read(tmp_path / "x.npz")
    dense = torch.from_numpy(COUNTS.toarray()).float()
    assert torch.equal(torch.cat(list(DataLoader(counts, 7))), dense)
    assert torch.equal(counts[3], dense[3])
    assert repr(counts) == "SparseCounts(30 x 20, 20.0% not zero)"


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan])
def test_values_that_are_no_counts_are_refused_by_their_place(value):
    matrix = COUNTS.tolil().astype(float)
    matrix[4, 7] = value
    with pytest.raises(ValueError, match=r"has 1 values that are not counts: the first is .* in row 4, column 7"):
        SparseCounts(matrix)


def test_what_is_not_sparse_is_refused(tmp_path):
    with pytest.raises(TypeError, match="matrix is of type ndarray; expected a sparse matrix"):
        SparseCounts(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"matrix has shape \[0, 2\]"):
        SparseCounts(sparse.csr_matrix((0, 2)))
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    with pytest.raises(ValueError, match=r"the sparse matrix .* cannot be read"):
        SparseCounts.read(tmp_path / "x.npz")


def test_a_model_trains_on_sparse_counts():
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.HeterogeneousNegativeBinomial(nn.mlp(2, [8], (20, 2))),
        posteriors.Normal(nn.Log1p(nn.mlp(20, [8], 4))),
    )
    run = fit(vae, SparseCounts(COUNTS), epochs=2, batch_size=10, progress=False, compile=False)
    assert len(run.history) == 2

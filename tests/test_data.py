"""Data sets, binarizations and minibatches."""

from __future__ import annotations

import gzip
import hashlib
import sys
from importlib import resources

import numpy as np
import pytest
import scipy.io
import torch

from pyro_vae import data
from pyro_vae.data.mnist import read_idx

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@pytest.fixture(scope="module")
def mnist():
    return data.load("mnist")


@pytest.mark.parametrize("file", MD5)
def test_embedded_mnist_is_the_original(file):
    content = gzip.decompress((resources.files("pyro_vae.data") / "embedded" / "mnist" / f"{file}.gz").read_bytes())
    assert hashlib.md5(content).hexdigest() == MD5[file]


def test_mnist(mnist):
    for name, size in (("train", 50_000), ("valid", 10_000), ("test", 10_000)):
        images, labels = getattr(mnist, name), getattr(mnist, f"{name}_labels")
        assert images.shape == (size, 1, 28, 28)
        assert images.dtype == torch.float32
        assert (images.min(), images.max()) == (0, 1)
        assert labels.shape == (size,)
        assert labels.unique().tolist() == list(range(10))
    # Pixel for pixel against an independent reading of the file.
    raw = gzip.decompress((resources.files("pyro_vae.data") / "embedded/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    assert (mnist.test * 255).round().to(torch.uint8).numpy().tobytes() == raw[16:]
    assert mnist.test_labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_split_is_the_callers_to_choose(mnist):
    whole = data.load("mnist", num_valid=0)
    assert len(whole.train) == 60_000
    assert len(whole.valid) == 0
    assert torch.equal(whole.train[50_000:], mnist.valid)
    assert torch.equal(whole.train_labels[:50_000], mnist.train_labels)
    for num_valid in (-1, 60_000, 2.5):
        with pytest.raises(ValueError, match="num_valid is"):
            data.load("mnist", num_valid=num_valid)


def test_dynamic_binarization_is_drawn_anew_with_the_right_probability():
    x = torch.linspace(0, 1, 11).expand(20_000, 11)
    first, second = data.binarize.dynamic(x), data.binarize.dynamic(x)
    assert not torch.equal(first, second)
    assert set(first.unique().tolist()) == {0, 1}
    # Beyond 5 standard errors: 6 in 10^6 for each of 9 columns.
    assert ((first.mean(0) - x[0]).abs() <= 5 * (x[0] * (1 - x[0]) / len(x)).sqrt()).all()


def test_fixed_binarization_is_fixed_by_its_seed_alone():
    x = torch.rand(100, 50)
    state = torch.get_rng_state()
    first = data.binarize.fixed(x, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(first, data.binarize.fixed(x, seed=1))
    assert not torch.equal(first, data.binarize.fixed(x, seed=2))
    assert set(first.unique().tolist()) == {0, 1}
    assert ((first - x).mean().abs() < 5 * 0.5 / 5000**0.5).item()


def test_black_pixels_stay_black_whatever_is_drawn(monkeypatch):
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)  # the least that it draws
    assert data.binarize.dynamic(torch.tensor([0.0, 1e-7, 1.0])).tolist() == [0, 1, 1]


def test_threshold():
    x = torch.tensor([0.0, 0.5, 0.500001, 1.0])
    assert data.binarize.threshold(x).tolist() == [0, 0, 1, 1]
    assert data.binarize.threshold(x, 0.6).tolist() == [0, 0, 0, 1]


def test_literature_binarization_is_one_of_mnist(literature_data, mnist):
    fixed = data.load("binarized_mnist", literature_data)
    assert [len(part) for part in (fixed.train, fixed.valid, fixed.test)] == [50_000, 10_000, 10_000]
    assert fixed.test.shape == (10_000, 1, 28, 28)
    assert fixed.train.unique().tolist() == [0, 1]
    assert fixed.train_labels is None
    # Its rows are in another order, but the same images: the mean image is MNIST's, to the noise of binarization.
    noise = (mnist.test * (1 - mnist.test)).sum(0).sqrt() / len(mnist.test)
    assert ((fixed.test.mean(0) - mnist.test.mean(0)).abs() <= 6 * noise + 1e-7).all()


def small_bits():
    return {
        name: np.random.default_rng(i).integers(0, 2, (3 + i, 784), np.uint8)
        for i, name in enumerate(("train", "valid", "test"))
    }


def write_npz(folder, bits):
    np.savez_compressed(
        folder / "binarized_mnist.npz", **{name: np.packbits(rows, axis=1) for name, rows in bits.items()}
    )


def write_amat(folder, bits):
    for name, rows in bits.items():
        lines = [" ".join(map(str, row)) + " \n" for row in rows]
        (folder / f"binarized_mnist_{name}.amat").write_text("".join(lines))


@pytest.mark.parametrize("write", [write_npz, write_amat])
def test_both_formats_of_the_literature_binarization(tmp_path, write):
    bits = small_bits()
    write(tmp_path, bits)
    splits = data.load("binarized_mnist", str(tmp_path))
    for name, rows in bits.items():
        assert torch.equal(getattr(splits, name), torch.from_numpy(rows).float().reshape(-1, 1, 28, 28))


def test_literature_binarization_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root=.*http://www.cs.toronto.edu/~larocheh"):
        data.load("binarized_mnist")
    write_amat(tmp_path, {"train": small_bits()["train"]})
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} contains neither .*http://www.cs.toronto.edu/~larocheh"):
        data.load("binarized_mnist", tmp_path)


def test_literature_binarization_that_is_damaged(tmp_path):
    bits = small_bits()
    write_amat(tmp_path, bits)
    path = tmp_path / "binarized_mnist_valid.amat"
    path.write_text(path.read_text()[:-3])
    with pytest.raises(ValueError, match=r"valid.amat does not consist of lines of 784 zeros and ones"):
        data.load("binarized_mnist", tmp_path)
    npz = tmp_path / "binarized_mnist.npz"
    write_npz(tmp_path, {name: bits[name] for name in ("train", "valid")})
    with pytest.raises(ValueError, match=r"array 'test' of .* cannot be read"):
        data.load("binarized_mnist", tmp_path)
    np.savez(npz, **bits)
    with pytest.raises(ValueError, match=r"uint8 \[3, 784\]; expected uint8 \[n, 98\]"):
        data.load("binarized_mnist", tmp_path)
    np.save(tmp_path / "array.npy", bits["train"])
    write_npz(tmp_path, bits)
    whole = npz.read_bytes()
    flipped = whole[:200] + bytes(255 - byte for byte in whole[200:300]) + whole[300:]
    for damaged in (whole[:500], flipped, b"", (tmp_path / "array.npy").read_bytes()):
        npz.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read"):
            data.load("binarized_mnist", tmp_path)


FRAMES = np.random.default_rng(0).integers(0, 256, (1965, 28, 20), np.uint8)


def write_frames(folder, frames=FRAMES):
    np.savez_compressed(folder / "frey_faces.npz", images=frames)


def write_frames_of_matlab(folder, frames=FRAMES):
    scipy.io.savemat(folder / "frey_rawface.mat", {"ff": frames.reshape(len(frames), -1).T})


@pytest.mark.parametrize("write", [write_frames, write_frames_of_matlab])
def test_frey_faces_are_split_in_order_of_time(tmp_path, write):
    write(tmp_path)
    faces = data.load("frey_faces", str(tmp_path))
    assert [len(part) for part in (faces.train, faces.valid, faces.test)] == [1565, 200, 200]
    assert torch.equal(
        torch.cat([faces.train, faces.valid, faces.test]) * 255, torch.from_numpy(FRAMES[:, None]).float()
    )
    assert faces.train.dtype == torch.float32
    assert faces.train_labels is None


def test_frames_that_follow_each_other_are_alike(literature_data):
    """Which is why they are not split at random."""
    try:
        faces = data.load("frey_faces", literature_data)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    frames = faces.train.flatten(1)

    def difference(lag):
        return (frames[lag:] - frames[:-lag]).square().mean().sqrt().item()

    assert 0 < difference(1) < 0.7 * difference(500)
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_frey_faces_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"frey_faces needs root=.*https://cs.nyu.edu/~roweis"):
        data.load("frey_faces")
    with pytest.raises(
        FileNotFoundError,
        match=rf"{tmp_path} contains neither frey_faces.npz nor frey_rawface.mat; .*https://cs.nyu.edu",
    ):
        data.load("frey_faces", tmp_path)
    write_frames_of_matlab(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match=r"frey_rawface.mat is read by SciPy, which cannot be imported"):
        data.load("frey_faces", tmp_path)


@pytest.mark.parametrize("write", [write_frames, write_frames_of_matlab])
def test_frey_faces_that_are_damaged(tmp_path, write):
    for frames in (FRAMES[:100], FRAMES[:, :27], FRAMES / 255):
        write(tmp_path, frames)
        with pytest.raises(ValueError, match=r"frey_.* contains .*; expected uint8 \[1965, 28, 20\]"):
            data.load("frey_faces", tmp_path)
    write(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:5000], b"", bytes(5000)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path} cannot be read"):
            data.load("frey_faces", tmp_path)


CHARACTERS = np.random.default_rng(1).random((784, 1400), np.float32)
OMNIGLOT = {
    "data": CHARACTERS,
    "target": np.eye(50)[:, np.arange(1400) % 50],  # a column for each image
    "testdata": CHARACTERS[:, :30] / 2,
    "testtarget": np.eye(50)[:, np.arange(30)],
}
OUTLINES = np.random.default_rng(2).integers(0, 2, (9, 784), np.uint8)
SILHOUETTES = {
    "train_data": OUTLINES[:4],
    "train_labels": np.array([[101], [1], [2], [3]], np.uint8),
    "val_data": OUTLINES[4:7],
    "val_labels": np.array([[5], [6], [7]], np.uint8),
    "test_data": OUTLINES[7:],
    "test_labels": np.array([[8], [9]], np.uint8),
}
OF_MATLAB = {
    "omniglot": ("chardata.mat", OMNIGLOT, "https://github.com/yburda/iwae"),
    "caltech101_silhouettes": (
        "caltech101_silhouettes_28_split1.mat",
        SILHOUETTES,
        "https://people.cs.umass.edu/~marlin/data",
    ),
}


def test_omniglot_is_upright_and_split_as_in_the_literature(tmp_path):
    scipy.io.savemat(tmp_path / "chardata.mat", OMNIGLOT)
    characters = data.load("omniglot", tmp_path)
    assert characters.train.shape == (55, 1, 28, 28)
    assert characters.valid.shape == (1345, 1, 28, 28)
    # A pixel in row r and column c is number r + 28 c of its image, as MATLAB counts.
    rows, columns = np.meshgrid(np.arange(28), np.arange(28), indexing="ij")
    expected = CHARACTERS.T[:, rows + 28 * columns]
    assert np.array_equal(characters.test[:, 0].numpy(), expected[:30] / 2)
    assert characters.test_labels.tolist() == list(range(30))
    # Every image is in one part, with its label.
    index = {image.tobytes(): i for i, image in enumerate(expected)}
    images, labels = torch.cat([characters.train, characters.valid]), [characters.train_labels, characters.valid_labels]
    found = [index[image.tobytes()] for image in images[:, 0].numpy()]
    assert sorted(found) == list(range(1400))
    assert torch.cat(labels).tolist() == [i % 50 for i in found]
    assert found[:55] == sorted(found[:55])  # in the order of the file
    assert found[55:] != sorted(found[55:])  # a random choice, which is always the same
    again = data.load("omniglot", tmp_path)
    assert torch.equal(again.valid, characters.valid)


def test_silhouettes_have_the_split_and_the_values_of_their_file(tmp_path):
    scipy.io.savemat(tmp_path / "caltech101_silhouettes_28_split1.mat", SILHOUETTES)
    outlines = data.load("caltech101_silhouettes", str(tmp_path))
    parts = torch.cat([outlines.train, outlines.valid, outlines.test])
    assert [len(part) for part in (outlines.train, outlines.valid, outlines.test)] == [4, 3, 2]
    assert np.array_equal(parts[:, 0].mT.reshape(9, 784).numpy(), OUTLINES.astype(np.float32))
    assert parts[3, 0, 1, 0] == OUTLINES[3, 1]  # the second pixel is below the first
    labels = torch.cat([outlines.train_labels, outlines.valid_labels, outlines.test_labels])
    assert labels.tolist() == [100, 0, 1, 2, 4, 5, 6, 7, 8]
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("name", OF_MATLAB)
def test_matlab_files_that_are_not_there(name, tmp_path, monkeypatch):
    file, arrays, source = OF_MATLAB[name]
    with pytest.raises(FileNotFoundError, match=rf"{name} needs root=.*{source}.*{file}"):
        data.load(name)
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} does not contain {file}; download it from {source}"):
        data.load(name, tmp_path)
    scipy.io.savemat(tmp_path / file, arrays)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match=rf"{file} is read by SciPy, which cannot be imported"):
        data.load(name, tmp_path)


@pytest.mark.parametrize("name", OF_MATLAB)
def test_matlab_files_that_are_damaged(name, tmp_path):
    file, arrays, _ = OF_MATLAB[name]
    path, (images, labels) = tmp_path / file, list(arrays)[:2]

    def refused(message, **changed):
        scipy.io.savemat(path, {**arrays, **changed})
        with pytest.raises(ValueError, match=message):
            data.load(name, tmp_path)

    refused(rf"array '{images}' of .* expected \[n, 784\]", **{images: arrays[images][:3, :3]})
    refused(rf"array '{images}' of .* has values outside of \[0, 1\]", **{images: arrays[images] * 2.0})
    refused(rf"array '{images}' of .* has values outside of \[0, 1\]", **{images: arrays[images] * np.nan})
    wrong = arrays[labels][:, :3] if name == "omniglot" else arrays[labels][:3]
    refused(rf"array '{labels}' of .* is not a label for each", **{labels: wrong})
    scipy.io.savemat(path, {key: value for key, value in arrays.items() if key != images})
    with pytest.raises(ValueError, match=f"array '{images}' of {path} cannot be read"):
        data.load(name, tmp_path)
    scipy.io.savemat(path, arrays)
    whole = path.read_bytes()
    for damaged in (whole[:3000], b"", bytes(5000)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path} cannot be read"):
            data.load(name, tmp_path)


def test_omniglot_with_too_few_images(tmp_path):
    few = {"data": CHARACTERS[:, :1345], "target": OMNIGLOT["target"][:, :1345]}
    scipy.io.savemat(tmp_path / "chardata.mat", {**OMNIGLOT, **few})
    with pytest.raises(ValueError, match="has 1345 images; expected more than 1345"):
        data.load("omniglot", tmp_path)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def test_idx_files():
    array = np.arange(24).reshape(2, 3, 4)
    assert read_idx(idx(array)).tolist() == array.tolist()
    for damaged in (b"", b"\0\0", idx(array)[:-1], idx(array) + b"\0", b"\0\0\x0d" + idx(array)[3:]):
        with pytest.raises(ValueError, match="not an IDX file"):
            read_idx(damaged)


FOLDERS = {
    "fashion_mnist": ("FashionMNIST", "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte", "t10k"),
    "kmnist": ("KMNIST", "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte", "t10k"),
    "emnist": ("EMNIST", "emnist-balanced-{}-images-idx3-ubyte", "emnist-balanced-{}-labels-idx1-ubyte", "test"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_sets_of_torchvision(tmp_path, name):
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    folder, images_file, labels_file, test_name = FOLDERS[name]
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    written = {}
    for part, size in (("train", 8), (test_name, 3)):
        images, labels = random.integers(0, 256, (size, 28, 28)), random.integers(0, 10, size)
        (raw / images_file.format(part)).write_bytes(idx(images))
        (raw / labels_file.format(part)).write_bytes(idx(labels))
        written[part] = torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels)
    splits = data.load(name, tmp_path, num_valid=2, download=False)
    assert [len(part) for part in (splits.train, splits.valid, splits.test)] == [6, 2, 3]
    images, labels = written["train"]
    if name == "emnist":  # its files hold the images with rows and columns exchanged
        images = images.mT
    assert torch.equal((torch.cat([splits.train, splits.valid]) * 255).round().long(), images)
    assert torch.equal(torch.cat([splits.train_labels, splits.valid_labels]), labels)
    assert torch.equal(splits.test_labels, written[test_name][1])
    with pytest.raises(FileNotFoundError, match=f"{name} is not in .*nowhere"):
        data.load(name, tmp_path / "nowhere", download=False)


def test_torchvision_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match="kmnist is loaded by torchvision, which cannot be imported"):
        data.load("kmnist")


def test_unknown_name():
    with pytest.raises(ValueError, match="name is 'cifar'; expected one of mnist, binarized_mnist"):
        data.load("cifar")


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (9, 3), (2, 5)])
def test_batches_visit_every_row_once_in_a_new_order(n, batch_size):
    x = torch.arange(n).unsqueeze(1)
    batches = data.Batches(x, batch_size)
    passes = [list(batches) for _ in range(4)]
    for one in passes:
        assert len(one) == len(batches)
        assert [len(batch) for batch in one[:-1]] == [batch_size] * (len(one) - 1)
        assert torch.cat(one).flatten().sort().values.tolist() == list(range(n))
    assert n == 2 or len({tuple(torch.cat(one).flatten().tolist()) for one in passes}) > 1


def test_batches_transform_at_every_visit():
    batches = data.Batches(torch.full((50, 20), 0.5), 50, transform=data.binarize.dynamic)
    (first,), (second,) = batches, batches
    assert not torch.equal(first, second)


@pytest.mark.parametrize("binarize", [data.binarize.fixed, data.binarize.threshold])
def test_binarizing_what_is_not_grey(binarize):
    for bad in (torch.tensor([0.5, torch.nan]), torch.tensor([0.5, 1.5]), torch.tensor([-0.1, 0.2])):
        with pytest.raises(ValueError, match="x has 1 values that are NaN or outside of"):
            binarize(bad)


@pytest.mark.parametrize("binarize", [data.binarize.dynamic, data.binarize.fixed, data.binarize.threshold])
def test_binarizing_bytes(binarize):
    with pytest.raises(TypeError, match=r"x has dtype torch.uint8; expected grey levels"):
        binarize(torch.zeros(3, dtype=torch.uint8))


def test_batches_of_nothing():
    with pytest.raises(ValueError, match="x has 2 values that are NaN"):
        data.Batches(torch.tensor([0.0, torch.nan, torch.nan]), 2)
    with pytest.raises(ValueError, match="at least one datapoint"):
        data.Batches(torch.zeros(0, 3), 2)
    with pytest.raises(ValueError, match="batch_size is 0"):
        data.Batches(torch.zeros(4, 3), 0)

"""Pictures and TensorBoard while it trains: what they show is what is there, and training does not feel them."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import EVENT, LATENT, small_vae
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.summary.writer import event_file_writer
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.testing import assert_close

from pyro_vae import (
    VAE,
    ConditionalVAE,
    HierarchicalVAE,
    Interrupted,
    TopDown,
    data,
    fit,
    likelihoods,
    nn,
    posteriors,
    priors,
)
from pyro_vae.training.logs import Pictures, TensorBoard
from pyro_vae.training.run import Run, RunProgress

STEPS = 4  # in an epoch of ``train``
PICTURES = ["curves.png", "reconstructions.png", "samples.png"]
LEVELS = 2 / 255  # to what 256 levels, and a colormap of so many, round grey
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def images(n: int, event: tuple[int, ...] = EVENT) -> Tensor:
    return torch.rand(n, *event, generator=torch.Generator().manual_seed(3)).round()


def train(vae: torch.nn.Module, *callbacks: Callable[[Run], object], epochs: int = 3, **options: object) -> Run:
    x = images(32, tuple(vae.event_shape))
    return fit(
        vae,
        x,
        x[:9],
        epochs=epochs,
        batch_size=8,
        seed=0,
        compile=False,
        callbacks=callbacks,
        progress=False,
        **options,
    )


def finished(vae: torch.nn.Module, epoch: int = 1, is_done: bool = True) -> Run:
    """A run as callbacks see it, without the training."""
    history = [{"epoch": i + 1, "step": STEPS * (i + 1), "train_loss": 3.0 - i} for i in range(epoch)]
    progress = RunProgress(epoch=epoch, step=STEPS * epoch)
    return Run(vae, epoch, history=history, progress=progress, is_done=is_done)


def same_but_for_time(history: list[dict]) -> list[dict]:
    return [{name: row[name] for name in row if "second" not in name} for row in history]


def tiles(picture: Image.Image, rows: int, columns: int, event: tuple[int, int, int], top: float = 0.0) -> Tensor:
    """The images in a grid ``[rows * columns, *event]`` in [0, 1], read at the middles of their pixels."""
    channels, height, width = event
    pixels = torch.tensor(np.asarray(picture.convert("RGB")), dtype=torch.float32)[round(top * picture.height) :] / 255
    size = min(pixels.shape[0] / (rows * height), pixels.shape[1] / (columns * width))  # as large as there is room for
    down, right = (
        ((torch.arange(n) + 0.5 - n / 2) * size + room / 2).long()  # in the middle
        for n, room in ((rows * height, pixels.shape[0]), (columns * width, pixels.shape[1]))
    )
    grid = pixels[down][:, right].reshape(rows, height, columns, width, 3).permute(0, 2, 4, 1, 3)
    grid = grid.reshape(-1, 3, height, width)
    return grid if channels == 3 else 1 - grid[:, :1]  # grey 0 is white


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), {"scalars": 0, "images": 0}).Reload()


def check_scalars(folder: Path, history: list[dict]) -> None:
    """Each row is there, once, with all of its columns."""
    found = events(folder)
    names = {"valid_loss": "valid/loss", "valid_rate": "valid/rate", "valid_distortion": "valid/distortion"}
    names |= {"train_loss": "train/loss"}
    columns = {names.get(name, f"train/{name}"): name for name in history[0] if name != "step"}
    assert set(found.Tags()["scalars"]) == set(columns)
    for tag, name in columns.items():
        expected = [(row["step"], torch.tensor(row[name], dtype=torch.float32).item()) for row in history]
        assert [(event.step, event.value) for event in found.Scalars(tag)] == expected, tag


@pytest.fixture
def _in_order(monkeypatch):
    """Event files are read in the order of the seconds in their names: here each is made in a second of its own."""
    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=count(1_000_000_000).__next__))


# Neither changes what is computed


def many_layers() -> VAE:
    """All that a callback could disturb: random layers, and such that count what they see."""
    encoder = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(16, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(8, 4),
    )
    encoder[2].requires_grad_(False)
    return VAE(
        priors.StandardNormal(LATENT), likelihoods.Bernoulli(nn.mlp(LATENT, [8], EVENT)), posteriors.Normal(encoder)
    )


@pytest.mark.parametrize("mode", [False, "graph"])
def test_training_ends_in_the_same_bits(tmp_path, mode):
    ends = []
    for callbacks in ([], [Pictures(tmp_path, images(9), 1), TensorBoard(tmp_path, images(9), torch.arange(9), 1)]):
        torch.manual_seed(0)
        vae = many_layers()
        vae.likelihood.eval()  # stays so
        x = torch.rand(32, *EVENT)
        run = fit(
            vae, x, x.round(), epochs=3, batch_size=8, transform=data.binarize.dynamic, compile=mode, seed=0,
            callbacks=callbacks, progress=False,
        )  # fmt: skip
        modes = [module.training for module in vae.modules()]
        ends.append((vae.state_dict(), same_but_for_time(run.history), modes, torch.get_rng_state()))
    (weights, *others, state), (weights_logged, *others_logged, state_logged) = ends
    assert others == others_logged
    assert torch.equal(state, state_logged)
    for name, tensor in weights.items():
        assert torch.equal(tensor, weights_logged[name]), name
    assert sorted(each.name for each in tmp_path.glob("*.png")) == PICTURES


def test_both_can_be_sent_to_other_processes(tmp_path):
    vae, x = small_vae(), images(3)
    for callback in (Pictures(tmp_path, x), TensorBoard(tmp_path, x, torch.arange(3))):
        pickle.loads(pickle.dumps(callback))(finished(vae))
        callback(finished(vae))
        pickle.dumps(callback)  # what a run has opened, it has closed
    assert sorted(each.name for each in tmp_path.glob("*.png")) == PICTURES


def test_only_the_first_of_several_processes_writes(tmp_path, monkeypatch):
    callbacks = Pictures(tmp_path, images(2)), TensorBoard(tmp_path, images(2))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for rank, files in ((1, False), (0, True)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        for callback in callbacks:
            callback(finished(small_vae()))
        assert bool(list(tmp_path.iterdir())) == files


def vae_of(event) -> VAE:
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(nn.mlp(LATENT, [8], event)),
        posteriors.Normal(nn.mlp(event, [8], 2 * LATENT)),
    )


# Pictures


def panels(picture: Image.Image, width: int) -> tuple[Image.Image, Image.Image]:
    """The two sides of ``samples.png``, without their titles: 0.4 inches above, and 0.3 between them."""
    height = picture.size[1]
    assert picture.size[0] == 2 * width + 45
    return picture.crop((0, 60, width, height)), picture.crop((width + 45, 60, 2 * width + 45, height))


@pytest.mark.parametrize("event", [EVENT, (3, 5, 3)])
def test_pictures_show_draws_and_means_of_the_model(tmp_path, event):
    vae = vae_of(event)
    x = images(7, event)
    before = torch.get_rng_state()
    Pictures(tmp_path, x)(finished(vae))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    p_x = vae.likelihood(vae.prior().sample((100,)))
    draws, means = p_x.sample(), p_x.mean
    width = 900 * event[2] // event[1]  # images keep their shape
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size[1] == 960
        left, right = panels(picture, width)
        assert_close(tiles(left, 10, 10, event), draws)
        assert_close(tiles(right, 10, 10, event), means.detach(), atol=LEVELS, rtol=0)
        assert len(np.unique(np.asarray(right))) > 50  # not blank
    with Image.open(tmp_path / "reconstructions.png") as picture:
        height = 240 if event == EVENT else 277  # the title has a second line
        assert picture.size == (width, height)
        originals, below = tiles(picture, 2, 10, event, top=1 - 180 / height).split(10)
        assert_close(originals[:7], x)
        assert_close(below[:7], vae.reconstruct(x), atol=LEVELS, rtol=0)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (900, 600)
        assert len(np.unique(np.asarray(picture))) > 5


def test_they_come_every_few_epochs_and_at_the_end(tmp_path):
    seen: list[set[str]] = []

    def look(_: Run) -> None:
        seen.append({path.name for path in tmp_path.iterdir()})
        for path in tmp_path.iterdir():
            path.unlink()

    train(small_vae(), Pictures(tmp_path, images(3), every=2), look, epochs=5)
    assert seen == [set(), set(PICTURES), set(), set(PICTURES), set(PICTURES)]


def test_samples_change_by_what_is_learned_alone(tmp_path):
    vae, pictures = small_vae(), Pictures(tmp_path, images(3))
    read = (tmp_path / "samples.png").read_bytes
    pictures(finished(vae))
    first = read()
    torch.rand(5)
    pictures(finished(vae))
    assert read() == first
    with torch.no_grad():
        next(vae.likelihood.parameters()).add_(1.0)
    pictures(finished(vae))
    assert read() != first


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_grey_levels_are_those_of_the_images(tmp_path, low, high):
    unit = torch.rand(4, *EVENT)
    unit[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    x = low + (high - low) * unit
    x[1, 0, 0, 0] = torch.nan if low == 0.0 else low  # missing values are drawn as 0
    unit[1, 0, 0, 0] = 0.0
    vae = VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Incomplete(likelihoods.Normal(nn.mlp(LATENT, [8], EVENT), scale=0.1)),
        posteriors.Normal(nn.FillMissing(nn.mlp(EVENT, [8], 2 * LATENT))),
    )
    Pictures(tmp_path, x)(finished(vae))
    with Image.open(tmp_path / "reconstructions.png") as picture:
        assert_close(tiles(picture, 2, 10, EVENT, top=0.25)[:4], unit, atol=LEVELS, rtol=0)


def hierarchy() -> HierarchicalVAE:
    return HierarchicalVAE(
        priors.StandardNormal(2),
        [posteriors.Normal(nn.mlp(2, [8], 6))],
        likelihoods.Bernoulli(nn.mlp(3, [8], EVENT)),
        TopDown(
            [nn.mlp(EVENT, [8], 8), nn.mlp(8, [8], 8)],
            [posteriors.Normal(nn.mlp(8, [], 6)), posteriors.Normal(nn.mlp(8, [], 4))],
        ),
    )


def flow_posterior() -> VAE:
    posterior = posteriors.InverseAutoregressive(nn.mlp(EVENT, [8], 2 * LATENT + 3), LATENT, 3)
    return VAE(priors.StandardNormal(LATENT), likelihoods.Bernoulli(nn.mlp(LATENT, [8], EVENT)), posterior)


class OfAnotherKind(torch.nn.Module):
    """A VAE of a user, with what pictures need and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_vae()
        self.sample, self.reconstruct, self.encode = self.inner.sample, self.inner.reconstruct, self.inner.encode


@pytest.mark.parametrize("make", [hierarchy, flow_posterior, OfAnotherKind])
def test_other_models_have_pictures_and_codes(tmp_path, make):
    vae = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pictures(tmp_path, images(3))(finished(vae))
        TensorBoard(tmp_path, images(3))(finished(vae))
    assert sorted(each.name for each in tmp_path.glob("*.png")) == PICTURES
    sites = {"z1", "z2"} if make is hierarchy else {"z"}
    assert {path.parent.name for path in tmp_path.rglob("tensors.tsv")} == sites


def test_samples_of_a_hierarchy_are_means(tmp_path):
    vae = hierarchy()
    Pictures(tmp_path, images(3))(finished(vae))
    torch.manual_seed(0)
    z = vae.layers[0](vae.prior().sample((100,))).sample()
    with Image.open(tmp_path / "samples.png") as picture:
        found = tiles(panels(picture, 900)[1], 10, 10, EVENT)
    assert_close(found, vae.likelihood(z).mean.detach(), atol=LEVELS, rtol=0)


@pytest.mark.parametrize("shape", [(5, 16), (5, 4, 4), (5, 2, 4, 4), (0, 1, 4, 4)])
@pytest.mark.parametrize("callback", [Pictures, TensorBoard])
def test_other_shapes_are_refused_early(tmp_path, callback, shape):
    with pytest.raises(ValueError, match=rf"images have shape \[{', '.join(map(str, shape))}\]; expected"):
        callback(tmp_path, torch.zeros(shape))


def test_other_bad_arguments_are_refused_early(tmp_path):
    x = images(3)
    with pytest.raises(TypeError, match="images are of type list"):
        Pictures(tmp_path, [x])
    with pytest.raises(ValueError, match="every is 0"):
        Pictures(tmp_path, x, every=0)
    with pytest.raises(ValueError, match="every is 0"):
        TensorBoard(tmp_path, x, every=0)
    with pytest.raises(TypeError, match="labels are of type list"):
        TensorBoard(tmp_path, x, labels=[1, 2, 3])
    with pytest.raises(ValueError, match=r"labels have shape \[2\]; expected \[3\]"):
        TensorBoard(tmp_path, x, labels=torch.arange(2))
    with pytest.raises(ValueError, match="labels without images"):
        TensorBoard(tmp_path, labels=torch.arange(2))
    (tmp_path / "file").touch()
    for callback in (Pictures, TensorBoard):
        with pytest.raises(OSError, match="cannot write to the folder"):
            callback(tmp_path / "file", x)


# Failures


def test_pictures_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    torch.manual_seed(0)
    reference = train(small_vae())
    Pictures(tmp_path, images(3))(finished(small_vae()))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fails_midway(_: int) -> None:
        """When something has been written."""
        raise FULL

    monkeypatch.setattr("pyro_vae.system.files.os.fsync", fails_midway)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="No space left on device; training continues") as caught:
        run = train(small_vae(), Pictures(tmp_path, images(3), every=1))
    assert sorted(str(each.message).split("'")[1] for each in caught) == sorted(3 * [str(path) for path in before])
    assert same_but_for_time(run.history) == same_but_for_time(reference.history)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_model_without_pictures_is_trained_with_a_warning(tmp_path):
    vae = ConditionalVAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(nn.mlp(LATENT + 2, [8], EVENT)),
        posteriors.Normal(nn.mlp(18, [8], 2 * LATENT)),
        conditions=2,
    )
    rows = images(8), torch.rand(8, 2)
    callbacks = Pictures(tmp_path / "a", images(3)), TensorBoard(tmp_path / "b", images(3))
    with pytest.warns(UserWarning, match="cannot write .*; training continues") as caught:
        run = fit(vae, rows, epochs=2, seed=0, compile=False, callbacks=callbacks, progress=False)
    assert any("samples.png" in str(each.message) for each in caught)
    assert {each.filename for each in caught} == {__file__}  # the caller's line, not one of the package
    assert len(run.history) == 2
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["curves.png"]
    check_scalars(tmp_path / "b", run.history)


@pytest.mark.usefixtures("_in_order")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_rows_that_found_no_space_are_written_later(tmp_path, monkeypatch):
    write, full = RecordWriter.write, False

    def write_or_fail(self: RecordWriter, record: bytes) -> None:
        if full:
            raise FULL
        write(self, record)

    def fill(run: Run) -> None:
        nonlocal full
        full = run.progress.epoch in (2, 3)

    monkeypatch.setattr(RecordWriter, "write", write_or_fail)
    torch.manual_seed(0)
    reference = train(small_vae(), epochs=5)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=r"cannot write .*No space left on device.*; training continues"):
        run = train(small_vae(), fill, TensorBoard(tmp_path), epochs=5)
    assert same_but_for_time(run.history) == same_but_for_time(reference.history)
    check_scalars(tmp_path, run.history)


@pytest.mark.usefixtures("_in_order")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_folder_that_is_removed_is_made_again(tmp_path):
    def remove(run: Run) -> None:
        if run.progress.epoch == 2:
            shutil.rmtree(tmp_path / "logs")

    callbacks = remove, TensorBoard(tmp_path / "logs", images(3))
    with pytest.warns(UserWarning, match="cannot write"):
        run = train(small_vae(), *callbacks, epochs=4)
    check_scalars(tmp_path / "logs", run.history)


@pytest.mark.usefixtures("_in_order")
def test_other_files_in_the_folder_are_no_hindrance(tmp_path):
    (tmp_path / "events.out.tfevents.0000000001.host").write_bytes(b"no events\n" * 50)
    run = finished(small_vae(), epoch=3)
    TensorBoard(tmp_path)(run)
    assert [event.step for event in events(tmp_path).Scalars("train/loss")] == [4, 8, 12]


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'pyro-vae\[tensorboard\]'"):
        TensorBoard(tmp_path)


# TensorBoard


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A run that is logged, and what it has printed or warned of."""
    folder = tmp_path_factory.mktemp("logged")
    torch.manual_seed(0)
    x, vae = images(11), small_vae()
    run = train(vae, TensorBoard(folder, x, torch.arange(11) % 3, every=2), epochs=5)
    return SimpleNamespace(folder=folder, run=run, x=x, vae=vae.eval())


def test_scalars_are_the_history(logged):
    check_scalars(logged.folder, logged.run.history)


def test_images_come_every_few_epochs_and_at_the_end(logged):
    found = events(logged.folder)
    assert set(found.Tags()["images"]) == {"samples", "reconstructions"}
    for tag, size in (("samples", (1230, 640)), ("reconstructions", (600, 280))):
        shown = found.Images(tag)
        assert [event.step for event in shown] == [2 * STEPS, 4 * STEPS, 5 * STEPS]
        assert {(event.width, event.height) for event in shown} == {size}
        assert len({event.encoded_image_string for event in shown}) == 3  # it learns


def test_projector_has_the_codes_labels_and_images(logged):
    from google.protobuf import text_format

    config = ProjectorConfig()
    text_format.Parse((logged.folder / "projector_config.pbtxt").read_text(), config)
    (embedding,) = config.embeddings
    assert embedding.tensor_path.startswith(str(5 * STEPS).zfill(5))
    rows = (logged.folder / embedding.tensor_path).read_text().splitlines()
    z = torch.tensor([[float(value) for value in row.split("\t")] for row in rows])
    assert torch.equal(z, logged.vae.encode(logged.x))
    labels = (logged.folder / embedding.metadata_path).read_text().splitlines()
    assert labels == [str(i % 3) for i in range(11)]
    assert list(embedding.sprite.single_image_dim) == [4, 4]
    with Image.open(logged.folder / embedding.sprite.image_path) as sprite:
        assert sprite.size == (16, 16)
        assert_close(1 - tiles(sprite, 4, 4, EVENT)[:11], logged.x)


@pytest.mark.parametrize("event", [(3, 5, 3), (1, 2, 7)])
def test_sprites_of_images_that_are_not_square(tmp_path, event):
    vae = vae_of(event)
    x = images(11, event)
    TensorBoard(tmp_path, x)(finished(vae))
    with Image.open(next(tmp_path.rglob("sprite.png"))) as sprite:
        size = max(event)
        assert sprite.size == (4 * size, 4 * size)
        found = tiles(sprite, 4, 4, (3, size, size))[:11, : event[0], : event[1], : event[2]]
    assert_close(found, x)


def test_the_projector_gets_no_more_than_it_can_take(tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_vae.training.logs.tensorboard.PROJECTED", 7)
    TensorBoard(tmp_path / "a", images(11), torch.arange(11))(finished(small_vae()))
    monkeypatch.setattr("pyro_vae.training.logs.tensorboard.SPRITE", 8)
    TensorBoard(tmp_path / "b", images(11), torch.arange(11))(finished(small_vae()))
    for folder, n in (("a", 7), ("b", 4)):
        for name in ("tensors.tsv", "metadata.tsv"):
            (path,) = (tmp_path / folder).rglob(name)
            assert len(path.read_text().splitlines()) == n


@pytest.mark.usefixtures("_in_order")
def test_it_says_nothing(tmp_path, capfd, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch in (2, 2, 3):  # the same folder again, and on from there
            TensorBoard(tmp_path, images(3))(finished(small_vae(), epoch))
        Pictures(tmp_path, images(3))(finished(small_vae()))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.usefixtures("_in_order")
def test_after_ctrl_c_it_goes_on_with_each_row_once(tmp_path):
    def interrupt(run: Run) -> None:
        if run.progress.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    torch.manual_seed(0)
    vae = small_vae()
    out, logs = tmp_path / "run", tmp_path / "logs"
    callback = TensorBoard(logs, images(3), every=1)
    with pytest.raises(Interrupted):
        train(vae, interrupt, callback, epochs=4, out=out)
    run = train(vae, callback, epochs=4, out=out, resume=True)  # the same callback, with what it holds
    check_scalars(logs, run.history)
    run = train(vae, TensorBoard(logs, images(3), every=1), epochs=6, out=out, resume=True)
    check_scalars(logs, run.history)
    assert [event.step for event in events(logs).Images("samples")] == [row["step"] for row in run.history]


@pytest.mark.usefixtures("_in_order")
@pytest.mark.parametrize("same", [False, True], ids=["another", "the same"])
def test_what_came_after_the_checkpoint_is_replaced(tmp_path, same):
    """A run that is killed has written epochs to the logs that are trained again, here with other numbers."""
    out, logs = tmp_path / "run", tmp_path / "logs"

    def keep_and_end(run: Run) -> None:
        if run.progress.epoch == 2:
            shutil.copytree(out, tmp_path / "kept")
        if run.progress.epoch == 5:
            os.kill(os.getpid(), signal.SIGINT)

    callback = TensorBoard(logs, images(3), every=1)
    with pytest.raises(Interrupted):
        train(small_vae(), callback, keep_and_end, epochs=6, out=out, save_every=0)
    if not same:
        callback = TensorBoard(logs, images(3), every=1)
    vae = small_vae()

    def change(_: Run) -> None:
        with torch.no_grad():
            for parameter in vae.parameters():
                parameter.mul_(0.5)

    run = train(vae, callback, change, epochs=4, out=tmp_path / "kept", resume=True)
    check_scalars(logs, run.history)
    assert [event.step for event in events(logs).Images("samples")] == [row["step"] for row in run.history]


@pytest.mark.usefixtures("_in_order")
def test_rows_that_were_lost_are_written_when_it_goes_on(tmp_path):
    """A run that is killed between its checkpoint and its callbacks has a row that is not in the logs."""
    vae, out, logs = small_vae(), tmp_path / "run", tmp_path / "logs"
    train(vae, TensorBoard(logs, images(3), every=1), epochs=2, out=out)
    train(vae, epochs=3, out=out, resume=True)
    run = train(vae, TensorBoard(logs, images(3), every=1), epochs=5, out=out, resume=True)
    check_scalars(logs, run.history)
    found = [event.step for event in events(logs).Images("samples")]
    assert found == [STEPS * epoch for epoch in (1, 2, 4, 5)]


@pytest.mark.usefixtures("_in_order")
def test_a_new_run_takes_the_place_of_the_old_one(tmp_path):
    train(small_vae(), TensorBoard(tmp_path), epochs=4)
    run = train(small_vae(), TensorBoard(tmp_path), epochs=2, accumulate=2)
    check_scalars(tmp_path, run.history)


def test_each_epoch_can_be_read_when_it_is_done(tmp_path):
    train(small_vae(), TensorBoard(tmp_path), lambda run: check_scalars(tmp_path, run.history))

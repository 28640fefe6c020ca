"""Ctrl-C, kill, and going on: what was done is kept, and the numbers are those of a run that never stopped."""

from __future__ import annotations

import os
import pickle
import signal
import time
from functools import cache

import pytest
import rich.progress
import torch
from conftest import EVENT, small_vae
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from new_process import start
from safetensors.torch import save

from pyro_vae import evidence
from pyro_vae.evidence.runner import progress as progress_module
from pyro_vae.system import files
from pyro_vae.system.progress import shown
from pyro_vae.system.tensor_files import from_bytes, to_bytes

X = torch.rand(40, *EVENT, generator=torch.Generator().manual_seed(1)).round()


def estimate(vae, **options):
    return evidence.importance(vae.model, vae.guide, X, **{"num_samples": 30, "chunk_size": 60} | options)


def stopped_after(blocks):
    """Ctrl-C after so many blocks."""

    def progress(sequence):
        for i, block in enumerate(sequence):
            if i == blocks:
                raise KeyboardInterrupt
            yield block

    return progress


def test_an_interrupt_has_the_result_so_far(vae):
    torch.manual_seed(4)
    whole = estimate(vae)
    torch.manual_seed(4)
    with pytest.raises(KeyboardInterrupt, match="4 of 40 datapoints were done") as caught:
        estimate(vae, progress=stopped_after(2))
    partial = caught.value.result
    assert len(partial.log_prob) == 4
    assert torch.equal(partial.log_prob, whole.log_prob[:4])
    assert "mean over 4 datapoints" in partial.summary()
    assert partial.to_arviz(8).observed_data["x"].shape[0] == 4


def test_an_interrupt_before_anything_was_done_says_so(vae, tmp_path):
    with pytest.raises(evidence.Interrupted, match="none of 40 datapoints was done") as caught:
        estimate(vae, progress=stopped_after(0), keep=tmp_path / "run")
    assert caught.value.result is None
    assert estimate(vae, keep=tmp_path / "run").log_prob.shape == (40,)


def test_an_interrupt_while_the_programs_are_checked(vae):
    def guide(x):  # noqa: ARG001
        raise KeyboardInterrupt

    with pytest.raises(evidence.Interrupted, match="none of 40 datapoints was done"):
        evidence.importance(vae.model, guide, X)


def test_other_chunks_may_finish_what_was_begun(vae, tmp_path):
    file = tmp_path / "run"
    with pytest.raises(evidence.Interrupted):
        estimate(vae, keep=file, progress=stopped_after(3))
    result = estimate(vae, keep=file, chunk_size=150)
    assert result.log_prob.shape == (40,)
    assert result.log_prob.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 31}, "is of another run: num_samples is 30 there and 31 here"),
        ({"other_x": True}, "is of other data or programs"),
        ({"other_vae": True}, "is of other data or programs"),
        ({"proposal": evidence.widened(1.5)}, "is of another run: its proposal is different"),
        ({"fewer": True}, "is of other data or programs"),
    ],
)
def test_the_file_of_another_run_is_refused(vae, tmp_path, change, message):
    file = tmp_path / "run"
    estimate(vae, keep=file)
    before = file.read_bytes()
    x = 1 - X if change.pop("other_x", False) else X[:30] if change.pop("fewer", False) else X
    if change.pop("other_vae", False):
        torch.manual_seed(77)
        vae = small_vae()
    with pytest.raises(ValueError, match=message):
        evidence.importance(vae.model, vae.guide, x, **{"num_samples": 30, "keep": file} | change)
    assert file.read_bytes() == before


def test_rounding_is_no_difference(vae, tmp_path):
    """As of another device; and fingerprints are numbers near -10."""
    file = tmp_path / "run"
    first = estimate(vae, keep=file)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter *= 1 + 1e-7
    assert torch.equal(estimate(vae, keep=file).log_prob, first.log_prob)


class Touch:
    """What unpickling must not do."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


CONTENTS = {
    "nothing": b"",
    "text": b"not a file of ours",
    "a pickle": pickle.dumps(Touch()),
    "cut": lambda file: file.read_bytes()[:1000],
    "cut at the end": lambda file: file.read_bytes()[:-5],
    "longer": lambda file: file.read_bytes() + b"0",
    "a checkpoint": to_bytes({"a": torch.zeros(2)}, '{"format": 1}'),
    "deep JSON": to_bytes({}, "[" * 100_000),
    "no text": save({"a": torch.zeros(2)}),
    "columns too long": lambda file: changed(file, lambda column: torch.cat([column, column])),
    "an empty column": lambda file: changed(file, lambda column: column[:0]),
    "one number in a column": lambda file: changed(file, lambda column: column[0]),
    "a short column": lambda file: changed(file, lambda column: column[:3], "column ess"),
    "a column less": lambda file: changed(file, lambda _: None, "column ess"),
}


def changed(file, change, only="column "):
    """The file with other columns, and the checksum of those."""
    tensors, text = from_bytes(file.read_bytes())
    tensors = {name: change(each) if name.startswith(only) else each for name, each in tensors.items()}
    return to_bytes({name: each for name, each in tensors.items() if each is not None}, text)


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_that_is_none_of_ours_is_refused_and_left_alone(vae, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run"
    estimate(vae, keep=file)
    content = CONTENTS[content]
    file.write_bytes(content if isinstance(content, bytes) else content(file))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"run is not a file that an evidence run was kept in, or is damaged: "):
        estimate(vae, keep=file)
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_a_file_of_another_format_is_refused(vae, tmp_path):
    file = tmp_path / "run"
    estimate(vae, keep=file)
    tensors, text = from_bytes(file.read_bytes())
    file.write_bytes(to_bytes(tensors, text.replace('"evidence": 4', '"evidence": 5')))
    with pytest.raises(ValueError, match="run has format 5; expected 4"):
        estimate(vae, keep=file)


def test_columns_of_another_version_are_refused(vae, tmp_path):
    file = tmp_path / "run"
    with pytest.raises(evidence.Interrupted):
        estimate(vae, keep=file, progress=stopped_after(3))
    file.write_bytes(changed(file, lambda column: column[:, None], "column ess"))
    with pytest.raises(ValueError, match=r"run has columns .*ess \[1\].*; expected .*ess \[\]"):
        estimate(vae, keep=file)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_that_flips_is_noticed(tmp_path_factory, place, bit):
    folder = tmp_path_factory.getbasetemp()
    file, content = folder / "flipped", bytearray(whole_file(folder))
    content[int(place * len(content))] ^= 1 << bit
    file.write_bytes(content)
    with pytest.raises(ValueError, match="flipped is not a file that an evidence run was kept in, or is damaged"):
        estimate(small_vae_of_seed(3), keep=file)


@cache
def whole_file(folder):
    estimate(small_vae_of_seed(3), keep=folder / "whole")
    return (folder / "whole").read_bytes()


def small_vae_of_seed(seed):
    torch.manual_seed(seed)
    return small_vae()


def test_a_file_that_cannot_be_written_is_found_out_at_once(vae, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        estimate(vae, keep=tmp_path / "nowhere" / "run", progress=stopped_after(0))


def until_killed(file, pipe):
    """A run that says which block it begins, and waits at the fourth one."""

    def four(blocks):
        for i, block in enumerate(blocks):
            pipe.send(i)
            if i == 3:
                pipe.recv()
            yield block

    progress_module.SECONDS_BETWEEN_SAVES = 0.0
    # Where tests run in the background of a shell it is ignored, and so it would be here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    vae = small_vae_of_seed(0)
    torch.manual_seed(4)
    estimate(vae, keep=file, progress=four)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_killed_for_real(vae, tmp_path, processes, signal_number):
    file, output = tmp_path / "run", tmp_path.parent / f"{tmp_path.name}_output"
    here, there = processes.Pipe()
    victim = start(processes, output, until_killed, file, there)
    there.close()
    assert [here.recv() for _ in range(4)] == [0, 1, 2, 3]
    # Nobody else may use the file until then.
    before = file.read_bytes()
    with pytest.raises(OSError, match=r"run' is in use by another run"):
        estimate(vae, keep=file)
    assert len(file.read_bytes()) >= len(before)
    os.kill(victim.pid, signal_number)
    victim.join(60)
    assert victim.exitcode != 0
    if signal_number == signal.SIGINT:
        assert "datapoints were done and are kept in" in output.with_suffix(".stderr").read_text()
    vae, seen = small_vae_of_seed(0), []
    for path in (file, tmp_path / "other"):
        torch.manual_seed(4)
        result = estimate(vae, keep=path, progress=lambda blocks: seen.append(list(blocks)) or blocks)
        seen[-1].append(result.log_prob.sum().item())
    (*left, resumed), (*every, whole) = seen
    assert resumed == whole
    assert 5 < len(left) < len(every)  # some blocks were not done again
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other", "run"]


def test_a_file_is_free_again_when_its_run_has_ended(vae, tmp_path):
    def inner(blocks):
        with pytest.raises(OSError, match=r"run' is in use by another run"):
            estimate(vae, keep=tmp_path / "run")
        return blocks

    for _ in range(2):
        estimate(vae, keep=tmp_path / "run", progress=inner)
        (tmp_path / "run").unlink()


def test_it_saves_now_and_then(vae, tmp_path, monkeypatch):
    file, sizes = tmp_path / "run", []
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_SAVES", 0.0)

    def progress(blocks):
        for block in blocks:
            yield block
            sizes.append(len(from_bytes(file.read_bytes())[0].get("column log_prob", ())))

    estimate(vae, keep=file, progress=progress)
    assert sizes == sorted(sizes)
    assert sizes[3] > 0


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full from the second file on."""
    written = []

    def fsync(descriptor):  # noqa: ARG001
        written.append(1)
        if len(written) > 2:  # a file and its folder
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fsync)


@pytest.mark.usefixtures("full_disk")
def test_what_is_computed_is_returned_even_if_it_cannot_be_kept(vae, tmp_path):
    with pytest.warns(UserWarning, match=r"cannot write '.*run': No space left on device: what was computed"):
        assert len(estimate(vae, keep=tmp_path / "run").log_prob) == 40
    assert [each.name for each in tmp_path.iterdir()] == ["run"]  # as it was at first


@pytest.mark.usefixtures("full_disk")
def test_ctrl_c_says_if_nothing_could_be_kept(vae, tmp_path):
    with pytest.raises(evidence.Interrupted, match=r"4 of 40 .* were done, but are not kept: cannot write") as caught:
        estimate(vae, keep=tmp_path / "run", progress=stopped_after(2))
    assert len(caught.value.result.log_prob) == 4


def test_ctrl_c_while_it_saves_leaves_no_half_of_a_file(vae, tmp_path, monkeypatch):
    def fsync(descriptor):  # noqa: ARG001
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(evidence.Interrupted, match="none of 40 datapoints was done"):
        estimate(vae, keep=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_the_bar_keeps_quiet_where_nobody_looks(vae, capfd):
    estimate(vae)
    assert capfd.readouterr() == ("", "")


def test_the_bar_shows_in_a_terminal(monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")  # which is how rich is told that it is one
    for _ in shown(True, [X, X], "log p(x)"):
        time.sleep(0.15)
    assert "log p(x)" in capfd.readouterr().err


def test_the_bar_counts_datapoints(monkeypatch):
    """Of blocks of data; of numbers, such as steps, each counts once."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    for items, sizes in (([X[:3], X[:5]], [3, 5]), (range(2), [1, 1])):
        counts = []

        class Bar(rich.progress.Progress):
            def add_task(self, *args, counts=counts, **options):
                counts.append(options["total"])
                return super().add_task(*args, **options)

            def update(self, *args, counts=counts, **options):
                counts.append(options["completed"])
                super().update(*args, **options)

        monkeypatch.setattr(rich.progress, "Progress", Bar)
        assert len(list(shown(True, items, "log p(x)"))) == 2
        assert counts == [sum(sizes), sizes[0], sum(sizes)]

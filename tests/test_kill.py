"""Processes that train are killed, and others go on: to the same bits as one that was let alone."""

from __future__ import annotations

import csv
import os
import random
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from train_until_killed import RUNS, train

import pyro_vae
from pyro_vae.saving.checkpoint import read

LAST, BEST = "last.safetensors", "best.safetensors"
RECORDED, AS_PYRO = RUNS


@pytest.fixture(scope="module")
def undisturbed(processes, tmp_path_factory):
    """The folders of runs that are let alone, by name."""
    folders = {name: tmp_path_factory.mktemp("undisturbed") / "run" for name in RUNS}
    for name, folder in folders.items():
        assert finish(processes, name, folder) == 0
    return folders


def finish(processes, name: str, out: Path) -> int:
    process = processes.Process(target=train, args=(name, out))
    process.start()
    process.join()
    return process.exitcode


@contextmanager
def at_step(processes, name: str, out: Path, steps: int):
    """A process that has been allowed so many steps, and its pipe: it waits before each of them."""
    here, there = processes.Pipe()
    process = processes.Process(target=train, args=(name, out, there))
    process.start()
    there.close()
    for _ in range(steps):
        here.recv()
        here.send("go on")
    with here:
        yield process, here
    process.join()


def contents(folder: Path):
    """All that is the same in two runs that are the same."""
    files = [read(folder / name) for name in (LAST, BEST)]
    for _, content in files:
        for row in (content.get("progress", {}), *content.get("history", []), content.get("row", {})):
            for name in ("seconds", "epoch_seconds", "datapoints_per_second"):
                row.pop(name, None)
    with (folder / "history.csv").open(newline="") as file:
        table = [
            {name: row[name] for name in ("epoch", "step", "train_loss", "valid_loss")} for row in csv.DictReader(file)
        ]
    return [tensors for tensors, _ in files], [content for _, content in files], table


def assert_same(folder: Path, other: Path) -> None:
    (tensors, *words), (others, *other_words) = contents(folder), contents(other)
    assert words == other_words
    for mine, theirs in zip(tensors, others, strict=True):
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize(("name", "kills", "most"), [(RECORDED, 20, 12), (AS_PYRO, 6, 12)])
def test_killed_at_any_moment_it_ends_with_the_same_bits(name, kills, most, processes, undisturbed, tmp_path):
    """With SIGKILL, before the first step, in steps and while it saves; what is there then can always be read."""
    out = tmp_path / "run"
    moments = random.Random(0)  # in all, they are allowed fewer steps than a run has
    is_saved = False
    for _ in range(kills):
        steps = moments.randint(0, most)
        with at_step(processes, name, out, steps) as (process, _):
            time.sleep(moments.uniform(0, 0.012 if steps else 0.3))  # a step and saving take about that long
            process.kill()
        assert process.exitcode == -signal.SIGKILL
        is_saved |= steps > 1 and RUNS[name]["save_every"] == 0
        assert (out / LAST).exists() or not is_saved
        if (out / LAST).exists():
            pyro_vae.load(out)
            pyro_vae.load(out / LAST)
    assert finish(processes, name, out) == 0
    assert_same(out, undisturbed[name])
    assert not [path for path in out.iterdir() if path.suffix == ".new"]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(name, number, processes, undisturbed, tmp_path):
    out = tmp_path / "run"
    with at_step(processes, name, out, steps=25) as (process, pipe):
        pipe.recv()
        os.kill(process.pid, number)
    assert process.exitcode == 128 + number
    message = out.with_suffix(".stderr").read_text()
    progress = read(out / LAST)[1]["progress"]
    assert f"stopped in epoch {progress['epoch'] + 1}, after {progress['step']} steps" in message
    assert f"the run is saved in '{out}'; pass resume=True (on the command line: --resume) to resume it" in message
    assert ("Interrupted" in message) == (number == signal.SIGINT)
    assert len(message.splitlines()) == 1
    assert finish(processes, name, out) == 0
    assert_same(out, undisturbed[name])


def test_a_second_time_it_stops_at_once(processes, undisturbed, tmp_path):
    """The first Ctrl-C waits for the step, which here never ends; the second does not."""
    out = tmp_path / "run"
    with at_step(processes, AS_PYRO, out, steps=7) as (process, pipe):
        pipe.recv()
        while process.exitcode is None:
            os.kill(process.pid, signal.SIGINT)
            process.join(0.1)
    assert process.exitcode == 130
    message = "Interrupted: stopped at once in epoch 1, after 7 steps; what was done since the last save is not kept"
    assert out.with_suffix(".stderr").read_text() == f"{message} (0 epochs)"
    assert finish(processes, AS_PYRO, out) == 0
    assert_same(out, undisturbed[AS_PYRO])

"""Two runs never write to one folder or file: the second one says which process is in it, and a crash frees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from conftest import small_vae

from pyro_vae import cli, evidence, fit, load
from pyro_vae.system import lock
from pyro_vae.system.lock import locked

X = (torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()


BEGINNING = """
import os, runpy, sys, time
from pathlib import Path
locked = runpy.run_path(sys.argv.pop(1))["locked"]  # without the package, of which the import takes seconds
"""


def start(code, *arguments):
    """A process that runs some code, and has printed a line."""
    command = [sys.executable, "-c", BEGINNING + textwrap.dedent(code), lock.__file__, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


HOLD = """
    with locked(Path(sys.argv[1]), lend=len(sys.argv) > 2):
        print("has it", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has the folder, until it is killed."""
    process, said = start(HOLD, tmp_path)
    assert said == "has it"
    yield process
    process.kill()
    process.communicate()


def in_use(tmp_path, holder):
    return rf"^'{tmp_path}' is in use by another run, process {holder.pid}$"


@pytest.mark.parametrize("resume", [False, True])
def test_fit_names_the_process_that_is_in_the_folder(tmp_path, holder, resume):
    with pytest.raises(OSError, match=in_use(tmp_path, holder)):
        fit(small_vae(), X, epochs=1, out=tmp_path, resume=resume, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_so_does_the_command_before_it_loads_data(tmp_path, holder, more, capsys):
    assert cli.main(["train", str(tmp_path), "--data", "binarized_mnist", *more]) == 2
    expected = f"pyro-vae: error: '{tmp_path}' is in use by another run, process {holder.pid}\n"
    assert capsys.readouterr().err == expected
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_so_do_files_of_evidence(tmp_path):
    process, _ = start(HOLD, tmp_path / "file")
    vae = small_vae()
    with pytest.raises(OSError, match=rf"file' is in use by another run, process {process.pid}$"):
        evidence.importance(vae.model, vae.guide, X, num_samples=5, keep=tmp_path / "file", progress=iter)
    process.communicate("")


def test_a_crash_frees_the_folder(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    run = fit(small_vae(), X, epochs=1, out=tmp_path, progress=False)
    assert len(run.history) == 1
    assert not (tmp_path / ".lock").exists()


def test_a_crash_frees_it_though_a_worker_lives_on(tmp_path):
    """One that was forked, as those of data loaders are, has the open files of its parent."""
    process, worker = start(
        """
        with locked(Path(sys.argv[1])):
            if os.fork() == 0:
                print(os.getpid(), flush=True)  # it has let go of the lock
                time.sleep(60)
            sys.stdin.read()
        """,
        tmp_path,
    )
    process.kill()
    process.wait()
    try:
        os.kill(int(worker), 0)  # it lives
        with locked(tmp_path):
            pass
    finally:
        os.kill(int(worker), signal.SIGKILL)
        process.stdout.close()
        process.stdin.close()


def test_a_run_within_a_run_and_one_in_another_thread_are_others(tmp_path):
    said = []

    def again(run):  # noqa: ARG001
        try:
            fit(small_vae(), X, epochs=1, out=tmp_path, resume=True, progress=False)
        except OSError as error:
            said.append(str(error))

    def elsewhere(run):
        thread = threading.Thread(target=again, args=(run,))
        thread.start()
        thread.join(2)  # it waits for its turn where it has to run programs, not for the folder

    fit(small_vae(), X, epochs=1, out=tmp_path, callbacks=[again, elsewhere], progress=False)
    assert said == [f"'{tmp_path}' is in use by another run, process {os.getpid()} (this one)"] * 2
    load(tmp_path)


def test_what_is_lent_is_for_this_thread_and_for_processes_it_starts(tmp_path):
    with locked(tmp_path, lend=True):
        with locked(tmp_path):
            pass
        child, said = start(HOLD, tmp_path)
        assert said == "has it"
        child.communicate("")
        with pytest.raises(OSError, match="in use"):
            _raised_in_thread(tmp_path)
    stranger, _ = start(HOLD, tmp_path, "lend")
    with pytest.raises(OSError, match=rf"process {stranger.pid}$"), locked(tmp_path):
        pass
    stranger.communicate("")


def _raised_in_thread(path):
    raised = []

    def lock():
        try:
            with locked(path):
                pass
        except OSError as error:
            raised.append(error)

    thread = threading.Thread(target=lock)
    thread.start()
    thread.join()
    raise raised[0]


def test_another_machine_is_named(tmp_path, holder):
    record = json.loads((tmp_path / ".lock").read_text())
    (tmp_path / ".lock").write_text(json.dumps({**record, "host": "elsewhere"}))
    with pytest.raises(OSError, match=rf"process {holder.pid} on elsewhere$"), locked(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"lend": true}'])
def test_a_file_that_says_nothing_of_use_is_no_reason_to_go_in(tmp_path, holder, content):  # noqa: ARG001
    (tmp_path / ".lock").write_text(content)
    with pytest.raises(OSError, match=r"is in use by another run, which has just started$"), locked(tmp_path):
        pass


def test_of_many_that_begin_at_once_one_has_it(tmp_path):
    """Each of them, when it has it, must be alone with it."""
    code = """
        import random
        print("ready", flush=True)
        sys.stdin.read()
        mine = 0
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            try:
                with locked(Path(sys.argv[1])):
                    inside = Path(sys.argv[1]) / "inside"
                    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                    mine += 1
                    inside.unlink()
            except FileExistsError:
                print("two at once", flush=True)
            except OSError:
                time.sleep(0.001)
        print(mine, flush=True)
    """
    several = [start(code, tmp_path)[0] for _ in range(3)]
    for process in several:
        process.stdin.close()
    outputs = [process.stdout.read().split() for process in several]
    for process in several:
        process.wait()
        process.stdout.close()
    assert all(len(words) == 1 for words in outputs), outputs
    assert sum(int(words[0]) for words in outputs) > 0
    assert list(Path(tmp_path).iterdir()) == []

"""Ctrl-C, kill, and going on: what was done is kept, and the numbers are those of a run that never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from conftest import EVENT, small_vae

from pyro_vae import evidence
from pyro_vae.evidence import progress as progress_module

X = torch.rand(40, *EVENT, generator=torch.Generator().manual_seed(1)).bernoulli()


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


RUNS = {
    "importance": lambda vae, **options: estimate(vae, **options).log_prob,
    "annealed": lambda vae, **options: (
        evidence.annealed(
            vae.model, vae.guide, X, num_chains=4, num_temperatures=2, num_leapfrog=2, chunk_size=20, **options
        ).log_prob
    ),
    "sandwich": lambda vae, **options: (
        evidence.sandwich(
            vae.model, vae.guide, X, num_chains=4, num_temperatures=2, num_leapfrog=2, chunk_size=20, **options
        ).upper
    ),
    "inference gap": lambda vae, **options: (
        evidence.inference_gap(
            vae.model, vae.guide, X, num_samples=10, num_steps=2, num_particles=2, chunk_size=20, **options
        ).best_elbo
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_stopped_twice_ends_as_if_it_had_not_been(vae, tmp_path, name):
    run, file = RUNS[name], tmp_path / "run.pt"
    torch.manual_seed(4)
    expected = run(vae)
    torch.manual_seed(4)
    for blocks in (2, 1):
        with pytest.raises(evidence.Interrupted, match="datapoints were done and are kept in"):
            run(vae, resume=file, progress=stopped_after(blocks))
        torch.manual_seed(123)  # whatever happens between
    seen = []
    result = run(vae, resume=file, progress=lambda blocks: seen.extend(blocks) or blocks)
    assert torch.equal(result, expected)
    assert 0 < sum(map(len, seen)) < len(X)
    # Once done, it is done.
    torch.manual_seed(99)
    assert torch.equal(run(vae, resume=file, progress=stopped_after(0)), expected)


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


def test_an_interrupt_before_anything_was_done_is_an_interrupt(vae, tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:
        estimate(vae, progress=stopped_after(0), resume=tmp_path / "run.pt")
    assert not isinstance(caught.value, evidence.Interrupted)
    assert estimate(vae, resume=tmp_path / "run.pt").log_prob.shape == (40,)


def test_other_chunks_may_finish_what_was_begun(vae, tmp_path):
    file = tmp_path / "run.pt"
    with pytest.raises(evidence.Interrupted):
        estimate(vae, resume=file, progress=stopped_after(3))
    result = estimate(vae, resume=file, chunk_size=150)
    assert result.log_prob.shape == (40,)
    assert result.log_prob.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 31}, "is of another run: num_samples is 30 there and 31 here"),
        ({"other_x": True}, "is of other data or programs"),
        ({"other_vae": True}, "is of other data or programs"),
        ({"proposal": evidence.widened(1.5)}, "is of other data or programs"),
    ],
)
def test_the_file_of_another_run_is_refused(vae, tmp_path, change, message):
    file = tmp_path / "run.pt"
    estimate(vae, resume=file)
    before = file.read_bytes()
    x = 1 - X if change.pop("other_x", False) else X
    if change.pop("other_vae", False):
        torch.manual_seed(77)
        vae = small_vae()
    with pytest.raises(ValueError, match=message):
        evidence.importance(vae.model, vae.guide, x, **{"num_samples": 30, "resume": file} | change)
    assert file.read_bytes() == before


def test_the_file_of_another_method_is_refused(vae, tmp_path):
    estimate(vae, resume=tmp_path / "run.pt")
    with pytest.raises(ValueError, match="samples is 'importance' there and 'annealed' here"):
        evidence.annealed(vae.model, vae.guide, X, resume=tmp_path / "run.pt")


@pytest.mark.parametrize("content", [b"", b"not a file of ours", "cut", "pickle"])
def test_a_file_that_is_none_of_ours_is_refused_and_left_alone(vae, tmp_path, content):
    file = tmp_path / "run.pt"
    if content == "cut":
        estimate(vae, resume=file)
        file.write_bytes(file.read_bytes()[:1000])
    elif content == "pickle":
        torch.save({"format": Path("x")}, file)  # would have to be unpickled
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"run\.pt is not a file that an evidence run was kept in, or is damaged"):
        estimate(vae, resume=file)
    assert file.read_bytes() == before


def test_a_file_that_cannot_be_written_is_found_out_at_once(vae, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        estimate(vae, resume=tmp_path / "nowhere" / "run.pt", progress=stopped_after(0))


SCRIPT = """
    import signal, sys, time, torch
    sys.path.insert(0, {tests!r})
    torch.manual_seed(0)
    from conftest import small_vae
    from test_progress import X
    from pyro_vae import evidence
    from pyro_vae.evidence import progress
    progress.SECONDS_BETWEEN_SAVES = 0.0
    vae = small_vae()
    def slowly(blocks):
        for i, block in enumerate(blocks):
            print(i, flush=True)
            yield block
            time.sleep({pause})
    # Where tests run in the background of a shell it is ignored, and so it would be here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.manual_seed(4)
    result = evidence.importance(
        vae.model, vae.guide, X, num_samples=30, chunk_size=60, resume={file!r}, progress=slowly)
    print(result.log_prob.sum().item())
"""


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_killed_for_real(tmp_path, signal_number):
    def start(file, pause):
        code = textwrap.dedent(SCRIPT.format(tests=str(Path(__file__).parent), file=str(file), pause=pause))
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    file = tmp_path / "run.pt"
    victim = start(file, pause=0.2)
    while victim.stdout.readline().strip() != "3":
        assert victim.poll() is None, victim.stderr.read()
    os.kill(victim.pid, signal_number)
    _, err = victim.communicate(timeout=60)
    assert victim.returncode != 0
    if signal_number == signal.SIGINT:
        assert "datapoints were done and are kept in" in err
    second, whole = start(file, pause=0), start(tmp_path / "other.pt", pause=0)
    outs = [process.communicate(timeout=60)[0].split() for process in (second, whole)]
    assert outs[0][-1] == outs[1][-1]
    assert 5 < len(outs[0]) < len(outs[1])  # some blocks were not done again


def test_it_saves_now_and_then(vae, tmp_path, monkeypatch):
    file, sizes = tmp_path / "run.pt", []
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_SAVES", 0.0)

    def progress(blocks):
        for block in blocks:
            yield block
            sizes.append(len(torch.load(file, weights_only=True)["columns"].get("log_prob", ())))

    estimate(vae, resume=file, progress=progress)
    assert sizes == sorted(sizes)
    assert sizes[3] > 0
    assert not list(tmp_path.glob("*.new"))


def test_the_bar_keeps_quiet_where_nobody_looks(vae, capfd):
    estimate(vae)
    assert capfd.readouterr() == ("", "")


def test_the_bar_shows_in_a_terminal(monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")  # which is how rich is told that it is one
    for _ in progress_module.bar([X, X], "log p(x)"):
        time.sleep(0.15)
    assert "log p(x)" in capfd.readouterr().err

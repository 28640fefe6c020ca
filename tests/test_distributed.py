"""Several processes learn what one learns from the whole batch: ``torchrun`` with two processes on the CPU (gloo)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from new_process import of_two
from pyro.infer import TraceMeanField_ELBO
from train_together import ROWS, new_data, new_vae, train, train_all

TRAIN = Path(__file__).with_name("train_together.py")


NO_NOISE = {"train": "tensor", "no_noise": True, "warm_up": True}
AVERAGED = {**NO_NOISE, "decay": 0.9}


def started(runs: list[dict], processes: int) -> list[dict]:
    """Does the runs in new processes, one after the other."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(TRAIN), json.dumps(runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.strip().splitlines()[-len(runs) :]]


@pytest.fixture(scope="module")
def one() -> dict:
    return train(NO_NOISE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def in_two(folder) -> dict:
    """What two processes make of all kinds of runs."""
    runs = {
        "tensor": NO_NOISE,
        "loader": {**NO_NOISE, "train": "loader"},
        "subsample": {"train": "tensor", "subsample": True},
        "noise": {"train": "tensor"},
        "stream": {"train": "stream"},
        "stopped": {"train": "tensor", "epochs": 2, "fit": {"out": str(folder / "ddp")}},
        "stopped fsdp": {**NO_NOISE, "epochs": 2, "fit": {"strategy": "fsdp", "out": str(folder / "fsdp")}},
        "averaged": AVERAGED,
        "averaged fsdp": {**AVERAGED, "epochs": 2, "fit": {"strategy": "fsdp", "out": str(folder / "averaged")}},
    }
    return dict(zip(runs, started(list(runs.values()), 2), strict=True))


@pytest.fixture(scope="module")
def gone_on(in_two, folder, processes) -> dict:
    """What two new processes make of those that were stopped."""
    assert in_two["stopped"]["history"][-1]["epoch"] == in_two["stopped fsdp"]["history"][-1]["epoch"] == 2
    runs = {
        "ddp": {"train": "tensor", "fit": {"out": str(folder / "ddp"), "resume": True}},
        "fsdp": {**NO_NOISE, "fit": {"strategy": "fsdp", "out": str(folder / "fsdp"), "resume": True}},
        "averaged": {**AVERAGED, "fit": {"strategy": "fsdp", "out": str(folder / "averaged"), "resume": True}},
    }
    return dict(zip(runs, of_two(processes, train_all, list(runs.values())), strict=True))


@pytest.mark.parametrize("data", ["tensor", "loader"])
def test_two_processes_learn_what_one_does(data, one, in_two):
    """Without noise, for it is not the same; with a last batch of one row, warm-up and clipping."""
    one = one if data == "tensor" else train({**NO_NOISE, "train": data})
    two = in_two[data]
    assert (one["size"], two["size"]) == (1, 2)
    assert two["same_weights"]
    for mine, theirs in zip(one["weights"], two["weights"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    for mine, theirs in zip(one["history"], two["history"], strict=True):
        assert mine["step"] == theirs["step"]
        for name in ("train_loss", "kl_weight", "lr"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-9)
        # Validation draws one code for each datapoint; the two differ by their noise.
        assert mine["valid_loss"] == pytest.approx(theirs["valid_loss"], rel=0.1)


def test_the_shares_of_a_subsample_are_averaged(in_two):
    """Each process has a loss that stands for all rows, and so has the whole batch."""
    one, two = train({"train": "tensor", "subsample": True}), in_two["subsample"]
    assert two["same_weights"]
    for mine, theirs in zip(one["weights"], two["weights"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    for mine, theirs in zip(one["history"], two["history"], strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-9)
        assert mine["valid_loss"] == pytest.approx(theirs["valid_loss"], rel=0.1)


def test_with_noise_the_gradient_is_that_of_the_whole_batch(in_two):
    """Two processes with noise of their own, against one that draws the noise of both, one after the other."""
    two = in_two["noise"]
    assert two["same_weights"]
    vae, x = new_vae(), new_data()
    torch.manual_seed(1)
    seed = int(torch.randint(2**31, ()))
    generators = [torch.get_rng_state(), torch.Generator().manual_seed(seed + 1).get_state()]
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2, fused=True)
    losses, last = [], [None, None]
    for epoch in range(3):
        order, total = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed + epoch)), 0.0
        for index in order.split(16):
            optimizer.zero_grad()
            for rank in (0, 1):
                mine = index[rank::2]
                torch.set_rng_state(generators[rank])
                if len(mine):
                    last[rank] = mine
                    total += TraceMeanField_ELBO().loss_and_grads(vae.model, vae.guide, x[mine])
                else:  # it repeats its last batch, which does not count
                    vae.guide(x[last[rank]])
                generators[rank] = torch.get_rng_state()
            optimizer.step()
        losses.append(total / ROWS)
    assert [row["train_loss"] for row in two["history"]] == pytest.approx(losses, rel=1e-9)
    for found, parameter in zip(two["weights"], vae.parameters(), strict=True):
        assert found == pytest.approx(parameter.detach().flatten().tolist(), rel=1e-8, abs=1e-11)


def test_streams_of_different_lengths_end_together(in_two):
    two = in_two["stream"]
    assert two["same_weights"]
    longest = -(-(ROWS * 2 // 3) // 16)
    assert [row["step"] for row in two["history"]] == [longest, 2 * longest, 3 * longest]


def test_evidence_is_shared(one, in_two):
    """Each process estimates its own datapoints, and has them all in the end, in order: 6 standard errors, 97 times."""
    two = in_two["tensor"]
    assert len(two["log_prob"]) == ROWS
    columns = zip(one["log_prob"], two["log_prob"], one["std_error"], two["std_error"], strict=True)
    for a, b, a_error, b_error in columns:
        assert abs(a - b) < 6 * (a_error**2 + b_error**2) ** 0.5
    assert one["log_prob"] != two["log_prob"]


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp"])
def test_fit_starts_processes_by_itself(strategy, one):
    run = {**NO_NOISE, "fit": {"devices": 2, "strategy": strategy}}
    two = train(run) if strategy == "ddp_spawn" else started([run], 1)[0]  # whether it calls a function, or a script
    for mine, theirs in zip(one["weights"], two["weights"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    assert two["size"] == (1 if strategy == "ddp_spawn" else 2)  # whether the others go on with the script


def test_runs_of_several_processes_go_on(in_two, gone_on):
    assert gone_on["ddp"]["weights"] == in_two["noise"]["weights"]


def test_parameters_that_are_spread_learn_the_same_and_are_saved_whole(one, gone_on):
    """FSDP, with resuming, against one process that was not stopped."""
    two = gone_on["fsdp"]
    assert [row["train_loss"] for row in two["history"]] == pytest.approx(
        [row["train_loss"] for row in one["history"]], rel=1e-9
    )
    for mine, theirs in zip(one["weights"], two["weights"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-8, abs=1e-11)


def test_averages_of_weights_are_those_of_one_process(in_two, gone_on):
    """In two processes, and with parameters that are spread over them and a stop, against one process."""
    one = train(AVERAGED)
    assert one["weights"] != train(NO_NOISE)["weights"]
    for two in (in_two["averaged"], gone_on["averaged"]):
        for mine, theirs in zip(one["weights"], two["weights"], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-8, abs=1e-11)

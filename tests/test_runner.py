"""What all estimators have in common: their options, their noise, Ctrl-C, going on from a file, and processes."""

from __future__ import annotations

import inspect
import re
from functools import cache

import pyro
import pytest
import torch
from every_estimator import BAD_INPUTS, NUMBERS, OPTIONS, N, call, error, in_processes, new_data, new_vae, numbers
from new_process import of_two
from pyro import distributions as dist

from pyro_vae import evidence
from pyro_vae.evidence.runner.blocks import FEW, Programs
from pyro_vae.evidence.runner.progress import block_seed
from pyro_vae.system import lock

# What may be another one when a run goes on: it changes no number, or (chunk_size) only which ones are drawn, or
# (budget) how many of them; a certificate is added at the end.
FREE = {"chunk_size", "progress", "compile", "processes", "keep", "budget", "certify"}


def stopped_after(blocks):
    """Ctrl-C after so many blocks."""

    def progress(sequence):
        for i, block in enumerate(sequence):
            if i == blocks:
                raise KeyboardInterrupt
            yield block

    return progress


def with_options():
    """The functions that are public and have a file to resume from."""
    functions = {name: getattr(evidence, name) for name in evidence.__all__}
    return {name for name, each in functions.items() if inspect.isfunction(each) and "keep" in parameters(name)}


def parameters(name):
    return inspect.signature(getattr(evidence, name)).parameters


@cache
def twice(name):
    """What two calls find, one after the other, from one seed on."""
    torch.manual_seed(4)
    return numbers(name), numbers(name)


def test_every_estimator_has_every_option_with_the_same_words():
    """Those of ``estimate``, or a line that says so."""
    assert with_options() == set(OPTIONS)
    as_for_estimate = "    chunk_size, progress, keep, processes: As for :func:`~pyro_vae.evidence.estimate`.\n"
    for option in ("chunk_size", "progress", "keep", "processes"):
        entry = rf"^    {option}: .*\n(?:        .*\n)*"
        words = re.search(entry, inspect.getdoc(evidence.estimate), re.MULTILINE).group()
        for name in OPTIONS:
            assert parameters(name)[option].kind is inspect.Parameter.KEYWORD_ONLY
            text = inspect.getdoc(getattr(evidence, name))
            assert (words in text) != (as_for_estimate in text), name


@pytest.mark.parametrize("name", OPTIONS)
def test_the_noise_is_that_of_one_number_from_the_generator(name):
    torch.manual_seed(4)
    torch.randint(2**63 - 1, ())
    state = torch.get_rng_state()
    torch.manual_seed(4)
    first = numbers(name)
    assert torch.equal(torch.get_rng_state(), state)
    again, second = twice(name)
    assert torch.equal(again, first)
    assert not torch.equal(second, first)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_that_was_stopped_twice_ends_as_if_it_had_not_been(tmp_path, name):
    file = tmp_path / "run"
    expected, _ = twice(name)
    torch.manual_seed(4)
    for blocks in (0, 1, 1):
        with pytest.raises(evidence.Interrupted) as caught:
            call(name, keep=file, progress=stopped_after(blocks))
        torch.manual_seed(123)  # whatever happens between
    assert "datapoints were done and are kept in" in str(caught.value)
    seen = []
    assert torch.equal(numbers(name, keep=file, progress=lambda blocks: seen.extend(blocks) or blocks), expected)
    assert 0 < sum(map(len, seen)) < N
    # Once done, it is done.
    torch.manual_seed(99)
    assert torch.equal(numbers(name, keep=file, progress=stopped_after(0)), expected)
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", OPTIONS)
def test_ctrl_c_has_the_result_so_far(name):
    whole, _ = twice(name)
    torch.manual_seed(4)
    with pytest.raises(evidence.Interrupted, match=rf"^none of {N} datapoints was done$") as caught:
        call(name, progress=stopped_after(0))
    assert caught.value.result is None
    torch.manual_seed(4)
    with pytest.raises(KeyboardInterrupt, match=rf"of {N} datapoints were done$") as caught:
        call(name, progress=stopped_after(2))
    done = int(str(caught.value).split()[0])
    assert 0 < done < N
    partial = NUMBERS[name](caught.value.result)
    if len(whole) == N:
        assert torch.equal(partial, whole[:done])
    else:  # a mean over datapoints
        assert partial.isfinite().all()
        assert not torch.equal(partial, whole)


@pytest.fixture(scope="module")
def in_two(processes, tmp_path_factory):
    """What two processes find, of which the first keeps a file that one process had begun."""
    folder = tmp_path_factory.mktemp("runs")
    for name in OPTIONS:
        torch.manual_seed(4)
        with pytest.raises(evidence.Interrupted):
            call(name, keep=folder / name, progress=stopped_after(1))
    return folder, of_two(processes, in_processes, folder)


@pytest.mark.parametrize("name", OPTIONS)
def test_two_processes_find_the_same_as_one(in_two, name):
    folder, found = in_two
    resumed, second = twice(name)
    assert found[name] == [resumed.double().flatten().tolist(), second.double().flatten().tolist()]
    assert torch.equal(numbers(name, keep=folder / name, progress=stopped_after(0)), resumed)


OTHERS = {  # another value of every argument of every function
    "model": lambda: new_vae(77).model,
    "guide": lambda: new_vae(77).guide,
    "x": lambda: new_data() + 0.1,
    "proposal": lambda: evidence.widened(1.5),
    "log_prob": lambda: torch.full((N,), -1.0),
    "start": lambda: "guide",
    "method": lambda: "guide",
    "lr": lambda: 0.03,
    "max_temperatures": lambda: 17,
    "num_samples": lambda: 31,
    "num_chains": lambda: 5,
    "num_temperatures": lambda: 3,
    "num_leapfrog": lambda: 2,
    "num_steps": lambda: 3,
    "num_particles": lambda: 5,
    "num_draws": lambda: 20,
    "num_marginal": lambda: 21,
    "more": lambda: new_data()[:20] + 0.3,
    "tolerance": lambda: 0.5,
    "max_rounds": lambda: 3,
    "given": lambda: {"z": torch.zeros(2, N, 2)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_whatever_changes_the_result_is_in_the_file(tmp_path, name):
    file = tmp_path / "run"
    call(name, keep=file)
    before = file.read_bytes()
    for argument in set(parameters(name)) - FREE:
        with pytest.raises(ValueError, match=r"run is of (another run|other data or programs).* or delete it$"):
            call(name, keep=file, **{argument: OTHERS[argument]()})
        assert file.read_bytes() == before
    other = next(each for each in OPTIONS if each != name)
    with pytest.raises(ValueError, match=f"function is '{name}' there and '{other}' here"):
        call(other, keep=file)


@pytest.mark.parametrize(("change", "options", "error", "message"), BAD_INPUTS)
@pytest.mark.parametrize("name", OPTIONS)
def test_bad_input_is_named_even_with_validation_off(vae, x, name, change, options, error, message):
    x = change(x)
    if name == "calibrate" and isinstance(x, torch.Tensor) and 0 < len(x) < 50:
        x = torch.cat([x, *[x[:1]] * 50])  # of fewer, their number is what is named
    with pyro.validation_enabled(False), pytest.raises(error, match=message):
        getattr(evidence, name)(vae.model, vae.guide, x, **OPTIONS[name] | options)


def test_a_tensor_counts_by_its_values(tmp_path):
    options = {"log_prob": torch.zeros(N), "keep": tmp_path / "run"}
    call("inference_gap", **options)
    call("inference_gap", **options | {"log_prob": torch.zeros(N)})
    with pytest.raises(ValueError, match=r"log_prob is 'a tensor .* there and 'a tensor"):
        call("inference_gap", **options | {"log_prob": torch.full((N,), 1e-30)})


@pytest.mark.parametrize("n", [1, 7, 50])
def test_the_programs_run_once_in_preparation_and_once_on_a_few_rows(n):
    vae, x, calls = new_vae(), new_data()[:n], []

    def model(x):
        calls.append(("model", len(x)))
        return vae.model(x)

    def guide(x):
        calls.append(("guide", len(x)))
        return vae.guide(x)

    state = torch.get_rng_state()
    programs = Programs(model, guide, x)
    assert sorted(calls) == [("guide", n), ("model", n)]
    assert programs.blocks(n) == (x,)
    assert len(calls) == 2
    for _ in range(2):
        assert len(programs.blocks(3)) == -(-n // 3)
    few = min(FEW, n - 1)
    assert sorted(calls[2:]) == ([("guide", few), ("model", few)] if n > 3 else [])
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_is_kept_of_the_programs_run_but_numbers_of_each_row():
    vae, x = new_vae(), torch.randn(100_000, 4)
    programs = Programs(vae.model, vae.guide, x)
    kept = [each for each in vars(programs).values() if isinstance(each, torch.Tensor) and each is not x]
    kept += programs._last_values.values()
    kept = [each for each in kept if each.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()]
    assert sum(each.untyped_storage().nbytes() for each in kept) <= 2 * 4 * len(x) + 10_000


def test_seeds_of_blocks_are_all_different():
    seeds = {block_seed(seed, first) % 2**32 for seed in range(10) for first in range(100)}
    assert len(seeds) == 1000  # of 32 bits, as torch takes them


def test_the_noise_of_one_block_is_not_that_of_another():
    vae, x = new_vae(), torch.ones(6, 4)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=30, chunk_size=60, progress=iter)
    assert len(result.log_prob.unique()) == 6


def test_a_file_of_draws_from_a_proposal_is_not_one_of_settled_draws(tmp_path):
    file = tmp_path / "run"
    call("to_arviz", keep=file, proposal=evidence.widened(1.5))
    with pytest.raises(ValueError, match="is of another run"):
        call("to_arviz", keep=file)


def impossible_at_33(x):
    """A model under which one datapoint has no probability, in a later block than the first."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        nothing = torch.where(x == 33, -torch.inf, 0.0)
        pyro.sample("broken", dist.Unit(nothing, validate_args=False), obs=x.new_empty(0))


def standard_normal(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros_like(x), torch.ones_like(x)))


@pytest.mark.parametrize("name", ["estimate", "importance", "annealed", "inference_gap", "to_arviz"])
def test_a_datapoint_without_weight_is_named_by_its_place_in_all_data(name):
    x = torch.arange(50.0)
    with pytest.raises(ValueError, match=r"^datapoint 33 has"):
        call(name, model=impossible_at_33, guide=standard_normal, x=x)


def test_a_failure_names_the_datapoint_and_keeps_the_generator():
    torch.manual_seed(4)
    torch.randint(2**63 - 1, ())
    state = torch.get_rng_state()
    torch.manual_seed(4)
    assert error().startswith("datapoint 33 has a weight that is NaN")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_failure_in_one_process_is_one_in_all(in_two):
    assert in_two[1]["errors"] == [error()] * 2


@pytest.mark.parametrize("name", ["calibrate", "check_elbo", "decompose_elbo", "importance"])
def test_programs_run_without_gradients(name):
    """These need none, and a graph of them takes memory. Leaving inference mode would enable them."""
    vae, seen = new_vae(), set()

    def model(x):
        seen.add(torch.is_grad_enabled())
        return vae.model(x)

    call(name, model=model)
    assert seen == {False}


@pytest.mark.parametrize("locks", [True, False])
def test_without_locks_there_are_none(tmp_path, monkeypatch, locks):
    """No file of a lock beside the file of the run, nor an error."""
    if not locks:
        monkeypatch.setattr(lock, "fcntl", None)
    seen = []

    def progress(blocks):
        seen.extend(each.name for each in tmp_path.iterdir())
        return blocks

    assert len(numbers("impute", keep=tmp_path / "run", progress=progress)) == N
    assert (".run.lock" in seen) == (locks and lock.fcntl is not None)

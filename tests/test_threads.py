"""Pyro's handlers and its validation are of the whole process: threads that use the library take turns."""

from __future__ import annotations

import os
import threading

import pyro
import pytest
import torch
from conftest import small_vae
from pyro.infer import Trace_ELBO

from pyro_vae import SVI, evidence, fit
from pyro_vae.infer.losses import ELBO
from pyro_vae.system.threads import in_turn

X = (torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()


def at_once(*functions):
    """What functions return or raise that run in threads of their own."""
    outcomes = [None] * len(functions)
    everybody = threading.Barrier(len(functions))

    def run(i, function):
        everybody.wait()
        try:
            outcomes[i] = function()
        except BaseException as error:
            outcomes[i] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def steps(compile, loss):  # noqa: A002
    vae = small_vae()
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), 1e-2), loss, compile=compile)
    losses = [svi.step(X) for _ in range(12)]
    return losses[-1] < losses[0], svi.evaluate_loss(X) > 0


@pytest.mark.parametrize("compile", [False, "graph"])
def test_every_thread_has_an_svi_of_its_own(compile):  # noqa: A002
    losses = [Trace_ELBO(), ELBO(3), Trace_ELBO(num_particles=2, vectorize_particles=True), ELBO(1)]
    assert at_once(*(lambda loss=loss: steps(compile, loss) for loss in losses)) == [(True, True)] * 4


def test_whatever_runs_programs_takes_its_turn():
    """None fails, or gives what it would not give alone."""
    vae = small_vae()
    programs = vae.model, vae.guide, X
    torch.manual_seed(0)
    outcomes = at_once(
        lambda: fit(small_vae(), X, X[:10], epochs=3, batch_size=10, compile="graph", progress=False).history[-1],
        lambda: fit(small_vae(), X, epochs=3, batch_size=10, compile=False, progress=False).history[-1],
        lambda: evidence.importance(*programs, num_samples=30, chunk_size=60, progress=iter).mean,
        lambda: evidence.check_elbo(*programs, num_particles=30).estimates,
        lambda: evidence.annealed(*programs, num_chains=4, num_temperatures=3, progress=iter).mean,
        lambda: vae.encode(X),
    )
    assert not [each for each in outcomes if isinstance(each, BaseException)], outcomes
    assert torch.equal(outcomes[-1], vae.encode(X))
    alone = evidence.importance(*programs, num_samples=1000).mean
    assert [outcomes[2], outcomes[4]] == pytest.approx([alone, alone], abs=1)
    assert pyro.settings.get("validate_distributions_pyro")
    assert torch.distributions.Distribution._validate_args


def test_a_process_that_is_forked_waits_for_no_thread_of_its_parent():
    begun, done = threading.Event(), threading.Event()

    def hold():
        with in_turn():
            begun.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait()
    if (child := os.fork()) == 0:
        os._exit(0 if in_turn().acquire(timeout=5) else 1)
    done.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

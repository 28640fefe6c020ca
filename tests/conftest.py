"""What all tests share."""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import pyro
import pytest
import torch
from hypothesis import settings
from new_process import IMPORTED

from pyro_vae import VAE, likelihoods, nn, posteriors, priors
from pyro_vae.infer.recording import compiled as compiled_module

# The machines that run this are shared and noisy: no test may depend on the time it takes.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Small tensors gain nothing from threads, which get in each other's way where other programs run too.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
# Inductor would start processes to compile in, each of which imports torch.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

# A parent in the background of a script ignores Ctrl-C, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

EVENT = (1, 4, 4)
LATENT = 2


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores, since tests wait for other processes for a tenth of their time."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Leaves all that was imported out of garbage collections, which would take 8% of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(autouse=True)
def _same_start():
    """Every test begins with the same random state, an empty parameter store and Pyro's default validation."""
    torch.manual_seed(0)
    pyro.clear_param_store()
    with pyro.validation_enabled():
        yield


@pytest.fixture
def float64():
    """The default dtype of one test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def vae() -> VAE:
    return small_vae()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(7, *EVENT).bernoulli()


def small_vae(latent: int = LATENT) -> VAE:
    return VAE(
        priors.StandardNormal(latent),
        likelihoods.Bernoulli(nn.mlp(latent, [8], EVENT)),
        posteriors.Normal(nn.mlp(EVENT, [8], 2 * latent)),
    )


@pytest.fixture
def by_inductor(monkeypatch) -> list:
    """The functions that Inductor has made for :func:`compiled` in this test.

    If Inductor fails, ``compiled`` replays the recorded graph without a warning, and gives the same numbers.
    """
    made, inductor = [], compiled_module.inductor

    def watched(graph, *inputs):
        made.append(inductor(graph, *inputs))
        return made[-1]

    monkeypatch.setattr(compiled_module, "inductor", watched)
    return made


@pytest.fixture
def run_example(monkeypatch, tmp_path_factory):
    """Runs an example as a script, but in this process; ``smaller`` are texts of it to replace, for less work."""
    dtype = torch.get_default_dtype()

    def run(name: str, *arguments: object, smaller: dict[str, str] | None = None) -> None:
        path = EXAMPLES / name
        if smaller:
            source, path = path.read_text(), tmp_path_factory.mktemp("smaller") / name
            for text, other in smaller.items():
                assert source.count(text) == 1
                source = source.replace(text, other)
            path.write_text(source)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(path), run_name="__main__")

    yield run
    torch.set_default_dtype(dtype)


@pytest.fixture(scope="session")
def processes():
    """Makes processes that have imported everything already; see ``new_process.py``."""
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        context.set_forkserver_preload(IMPORTED)
        first = context.Process(target=time.time)
        first.start()
        first.join()
    return context


@pytest.fixture
def literature_data() -> Path:
    """The folder with the literature's data sets, which are not part of the project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PYRO_VAE_DATA", beside))
    if not (folder / "binarized_mnist.npz").is_file():
        pytest.skip(f"no binarized_mnist.npz in {folder}; set PYRO_VAE_DATA to the folder that holds it")
    return folder

"""Every function of evidence that goes through the runner, on one small VAE."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import torch

from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors
from pyro_vae.evidence.estimators import climbing
from pyro_vae.processes import Processes, join
from pyro_vae.weights import terms

N, PIXELS = 50, 4


def new_vae(seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return VAE(
        priors.StandardNormal(2),
        likelihoods.Incomplete(likelihoods.Normal(nn.mlp(2, [8], PIXELS), 1.0)),
        posteriors.Normal(nn.FillMissing(nn.mlp(PIXELS, [8], 4))),
    )


def new_data() -> torch.Tensor:
    x = torch.randn(N, PIXELS, generator=torch.Generator().manual_seed(5))
    return x.masked_fill(x > 1, torch.nan)


PATH = {"num_chains": 4, "num_temperatures": 2, "num_leapfrog": 1, "chunk_size": 68}
OPTIONS = {  # with at least three blocks
    "estimate": {"max_temperatures": 16},
    "importance": {"num_samples": 30, "chunk_size": 300},
    "annealed": PATH,
    "sandwich": PATH,
    "inference_gap": {"num_samples": 10, "num_steps": 2, "num_particles": 30, "max_rounds": 2, "chunk_size": 510},
    "calibrate": {"num_draws": 9, "chunk_size": 90},
    "impute": {"num_samples": 30, "chunk_size": 510},
    "decompose_elbo": {"num_particles": 4, "num_marginal": 20, "chunk_size": 40},
    "check_elbo": {"num_particles": 4, "chunk_size": 40},
    "to_arviz": {"num_draws": 16, "chunk_size": 272},
}
NUMBERS = {
    "estimate": lambda result: result.log_prob,
    "importance": lambda result: result.log_prob,
    "annealed": lambda result: result.log_prob,
    "sandwich": lambda result: result.upper,
    "inference_gap": lambda result: result.best_elbo,
    "calibrate": lambda result: result.ranks["z"].double(),
    "impute": lambda result: result.x,
    "decompose_elbo": lambda result: torch.tensor([result.elbo, result.mutual_information, result.num_datapoints]),
    "check_elbo": lambda result: torch.tensor(list(result.estimates.values())),
    "to_arviz": lambda result: torch.tensor(result.posterior["z"].values).movedim(2, 0),
}


BAD_INPUTS = [  # for images of shape [n, 1, 4, 4] and a Bernoulli likelihood: the data, options, and the error
    (lambda x: x, {"chunk_size": 0}, ValueError, "chunk_size is 0"),
    (lambda x: x[:0], {}, ValueError, "at least one datapoint"),
    (lambda x: x.tolist(), {}, TypeError, "x has batches of"),
    (lambda x: x.double(), {}, TypeError, "x has dtype torch.float64"),
    (lambda x: x[:, :, :3], {}, ValueError, r"expected \[n, 1, 4, 4\]"),
    (lambda x: x.index_fill(0, torch.tensor([5]), torch.nan), {}, ValueError, r"x\[5, 0, 0, 0\] = nan"),
    (lambda x: x + 0.5, {}, ValueError, "outside the support"),
]


def call(name: str, **changes: object) -> object:
    """Calls the function of that name, with some arguments changed."""
    state = torch.get_rng_state()
    vae = new_vae()
    torch.set_rng_state(state)
    arguments = {"model": vae.model, "guide": vae.guide, "x": new_data(), "progress": iter, **OPTIONS[name], **changes}
    with patch.dict(climbing.ROWS, cpu=17):  # otherwise all of these would climb together
        return getattr(evidence, name)(**arguments)


def numbers(name: str, **changes: object) -> torch.Tensor:
    """What such a call gives, ``[n, ...]`` or of all datapoints together."""
    return NUMBERS[name](call(name, **changes))


def broken_at_33(model, guide, x, num_particles, layout):
    """A proposal with weights that are NaN, for one datapoint."""
    drawn = terms(model, guide, x, num_particles, layout)
    is_bad = (x.nan_to_num() == new_data()[33].nan_to_num()).all(-1)
    return drawn._replace(log_posterior=drawn.log_posterior.masked_fill(is_bad, torch.nan))


def error(processes: Processes | None = None) -> str:
    """What that leads to."""
    try:
        call("importance", proposal=broken_at_33, processes=processes)
    except ValueError as error:
        return str(error)
    return "none"


def in_processes(folder: Path) -> dict[str, list]:
    """The numbers of every function in a group of processes, and the errors of each process.

    Of each function, first with a file of its own in the folder, and then without.
    """
    processes = join("cpu")
    found = {}
    for name in OPTIONS:
        torch.manual_seed(4)
        calls = [numbers(name, processes=processes, **more) for more in ({"keep": folder / name}, {})]
        found[name] = [each.flatten().tolist() for each in calls]
    return {**found, "errors": processes.gather(error(processes))}

"""Draws from the posterior by Pyro's NUTS, and draws from the guide in the same shape."""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_sample
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from pyro_vae.evidence.diagnostics.nuts.potential import fast_potential
from pyro_vae.evidence.runner.unscaled import Unscaled
from pyro_vae.system.grad_mode import differentiable, gradients_enabled
from pyro_vae.system.progress import Progress, shown
from pyro_vae.weights import Layout, Program, sample_sites, terms_at, trace_of, trace_pair

Chain = tuple[dict[str, Tensor], list[int]]  # its draws, by site [draws, ...], and the indices of those that diverged


def run_chains(
    model: Program,
    x: Tensor,
    num_samples: int,
    warmup_steps: int,
    num_chains: int,
    progress: Progress,
) -> Iterator[Chain]:
    """Runs the chains one after the other, in this process.

    Pyro's parallel chains need programs that can be pickled, and seed each chain by its number.
    """
    steps = iter(shown(progress, range(num_chains * (warmup_steps + num_samples)), "NUTS"))
    model, x, fast = Unscaled()(model), differentiable(x), None
    for _ in range(num_chains):
        with gradients_enabled():
            start, potential, transforms, _ = initialize_model(model, (x,), init_strategy=init_to_sample)
            fast = fast or fast_potential(potential, start)
            mcmc = MCMC(
                NUTS(potential_fn=fast),
                num_samples=num_samples,
                warmup_steps=warmup_steps,
                initial_params=start,
                transforms=transforms,
                hook_fn=lambda *_: next(steps, None),
                disable_progbar=True,
            )
            mcmc.run()
        yield mcmc.get_samples(), mcmc.diagnostics()["divergences"]["chain 0"]
    next(steps, None)  # so that the bar ends


def guide_draws(guide: Program, x: Tensor, num_draws: int, at_once: int, layout: Layout) -> dict[str, Tensor]:
    """Independent draws from the guide, by site ``[draws, n, ...]``, computed ``at_once`` at a time."""
    parts = []
    with pyro.validation_enabled(False):
        for first in range(0, num_draws, at_once):
            trace = trace_of(guide, x, min(at_once, num_draws - first), layout)
            parts.append({name: layout.by_datapoint(site["value"]) for name, site in sample_sites(trace)})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def check_model(model: Program, guide: Program, x: Tensor, layout: Layout) -> dict[str, int]:
    """Checks that NUTS can sample the model; returns the event dimensions of its latent sites, by name.

    Raises:
        ValueError: If a latent site is discrete, or the log-density is random.
    """
    with pyro.validation_enabled(False):
        model_trace, _ = trace_pair(model, guide, x)
        latent = {name: site["fn"] for name, site in sample_sites(model_trace) if not site["is_observed"]}
        for name, fn in latent.items():
            if fn.support.is_discrete:
                raise ValueError(f"site {name!r} of the model is discrete; NUTS can only sample continuous latents")
        values = {name: layout.by_site(v) for name, v in guide_draws(guide, x, 1, 1, layout).items()}
        one, other = (terms_at(model, guide, x, values, 1, layout) for _ in range(2))
    if not torch.allclose(one.log_likelihood + one.log_prior, other.log_likelihood + other.log_prior, equal_nan=True):
        raise ValueError(
            "the model has another log-density at every call, with the same latents: put its modules into evaluation "
            "mode (.eval()) if they have dropout"
        )
    return {name: fn.event_dim for name, fn in latent.items()}

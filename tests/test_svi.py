"""``pyro_vae.SVI`` is Pyro's ``SVI``: the same losses, parameters and random numbers, step by step, only sooner.

Every law is the same: two runs that begin with the same parameters, seed and data, one of them Pyro's own.
"""

from __future__ import annotations

import copy
import gc
import random
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pyro
import pytest
import torch
from conftest import small_vae
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from pyro import poutine
from pyro.contrib.easyguide import easy_guide
from pyro.contrib.gp.kernels import RBF
from pyro.distributions import constraints
from pyro.infer import (
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceGraph_ELBO,
    JitTraceMeanField_ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    Trace_MMD,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoGuideList, AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.testing import assert_close

from pyro_vae import (
    SVI,
    BottomUp,
    ConditionalVAE,
    HierarchicalVAE,
    SemiSupervisedVAE,
    data,
    likelihoods,
    posteriors,
    priors,
)
from pyro_vae.nn import mlp

PYRO = "Pyro's own"
STEPS = 6  # one runs as it is, one may record, the others replay
LR = 1e-3

close = partial(assert_close, rtol=1e-9, atol=1e-11)


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Program(NamedTuple):
    """Two programs and all that a run of them needs."""

    model: Callable
    guide: Callable
    calls: list[tuple[tuple, dict]]  #: The arguments of each step.
    module: nn.Module = nn.Module()  #: Where parameters and buffers are that Pyro's store does not hold.
    loss: Any = Trace_ELBO()


class Now(NamedTuple):
    """What a user has at hand between steps."""

    i: int  #: The number of the step that comes next.
    module: nn.Module
    optim: Any


class Run(NamedTuple):
    losses: list[float]
    states: list[dict[str, Tensor]]  #: All parameters, unconstrained, and buffers after each step.
    generator: Tensor  #: The state of torch's generator at the end.
    statements: list[int]  #: How many sample statements were executed in each step.


def call(*args, **kwargs) -> tuple[tuple, dict]:
    return args, kwargs


def sgd(_: Program) -> pyro.optim.PyroOptim:
    """With it the parameters tell gradients, which Adam would rescale."""
    return pyro.optim.SGD({"lr": LR})


class ByHand:
    """Pyro's gradients and an optimizer of torch, in a loop as users write it."""

    def __init__(self, model, guide, optim, loss):
        self.model, self.guide, self.optim, self.loss = model, guide, optim, loss

    def step(self, *args, **kwargs):
        loss = self.loss.loss_and_grads(self.model, self.guide, *args, **kwargs)
        self.optim.step()
        self.optim.zero_grad(set_to_none=False)
        return loss


def build_svi(model, guide, optim, loss, mode, **options):
    if mode is PYRO:
        kind = pyro.infer.SVI if isinstance(optim, pyro.optim.PyroOptim) else ByHand
        return kind(model, guide, optim, loss)
    return SVI(model, guide, optim, loss, compile=mode, **options)


def run(build, mode, optim=sgd, loss=None, before=None, **options) -> Run:
    """Runs a program from the beginning; ``before`` is called before each step."""
    begin_anew()
    program = build()
    optim = optim(program)
    svi = build_svi(program.model, program.guide, optim, loss() if loss else program.loss, mode, **options)
    result = Run([], [], torch.tensor(()), [])
    for i, (args, kwargs) in enumerate(program.calls):
        if before is not None:
            before(Now(i, program.module, optim))
        with Statements() as statements:
            result.losses.append(svi.step(*args, **kwargs))
        result.statements.append(statements.number)
        result.states.append(state(program.module))
    return result._replace(generator=torch.get_rng_state())


def begin_anew() -> None:
    pyro.clear_param_store()
    torch.manual_seed(0)


def state(module: nn.Module) -> dict[str, Tensor]:
    tensors = {**module.state_dict(), **dict(pyro.get_param_store().named_parameters())}
    return {name: value.detach().clone() for name, value in tensors.items()}


class Statements:
    """Counts the sample statements that are executed: none, where a recorded step is replayed."""

    def __enter__(self):
        self.number, self.patch = 0, pytest.MonkeyPatch()
        apply = pyro.primitives.apply_stack

        def counted(message):
            self.number += 1
            apply(message)

        self.patch.setattr(pyro.primitives, "apply_stack", counted)
        return self

    def __exit__(self, *_):
        self.patch.undo()


def assert_same(ours: Run, pyros: Run, close=close) -> None:
    close(ours.losses, pyros.losses)
    for mine, theirs in zip(ours.states, pyros.states, strict=True):
        close(mine, theirs)
    assert torch.equal(ours.generator, pyros.generator)


def check(build, mode, recorded=True, replayed=True, **options) -> Run:
    """The law. Returns our run.

    The programs can be ``recorded``, without a warning, and then the last step is ``replayed``, without the programs.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error" if recorded else "ignore", message=".*cannot be recorded")
        ours = run(build, mode, **options)
    pyros = run(build, PYRO, **options)
    assert_same(ours, pyros)
    assert not all(torch.equal(value, ours.states[-1][name]) for name, value in ours.states[0].items())
    if mode and recorded and replayed:
        assert ours.statements[-1] == 0
    return ours


# --- Programs -----------------------------------------------------------------------------------------------------------


def vae(images_per_step: int = 9):
    vae, x = small_vae(), images(images_per_step)
    return Program(vae.model, vae.guide, [call(x)] * STEPS, vae)


def images(n: int) -> Tensor:
    return torch.rand(n, 1, 4, 4).bernoulli()


class Tutorial(nn.Module):
    """As in Pyro's tutorial: ``pyro.module`` and a plate."""

    def __init__(self, between: nn.Module | None = None):
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(2, 5), between or nn.Softplus(), nn.Linear(5, 3))
        self.encoder = nn.Sequential(nn.Linear(3, 5), nn.Softplus(), nn.Linear(5, 4))

    def model(self, x, beta=1.0):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            with poutine.scale(scale=beta):
                z = pyro.sample("latent", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("obs", dist.Normal(self.decoder(z), 0.8).to_event(1), obs=x)

    def guide(self, x, beta=1.0):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]), poutine.scale(scale=beta):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))


def tutorial(between: nn.Module | None = None, calls=None, steps: int = STEPS):
    vae = Tutorial(between)
    return Program(vae.model, vae.guide, calls or [call(torch.randn(6, 3)) for _ in range(steps)], vae)


def dropout():
    return tutorial(nn.Dropout(0.4))


def spectral_norm():
    """A module whose weight is computed, from vectors that it changes in place."""
    return tutorial(nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5)))


def moving_average():
    """A tensor that every run replaces by another one."""

    class Centered(Tutorial):
        center = torch.zeros(())

        def guide(self, x, beta=1.0):
            self.center = 0.9 * self.center + 0.1 * x.mean()
            super().guide(x - self.center, beta)

    vae = Centered()
    return Program(vae.model, vae.guide, [call(torch.randn(6, 3)) for _ in range(STEPS)], vae)


def batch_norm(steps: int = STEPS):
    return tutorial(nn.BatchNorm1d(5), steps=steps)


def annealed():
    """A number that is an argument, and another one at every step."""
    return tutorial(calls=[call(torch.randn(6, 3), beta=beta) for beta in [0.1, 0.2] + [0.1] * 4 + [0.2] * 4])


def annealed_by_a_tensor():
    return tutorial(calls=[call(torch.randn(6, 3), beta=torch.tensor(0.1 * i)) for i in range(1, STEPS)])


class Regression(PyroModule):
    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](3, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        self.noise = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

    def forward(self, x, y):
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, self.noise), obs=y)


class LazyGuide(PyroModule):
    @PyroParam(constraint=constraints.positive)
    def scale(self):
        return torch.rand(1, 3) + 0.1

    @PyroParam
    def loc(self):
        return torch.randn(1, 3)

    def forward(self, *_):
        pyro.sample("linear.weight", dist.Normal(self.loc, self.scale).to_event(2))


def pyro_modules():
    calls = [call(torch.randn(7, 3), torch.randn(7)) for _ in range(STEPS)]
    return Program(Regression(), LazyGuide(), calls)


def autoguide(kind, build=Regression):
    model = build()
    return pyro_modules()._replace(model=model, guide=kind(model))


def params(steps: int = STEPS):
    """Parameters with constraints in both programs, one made at random at the first step; a latent shared by all data."""

    def model(x):
        weights = pyro.param("weights", torch.ones(3) / 3, constraint=constraints.simplex)
        root = pyro.param("root", torch.eye(3), constraint=constraints.lower_cholesky)
        mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        pyro.deterministic("total", mean.sum())
        pyro.factor("soft", -0.1 * mean.square().sum())
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.MultivariateNormal(mean + weights, scale_tril=root), obs=x)

    def guide(_):
        loc = pyro.param("loc", lambda: torch.randn(3))
        scale = pyro.param("scale", torch.full((3,), 0.4), constraint=constraints.interval(0.01, 2.0))
        pyro.sample("mean", dist.Normal(loc, scale).to_event(1))

    return Program(model, guide, [call(torch.randn(8, 3)) for _ in range(steps)])


def score_function(baseline=None):
    """Latents that are not reparameterized: Poisson, and a Bernoulli that depends on it."""

    def model(x):
        rate = pyro.param("rate", torch.tensor(1.5), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Poisson(rate))
            b = pyro.sample("b", dist.Bernoulli(logits=0.3 * k - 0.5))
            pyro.sample("x", dist.Normal(k + 0.5 * b, 0.7), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.3))
        with pyro.plate("data", len(x)):
            infer = {"baseline": baseline} if baseline else {}
            k = pyro.sample("k", dist.Poisson((slope * x).exp()), infer=infer)
            pyro.sample("b", dist.Bernoulli(logits=slope * k))

    return Program(model, guide, [call(torch.randn(5)) for _ in range(STEPS)])


def subsampling():
    x = torch.randn(20)

    def model():
        loc = pyro.param("loc", torch.tensor(0.3))
        with pyro.plate("data", 20, subsample_size=6) as index:
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x[index])

    def guide():
        locs = pyro.param("locs", torch.zeros(20))
        with pyro.plate("data", 20, subsample_size=6) as index:
            pyro.sample("z", dist.Normal(locs[index], 0.5))

    return Program(model, guide, [call()] * STEPS)


def subsampling_by_an_argument():
    """The other form: the batch itself is the subsample of a plate of 20, which scales the loss."""

    def model(x):
        loc = pyro.param("loc", torch.tensor(0.3))
        with pyro.plate("data", 20, subsample=x) as batch:
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=batch)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.1))
        with pyro.plate("data", 20, subsample=x) as batch:
            pyro.sample("z", dist.Normal(slope * batch, 0.5))

    return Program(model, guide, [call(torch.randn(6)) for _ in range(STEPS)])


def two_latents(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, scale), obs=x)


def of_two_latents(guide: Callable):
    return Program(two_latents, guide, [call(torch.randn(6)) for _ in range(STEPS)])


def list_of_autoguides():
    guide = AutoGuideList(two_latents)
    guide.append(AutoNormal(poutine.block(two_latents, expose=["loc"])))
    guide.append(AutoDelta(poutine.block(two_latents, expose=["scale"])))
    return of_two_latents(guide)


def easy():
    @easy_guide(two_latents)
    def guide(self, _):
        group = self.group(match="loc|scale")
        loc = pyro.param("mean", torch.zeros(group.event_shape))
        root = pyro.param("root", 0.3 * torch.eye(*group.event_shape, 2), constraint=constraints.lower_cholesky)
        group.sample("both", dist.MultivariateNormal(loc, scale_tril=root))

    return of_two_latents(guide)


def masks_and_scales():
    """Some of the values count, and those three times; the mask is of the data."""

    def model(x):
        z = pyro.sample("z", dist.Normal(pyro.param("prior", torch.tensor(0.2)), 1.0))
        with pyro.plate("data", len(x)), poutine.mask(mask=x > -0.5), poutine.scale(scale=3.0):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.sample("y", dist.Normal(2 * z, 1.0).mask(x < 1), obs=x)

    def guide(_):
        with poutine.scale(scale=0.7):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.5))

    return Program(poutine.scale(model, scale=0.7), guide, [call(torch.randn(8)) for _ in range(STEPS)])


def tensor_monte_carlo():
    def model(x):
        z = pyro.sample("z", dist.Normal(pyro.param("prior", torch.tensor(0.2)), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    @config_enumerate(default="parallel", num_samples=5, expand=False)
    def guide(_):
        scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), scale))

    return Program(model, guide, [call(torch.randn(6)) for _ in range(STEPS)], loss=TraceTMC_ELBO(max_plate_nesting=1))


def hierarchical():
    posterior = BottomUp([posteriors.Normal(mlp(4, [8], 6)), posteriors.Normal(mlp(3, [8], 4))])
    likelihood = likelihoods.Bernoulli(mlp(3, [8], 4))
    vae = HierarchicalVAE(priors.StandardNormal(2), [posteriors.Normal(mlp(2, [], 6))], likelihood, posterior)
    return Program(vae.model, vae.guide, [call(vae.sample(8)) for _ in range(STEPS)], vae)


def parts_with_classes():
    return priors.StandardNormal(2), likelihoods.Bernoulli(mlp(5, [8], 4)), posteriors.Normal(mlp(7, [8], 4))


def conditional():
    vae = ConditionalVAE(*parts_with_classes(), conditions=3)
    y = one_hot(torch.arange(9) % 3, 3).to(torch.get_default_dtype())
    return Program(vae.model, vae.guide, [call(vae.sample(y), y=y.roll(i, 0)) for i in range(STEPS)], vae)


def semi_supervised():
    """With and without labels: other programs for other arguments."""
    vae = SemiSupervisedVAE(*parts_with_classes(), classifier=mlp(4, [8], 3), classes=3)
    labels = torch.arange(9) % 3
    calls = [call(vae.sample(labels), **kwargs) for kwargs in ({}, {"y": labels}) for _ in range(4)]
    return Program(vae.model, vae.guide, calls, vae, TraceEnum_ELBO(max_plate_nesting=1))


def enumerated():
    """A mixture of two, learned with its classes summed out in the model."""

    @pyro.infer.config_enumerate
    def model(x):
        weights = pyro.param("weights", torch.tensor([0.3, 0.7]), constraint=constraints.simplex)
        locs = pyro.param("locs", torch.tensor([-1.0, 1.0]))
        with pyro.plate("data", len(x)):
            label = pyro.sample("label", dist.Categorical(weights))
            pyro.sample("x", dist.Normal(locs[label], 1.0), obs=x)

    def guide(_):
        pass

    calls = [call(torch.randn(6)) for _ in range(STEPS)]
    return Program(model, guide, calls, loss=TraceEnum_ELBO(max_plate_nesting=1))


def heads():
    """A word says which part of a module is used; both are declared, so that optimizers see gradients of zero."""
    module = nn.ModuleDict({"left": nn.Linear(2, 2), "right": nn.Linear(2, 2)})

    def model(x, head):
        pyro.module("heads", module)
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(module[head](z), 1.0).to_event(1), obs=x)

    def guide(_, head):
        loc = pyro.param(f"loc of {head}", torch.zeros(2))
        pyro.sample("z", dist.Normal(loc, 0.5).to_event(1))

    words = ["left"] * 4 + ["right"] * 4 + ["left", "right"] * 2
    return Program(model, guide, [call(torch.randn(4, 2), head=word) for word in words], module)


def many_kinds_of_arguments():
    """Tensors in lists and dicts, numbers, words, flags, None."""

    def model(xs, options, nothing, *, scales, flag):
        loc = pyro.param("loc", torch.tensor(0.1))
        assert nothing is None
        with poutine.mask(mask=options["mask"]):
            for i in range(len(xs)):
                mean = loc * options["power"] if flag == "yes" else loc
                with pyro.plate(f"data {i}", len(xs[i])):
                    pyro.sample(f"x {i}", dist.Normal(mean, scales[i]), obs=xs[i])

    def guide(*args, **kwargs):
        pass

    def arguments(i, flag):
        xs, options = [torch.randn(4), torch.randn(4)], {"mask": torch.arange(4) != i, "power": 2}
        return call(xs, options, None, scales=(0.5, 1.0), flag=flag)

    return Program(model, guide, [arguments(i, flag) for flag in ("yes", "no", "yes") for i in range(4)])


def sequential_plate():
    """A plate as a loop, with a latent in each turn."""

    def model(x):
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z{i}", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))
            pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=x[i])

    def guide(x):
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z{i}", dist.Normal(0.5 * x[i], pyro.param("scale", torch.tensor(0.5))))

    return Program(model, guide, [call(torch.randn(3)) for _ in range(STEPS)])


def arrays():
    """Arguments that only their program can tell apart."""
    program = tutorial(calls=[call(torch.randn(6, 3), beta=np.array([0.1, 0.2])) for _ in range(STEPS)])
    return program._replace(
        model=lambda x, beta: program.model(x, beta.sum()), guide=lambda x, beta: program.guide(x, beta.sum())
    )


PROGRAMS = {
    "VAE": vae,
    "tutorial": tutorial,
    "dropout": dropout,
    "BatchNorm": batch_norm,
    "spectral norm": spectral_norm,
    "annealed": annealed,
    "annealed by a tensor": annealed_by_a_tensor,
    "PyroModules": pyro_modules,
    "AutoNormal": partial(autoguide, AutoNormal),
    "AutoDiagonalNormal": partial(autoguide, AutoDiagonalNormal),
    "AutoMultivariateNormal": partial(autoguide, AutoMultivariateNormal),
    "AutoGuideList": list_of_autoguides,
    "easyguide": easy,
    "params": params,
    "score function": score_function,
    "subsampling": subsampling,
    "subsampling by an argument": subsampling_by_an_argument,
    "masks and scales": masks_and_scales,
    "TraceTMC_ELBO": tensor_monte_carlo,
    "HierarchicalVAE": hierarchical,
    "ConditionalVAE": conditional,
    "SemiSupervisedVAE": semi_supervised,
    "enumerated": enumerated,
    "heads": heads,
    "many kinds of arguments": many_kinds_of_arguments,
    "sequential plate": sequential_plate,
}


def test_tensors_that_are_replaced_in_every_run():
    check(moving_average, "graph", recorded=False)


def test_one_tensor_for_two_arguments_and_then_two():
    def build():
        def model(x, y):
            loc = pyro.param("loc", torch.tensor(0.5))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(loc, 1.0), obs=x)
                pyro.sample("y", dist.Normal(2 * loc, 1.0), obs=y)

        one, *others = torch.randn(9, 4)
        return Program(model, lambda *_: None, [call(one, one)] * 4 + [call(one, other) for other in others])

    check(build, "graph")


def test_arguments_that_cannot_be_compared_run_as_in_pyro():
    check(arrays, "graph", replayed=False)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_runs_as_in_pyro(program, mode):
    """All but plates that are loops, whose numbers Pyro takes from tensors, are recorded."""
    check(PROGRAMS[program], mode, recorded=program != "sequential plate")


def by_hand(model, guide, *args, **kwargs):
    """A loss as in Pyro's tutorial on custom ELBOs."""
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    return guide_trace.log_prob_sum() - model_trace.log_prob_sum()


LOSSES = {
    "TraceMeanField_ELBO": TraceMeanField_ELBO,
    "several particles": partial(Trace_ELBO, num_particles=2),
    "vectorized particles": partial(Trace_ELBO, num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    "vectorized, nesting guessed": partial(TraceMeanField_ELBO, num_particles=3, vectorize_particles=True),
    "RenyiELBO": partial(RenyiELBO, alpha=0, num_particles=3),
    "RenyiELBO, vectorized": partial(
        RenyiELBO, alpha=0.5, num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
    "TraceGraph_ELBO": TraceGraph_ELBO,
    "TraceTailAdaptive_ELBO": partial(
        TraceTailAdaptive_ELBO, num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
    "Trace_MMD": lambda: Trace_MMD(RBF(2, lengthscale=torch.tensor(1.0)), num_particles=3, max_plate_nesting=1),
    "JitTrace_ELBO": partial(JitTrace_ELBO, ignore_jit_warnings=True),
    "JitTraceEnum_ELBO": partial(JitTraceEnum_ELBO, max_plate_nesting=1, ignore_jit_warnings=True),
    "a function": lambda: by_hand,
}
JIT = {name: LOSSES[name] for name in LOSSES if name.startswith("Jit")}
JIT["JitTraceGraph_ELBO"] = partial(JitTraceGraph_ELBO, ignore_jit_warnings=True)
JIT["JitTraceMeanField_ELBO"] = partial(JitTraceMeanField_ELBO, ignore_jit_warnings=True)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_as_in_pyro(loss, mode):
    check(vae, mode, loss=LOSSES[loss])


@pytest.mark.parametrize("loss", JIT)
def test_losses_that_trace_on_uneven_batches(loss):
    """Not all can be recorded, as what torch.jit traces anew at every step; but nothing is broken by the attempt."""

    def build():
        return tutorial(calls=[call(torch.randn(size, 3)) for size in (6, 6, 6, 4, 6, 1, 4)])

    check(
        build,
        "graph",
        recorded=loss not in ("JitTraceGraph_ELBO", "JitTraceMeanField_ELBO"),
        replayed=False,
        loss=JIT[loss],
    )
    assert torch.jit.trace(torch.sin, torch.ones(2))(torch.zeros(2)).sum() == 0


@pytest.mark.parametrize("mode", ["graph", False])
def test_losses_of_latents_without_reparameterization(mode):
    check(score_function, mode, loss=TraceGraph_ELBO)
    decaying = partial(score_function, {"use_decaying_avg_baseline": True, "baseline_beta": 0.8})
    check(decaying, mode, recorded=False, loss=TraceGraph_ELBO)  # Python keeps the average: both ways are right


@pytest.mark.parametrize("mode", ["graph", False])
def test_a_loss_of_two_numbers(mode):
    """Wake-sleep gives a pair, and has gradients of a kind of its own."""
    loss = partial(ReweightedWakeSleep, num_particles=2, vectorize_particles=False)
    check(vae, mode, recorded=False, loss=loss)


@pytest.mark.parametrize(("program", "loss"), [("VAE", TraceMeanField_ELBO), ("dropout", Trace_ELBO)])
def test_compiled_runs_as_in_pyro_and_twice_the_same(program, loss):
    ours = check(PROGRAMS[program], True, loss=loss)
    again = run(PROGRAMS[program], True, loss=loss)
    assert again.losses == ours.losses
    assert_close(again.states, ours.states, rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["graph", False])
def test_the_same_seed_gives_the_same_bits(mode):
    first, second = (run(dropout, mode) for _ in range(2))
    assert first.losses == second.losses
    assert_close(first.states, second.states, rtol=0, atol=0)


def float32(mode, **options) -> Run:
    torch.set_default_dtype(torch.float32)
    with pyro.validation_enabled(False):
        return run(partial(vae, images_per_step=100), mode, **options)


def test_float32_without_validation():
    """To rounding: float32 has 7 digits, and a loss sums thousands of terms."""
    assert_same(float32("graph"), float32(PYRO), close=partial(assert_close, rtol=1e-5, atol=1e-5))


def test_bfloat16_is_close_and_parameters_are_float32():
    """Products of numbers with 3 digits; the loss is a sum of many, whose errors mostly cancel."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no instructions for bfloat16")
    ours, pyros = float32("graph", precision="bfloat16"), float32(PYRO)
    assert ours.losses != pyros.losses
    assert_close(ours.losses, pyros.losses, rtol=2e-3, atol=0)
    assert {value.dtype for value in ours.states[-1].values()} == {torch.float32}
    assert torch.equal(ours.generator, pyros.generator)


def test_auto_runs_as_in_pyro():
    check(tutorial, "auto")


# --- Optimizers ---------------------------------------------------------------------------------------------------------


def per_parameter(name: str) -> dict:
    return {"lr": 0.02 if "decoder" in name else 0.001}


def clip_per_parameter(_: str, name: str) -> dict:
    return {"clip_norm": 0.5} if "weight" in name else {"clip_value": 0.1}


PYRO_OPTIMIZERS = {
    "Adam": lambda: pyro.optim.Adam({"lr": 0.01}),
    "Adam, clipped": lambda: pyro.optim.Adam({"lr": 0.01}, {"clip_norm": 1.0}),
    "Adam, fused": lambda: pyro.optim.Adam({"lr": 0.01, "fused": True}),
    "AdamW": lambda: pyro.optim.AdamW({"lr": 0.01, "weight_decay": 0.1}),
    "AdagradRMSProp": lambda: pyro.optim.AdagradRMSProp({"eta": 0.1}),
    "ClippedAdam per parameter": lambda: pyro.optim.ClippedAdam(
        lambda name: {"lr": 0.02 if "decoder" in name else 0.001, "clip_norm": 0.5 if "weight" in name else 10.0}
    ),
    "ClippedAdam": lambda: pyro.optim.ClippedAdam({"lr": 0.01, "clip_norm": 0.5, "lrd": 0.9}),
    "SGD": lambda: pyro.optim.SGD({"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
    "per parameter": lambda: pyro.optim.Adam(per_parameter),
    "clipped per parameter": lambda: pyro.optim.SGD({"lr": 0.01}, clip_per_parameter),
}


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("optim", PYRO_OPTIMIZERS)
def test_every_optimizer_of_pyro(optim, mode):
    check(tutorial, mode, optim=lambda _: PYRO_OPTIMIZERS[optim]())


TORCH_OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, lr=0.01),
    "Adam, fused": partial(torch.optim.Adam, lr=0.01, fused=True),
    "Adam, one by one": partial(torch.optim.Adam, lr=0.01, foreach=False),
    "AdamW": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1, amsgrad=True),
    "SGD": partial(torch.optim.SGD, lr=1e-3, momentum=0.9),
    "RMSprop": partial(torch.optim.RMSprop, lr=1e-3),
    "learning rate of a tensor": lambda parameters: torch.optim.Adam(parameters, lr=torch.tensor(0.01), foreach=False),
}


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("optim", TORCH_OPTIMIZERS)
def test_every_optimizer_of_torch(optim, mode):
    check(tutorial, mode, optim=lambda program: TORCH_OPTIMIZERS[optim](program.module.parameters()))


def test_parameters_that_only_the_optimizer_of_torch_knows():
    """Gradients reach whatever the loss depends on, whether a statement of Pyro declares it or not."""

    def build():
        linear = nn.Linear(3, 3)

        def model(x):
            scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(linear(z), scale).to_event(1), obs=x)

        def guide(_):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(3)), 0.5).to_event(1))

        return Program(model, guide, [call(torch.randn(4, 3)) for _ in range(STEPS)], linear)

    check(build, "graph", optim=lambda program: torch.optim.Adam(program.module.parameters(), lr=0.01))


def groups(program: Program) -> torch.optim.Optimizer:
    first = {"params": program.module.decoder.parameters(), "lr": 0.02}
    return torch.optim.Adam([first, {"params": program.module.encoder.parameters(), "weight_decay": 0.1}], lr=0.001)


def test_groups_of_parameters():
    check(tutorial, "graph", optim=groups)


PYRO_SCHEDULERS = {
    "ExponentialLR": lambda: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.01}, "gamma": 0.5}
    ),
    "OneCycleLR": lambda: pyro.optim.OneCycleLR(
        {
            "optimizer": torch.optim.SGD,
            "optim_args": {"lr": 0.01},
            "max_lr": 0.1,
            "total_steps": 10,
            "cycle_momentum": False,
        }
    ),
}


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("optim", PYRO_SCHEDULERS)
def test_schedules_of_pyro(optim, mode):
    def each_epoch(now):
        if now.i and now.i % 2 == 0:
            now.optim.step()

    check(tutorial, mode, optim=lambda _: PYRO_SCHEDULERS[optim](), before=each_epoch)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("fused", [False, True])
def test_schedules_of_torch(fused, mode):
    schedules = []

    def rate_of_each_step(now):
        if now.i == 0:
            schedules.append(torch.optim.lr_scheduler.LinearLR(now.optim, 1.0, 0.1, 4))
        else:
            schedules[-1].step()

    def adam(program):
        return torch.optim.Adam(program.module.parameters(), lr=0.02, fused=fused)

    check(tutorial, mode, optim=adam, before=rate_of_each_step)


def test_a_rate_that_is_set_by_hand():
    def set_rates(now):
        for optim in now.optim.optim_objs.values():
            optim.param_groups[0]["lr"] = 0.1 / (now.i + 1)

    check(tutorial, "graph", optim=lambda _: pyro.optim.Adam({"lr": 0.01}), before=set_rates)


@pytest.mark.parametrize("mode", ["graph", False])
def test_the_state_of_an_optimizer_of_pyro_is_saved_and_set(mode, tmp_path):
    """In the middle of a run, the state after step 1 is set: Pyro takes it up for parameters it has not seen."""

    def go_on(now):
        if now.i == 2:
            now.optim.save(tmp_path / "optim")
        if now.i == 4:
            now.optim.load(tmp_path / "optim")
            now.optim.optim_objs.clear()

    check(tutorial, mode, optim=lambda _: pyro.optim.Adam({"lr": 0.01}), before=go_on)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("fused", [False, True])
def test_the_state_of_an_optimizer_of_torch_is_saved_and_loaded(fused, mode):
    saved = []

    def go_on(now):
        if now.i == 2:
            saved.append(copy.deepcopy(now.optim.state_dict()))
        if now.i == 4:
            now.optim.load_state_dict(saved.pop())

    def adam(program):
        return torch.optim.Adam(program.module.parameters(), lr=0.02, fused=fused)

    check(tutorial, mode, optim=adam, before=go_on)


def test_a_saved_state_is_that_of_pyro():
    """The state after a run, for whatever goes on from it: names, shapes, steps, moments."""
    states = []
    for mode in ("graph", PYRO):
        adam = pyro.optim.Adam({"lr": 0.01})
        run(tutorial, mode, optim=lambda _, adam=adam: adam)
        states.append({name: one["state"][0] for name, one in adam.get_state().items()})
    close(*states)
    assert float(next(iter(states[0].values()))["step"]) == STEPS


# --- What changes between steps -----------------------------------------------------------------------------------------


@settings(max_examples=6)
@given(sizes=st.lists(st.sampled_from([1, 2, 5]), min_size=4, max_size=9))
def test_batches_of_any_sizes_in_any_order(sizes):
    check(lambda: tutorial(calls=[call(torch.randn(size, 3)) for size in sizes]), "graph", replayed=False)


def switch_mode(now):
    now.module.train(now.i in (0, 1, 2, 6, 7, 8))


def freeze(now):
    now.module.decoder.requires_grad_(now.i not in (3, 4, 5))


def load_weights(now):
    if now.i == 3:
        now.module.load_state_dict({k: 0.5 * v for k, v in now.module.state_dict().items()})


def rebind_data(now):
    if now.i == 3:
        for parameter in now.module.parameters():
            parameter.data = 0.5 * parameter.data


def earlier_gradients(now):
    """Gradients of another loss, which a step adds its own to."""
    if now.i == 4:
        sum(parameter.square().sum() for parameter in now.module.parameters()).backward()


def clear_store(now):
    if now.i == 3:
        pyro.clear_param_store()


def load_store(now, folder):
    if now.i == 2:
        pyro.get_param_store().save(folder / "store")
    if now.i == 4:
        pyro.get_param_store().load(folder / "store")


def swap_part(now):
    if now.i == 5:
        now.module.likelihood = small_vae().likelihood


class Direct(Tutorial):
    """A module that is never called: its flags, numbers and parameters are used where they stand."""

    def __init__(self, beta):
        super().__init__()
        self.offset, self.beta = nn.Parameter(torch.zeros(3)), beta

    def model(self, x):
        pyro.module("all", self)
        super().model(x, self.beta)

    def guide(self, x):
        super().guide(nn.functional.dropout(x + self.offset, 0.3, self.training), self.beta)


def direct(beta=1.0, steps=9):
    vae = Direct(beta)
    return Program(vae.model, vae.guide, [call(torch.randn(6, 3)) for _ in range(steps)], vae)


def set_a_number(now):
    """How most schedules of beta are written."""
    now.module.beta = 0.1 if now.i < 4 else 0.5


def set_a_tensor(now):
    if now.i == 4:
        now.module.beta = torch.linspace(0.1, 0.6, 6)


def fill_a_tensor(now):
    now.module.beta.fill_(0.1 + 0.1 * now.i)


def freeze_offset(now):
    now.module.offset.requires_grad_(now.i not in (3, 4, 5))


def ten():
    vae, x = small_vae(), images(9)
    return Program(vae.model, vae.guide, [call(x)] * 10, vae)


def nine():
    return tutorial(nn.Dropout(0.3), steps=9)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize(
    ("program", "before"),
    [
        (nine, switch_mode),
        (partial(batch_norm, 9), switch_mode),
        (nine, freeze),
        (ten, swap_part),
        (direct, set_a_number),
        (direct, set_a_tensor),
        (lambda: direct(torch.ones(6)), set_a_tensor),
        (lambda: direct(torch.tensor(1.0)), fill_a_tensor),
        (partial(direct, steps=18), switch_mode),
        (direct, freeze_offset),
        (vae, load_weights),
        (vae, rebind_data),
        (nine, earlier_gradients),
        (partial(params, 9), clear_store),
        (nine, clear_store),
        (vae, clear_store),
        (partial(params, 9), load_store),
    ],
)
def test_changes_between_steps_are_seen(program, before, mode, tmp_path):
    if before is load_store:
        before = partial(load_store, folder=tmp_path)
    check(program, mode, before=before, optim=lambda _: pyro.optim.SGD({"lr": LR, "momentum": 0.9}))


@pytest.mark.parametrize("mode", ["graph", False])
def test_attributes_of_svi_can_be_set(mode):
    """A model, a guide, an optimizer and a loss that take the place of those it was made with."""

    def train(mode):
        begin_anew()
        one, other, x = small_vae(), small_vae(), images(5)
        svi = build_svi(one.model, one.guide, sgd(None), Trace_ELBO(), mode)
        losses = [svi.step(x) for _ in range(5)]
        svi.optim = pyro.optim.Adam({"lr": 0.01})
        losses += [svi.step(x) for _ in range(5)]
        svi.model, svi.guide = other.model, other.guide
        losses += [svi.step(x) for _ in range(5)]
        svi.loss_and_grads = TraceMeanField_ELBO().loss_and_grads
        losses += [svi.step(x) for _ in range(5)]
        return losses, one.state_dict(), other.state_dict()

    close(train(mode), train(PYRO))


def test_a_frozen_part_stays_as_it_is():
    vae, x = small_vae(), images(5)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(), compile="graph")
    for _ in range(4):
        svi.step(x)
    vae.likelihood.requires_grad_(False)
    before = copy.deepcopy(vae.state_dict())
    for _ in range(4):
        svi.step(x)
    assert all(torch.equal(before[name], value) == ("likelihood" in name) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("mode", ["graph", False])
def test_hooks_of_parameters_are_called_at_every_step(mode):
    seen: list[Tensor] = []

    def hook(now):
        if now.i == 2:
            now.module.decoder[0].weight.register_hook(lambda grad: 0.1 * grad)
            now.module.encoder[0].weight.register_hook(lambda grad: seen.append(grad.clone()))

    ours = run(nine, mode, before=hook)
    our_gradients = seen[:]
    seen.clear()
    assert_same(ours, run(nine, PYRO, before=hook))
    assert len(our_gradients) == len(seen) == 7
    close(our_gradients, seen)


def test_hooks_on_unconstrained_parameters_as_in_pyros_tutorials():
    """Pyro's examples look at gradients by hooks set after one step."""
    norms: list[float] = []

    def hook(now):
        if now.i == 1:
            for value in pyro.get_param_store().values():
                value.unconstrained().register_hook(lambda grad: norms.append(grad.norm().item()))

    ours = run(params, "graph", before=hook)
    our_norms = sorted(norms)
    norms.clear()
    assert_same(ours, run(params, PYRO, before=hook))
    close(our_norms, sorted(norms))


@pytest.mark.parametrize("mode", ["graph", False])
def test_handlers_around_a_step(mode):
    """Effect handlers act on a step as on Pyro's, also on one recorded without them."""

    def train(mode):
        begin_anew()
        program = tutorial(calls=[call(torch.randn(6, 3))])
        (x,), _ = program.calls[0]
        svi = build_svi(program.model, program.guide, sgd(program), Trace_ELBO(), mode)
        losses = [svi.step(x) for _ in range(4)]
        for _ in range(4):
            with poutine.scale(scale=0.5):
                losses.append(svi.step(x))
        losses.append(svi.step(x))
        return losses, program.module.state_dict()

    close(train(mode), train(PYRO))


@pytest.mark.parametrize("first", [True, False])
def test_autocast_around_a_step(first):
    """Torch's own mixed precision, for some of the steps; the losses of both runs are those of the same operations."""

    def train(mode):
        begin_anew()
        vae, x = small_vae().float(), images(20).float()
        svi = build_svi(vae.model, vae.guide, sgd(None), Trace_ELBO(), mode)
        losses = []
        for autocast in [first] * 5 + [not first] * 5:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                losses.append(svi.step(x))
        return losses

    assert_close(train("graph"), train(PYRO), rtol=1e-5, atol=0)


def test_a_trace_around_a_step_sees_its_parameters():
    vae, x = small_vae(), images(5)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(), compile="graph")
    for _ in range(5):
        with poutine.trace(param_only=True) as traced:
            svi.step(x)
        assert set(traced.trace.nodes) == {name for name, _ in vae.named_parameters()}


# --- Programs that cannot be recorded -----------------------------------------------------------------------------------


def with_loc(change: Callable[[Tensor, Tensor], Any]) -> Callable[[], Program]:
    """A program whose mean is ``change(loc, x)``."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(change(pyro.param("loc", torch.tensor(0.2)), x) + z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, pyro.param("scale", torch.tensor(0.5))))

    signs = (1, 1, -1, 1, -1, -1, 1, 1)
    return lambda: Program(model, guide, [call(sign * torch.rand(5)) for sign in signs])


HARD = {
    "structure": lambda loc, x: loc.exp() if x.sum() > 0 else -loc,
    "item": lambda loc, x: loc * int(x.sum().item() > 0),
    "Python's noise": lambda loc, _: loc * random.random(),
    "numpy's noise": lambda loc, _: loc * np.random.rand(),  # noqa: NPY002
    "numpy": lambda loc, x: loc * torch.from_numpy(np.sin(x.numpy())),
}


@pytest.mark.parametrize("hard", HARD)
def test_what_cannot_be_recorded_runs_as_it_is(hard):
    def seed(now):
        random.seed(now.i)
        np.random.seed(now.i)  # noqa: NPY002

    with pytest.warns(UserWarning, match="cannot be recorded") as caught:
        ours = run(with_loc(HARD[hard]), "graph", before=seed)
    assert len([one for one in caught if "cannot be recorded" in str(one.message)]) == 1
    assert_same(ours, run(with_loc(HARD[hard]), PYRO, before=seed))


def test_a_program_that_counts_its_runs():
    """It may be run more often, to try whether it can be recorded, but then once a step as in Pyro."""
    seen: list[int] = []
    counter = count()

    def counts(loc, _):
        seen.append(next(counter))
        return loc * seen[-1]

    with pytest.warns(UserWarning, match="cannot be recorded"):
        result = run(with_loc(counts), "graph")
    assert seen[-4:] == list(range(seen[-1] - 3, seen[-1] + 1))
    assert all(result.statements)


# --- Several in one process ---------------------------------------------------------------------------------------------


def test_two_of_the_same_names_in_turn():
    def train(mode, together):
        begin_anew()
        vaes, x = [small_vae(), small_vae(), small_vae()][: 2 if together else None], images(5)
        svis = [build_svi(vae.model, vae.guide, sgd(None), Trace_ELBO(), mode) for vae in vaes]
        return [[svi.step(x) for svi in svis] for _ in range(STEPS)], [vae.state_dict() for vae in vaes]

    for together in (True, False):
        close(train("graph", together), train(PYRO, together))


def test_parameters_without_a_gradient_for_a_while_keep_their_moments():
    """As long as a parameter has had a gradient once, Pyro steps it by zero: Adam goes on with its moments."""
    check(heads, "graph", optim=lambda _: pyro.optim.Adam({"lr": 0.01}))
    words = ["left", "right", "left", "left", "right", "right"] + ["left"] * 4
    one = heads()
    in_turn = [call(*args, head=word) for (args, _), word in zip(one.calls, words, strict=False)]
    check(lambda: heads()._replace(calls=in_turn), "graph", optim=lambda _: pyro.optim.Adam({"lr": 0.01}))


def test_losses_that_share_an_optimizer():
    """Semi-supervised: three pairs of programs, one optimizer, whose moments all of them advance."""

    def train(mode):
        begin_anew()
        vae = semi_supervised().module
        labels, optim = torch.arange(6) % 3, pyro.optim.Adam({"lr": 0.01})
        x = vae.sample(labels)
        enumerate_ = TraceEnum_ELBO(max_plate_nesting=1)
        unlabelled = build_svi(vae.model, vae.guide, optim, enumerate_, mode)
        labelled = build_svi(vae.model, vae.guide, optim, Trace_ELBO(), mode)
        classified = build_svi(vae.label_model, vae.label_guide, optim, Trace_ELBO(), mode)
        losses = [(unlabelled.step(x), labelled.step(x, labels), classified.step(x, labels)) for _ in range(4)]
        return losses, vae.state_dict()

    close(train("graph"), train(PYRO))


# --- Other ways to step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["graph", False])
def test_update_is_step_without_the_wait(mode):
    build = partial(run, vae, mode)
    steps = build()
    begin_anew()
    program = vae()
    svi = build_svi(program.model, program.guide, sgd(program), program.loss, mode)
    losses = [svi.update(*args) for args, _ in program.calls]
    assert all(isinstance(loss, Tensor) and loss.shape == () and not loss.requires_grad for loss in losses)
    assert [loss.item() for loss in losses] == steps.losses
    assert_close(state(program.module), steps.states[-1], rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["graph", False])
@pytest.mark.parametrize("transform", [None, data.binarize.dynamic])
def test_epoch_is_a_loop_of_steps(transform, mode):
    def train(mode):
        begin_anew()
        vae = small_vae()
        svi = build_svi(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), TraceMeanField_ELBO(), mode)
        batches = data.Batches(torch.rand(23, 1, 4, 4).round() if transform is None else torch.rand(23, 1, 4, 4), 5)
        batches.transform = transform
        if mode is PYRO:
            losses = [sum(svi.step(x) for x in batches) for _ in range(4)]
        else:
            losses = [svi.epoch(batches) for _ in range(4)]
            assert all(isinstance(loss, float) for loss in losses)
        return losses, vae.state_dict(), torch.get_rng_state()

    close(train(mode), train(PYRO))


@pytest.mark.parametrize("mode", ["graph", False])
def test_evaluate_loss_is_that_of_pyro_and_changes_nothing(mode):
    def train(mode):
        begin_anew()
        program = tutorial(nn.BatchNorm1d(5))
        svi = build_svi(program.model, program.guide, sgd(program), Trace_ELBO(), mode)
        losses = []
        for args, _ in program.calls:
            before = {name: value.clone() for name, value in program.module.named_parameters()}
            losses += [svi.evaluate_loss(*args)]
            assert all(torch.equal(before[name], value) for name, value in program.module.named_parameters())
            losses += [svi.step(*args)]
        return losses, state(program.module)

    close(train(mode), train(PYRO))


# --- What is wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": "fast"}, "compile is 'fast'"),
        ({"compile": None}, "compile is None"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"optim": 3}, "optim is"),
        ({"optim": torch.optim.Adam}, "optim is"),
    ],
)
def test_wrong_arguments(options, message):
    vae = small_vae()
    right = {"optim": pyro.optim.Adam({"lr": 0.1}), "loss": Trace_ELBO()}
    with pytest.raises((TypeError, ValueError), match=message) as error:
        SVI(vae.model, vae.guide, **{**right, **options})
    assert "expected" in str(error.value)
    assert "\n" not in str(error.value)


def too_wide(x):
    return torch.cat([x, x], -1)


def not_a_number(x):
    return x * float("nan")


def outside(x):
    return x + 0.5


@pytest.mark.parametrize(
    ("spoil", "first"),
    [(spoil, True) for spoil in (too_wide, not_a_number, outside, Tensor.float, lambda x: x[:0], Tensor.numpy)]
    + [(spoil, False) for spoil in (too_wide, Tensor.float, lambda x: x[:0], Tensor.numpy)],
)
def test_wrong_data_are_refused_as_in_pyro(spoil, first):
    """At the first call or after others, and nothing is broken by it."""
    errors, ends = [], []
    for mode in ("graph", PYRO):
        begin_anew()
        vae, x = small_vae(), images(5)
        svi = build_svi(vae.model, vae.guide, sgd(None), Trace_ELBO(), mode)
        for _ in range(0 if first else 5):
            svi.step(x)
        before = state(vae)
        with pytest.raises((TypeError, ValueError)) as error:
            svi.step(spoil(x))
        errors.append((error.type, str(error.value)))
        close(state(vae), before)
        torch.manual_seed(1)
        ends.append([svi.step(x) for _ in range(3)])
    assert errors[0] == errors[1]
    close(*ends)


@pytest.mark.parametrize("mode", ["graph", False])
def test_nan_in_the_loss_warns_as_in_pyro(mode):
    program = tutorial()
    svi = SVI(program.model, program.guide, sgd(program), Trace_ELBO(), compile=mode)
    for args, _ in program.calls:
        svi.step(*args)
    next(program.module.decoder.parameters()).data.fill_(float("nan"))
    with pyro.validation_enabled(False), pytest.warns(UserWarning, match="Encountered NaN: loss"):
        assert np.isnan(svi.step(*program.calls[0][0]))


# --- Memory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["graph", False])
def test_nothing_keeps_a_vae_alive(mode):
    vae, x = small_vae(), images(5)
    alive = weakref.ref(vae)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), compile=mode)
    for _ in range(5):
        svi.step(x)
    del vae, svi
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("mode", ["graph", False])
def test_memory_does_not_grow_with_steps(mode):
    program = vae()
    svi = SVI(program.model, program.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), compile=mode)

    def tensors_after(steps):
        for _ in range(steps):
            svi.step(*program.calls[0][0])
        gc.collect()
        return sum(issubclass(type(one), Tensor) for one in gc.get_objects())

    assert tensors_after(5) == tensors_after(100)


# --- Other devices ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mode", ["graph", True, False])
@pytest.mark.parametrize("build", [vae, dropout])
def test_on_a_gpu(build, mode):
    """As on the CPU, to the rounding of sums in another order."""

    def on_gpu():
        program = build()
        program.module.cuda()
        return program._replace(calls=[call(*(x.cuda() for x in args)) for args, _ in program.calls])

    ours, pyros = run(on_gpu, mode), run(on_gpu, PYRO)
    close(ours.losses, pyros.losses, rtol=1e-8)
    for mine, theirs in zip(ours.states, pyros.states, strict=True):
        close(mine, theirs, rtol=1e-8)

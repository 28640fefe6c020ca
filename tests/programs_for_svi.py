"""Programs of every kind, each with the arguments of a few steps, for the tests of SVI."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from conftest import small_vae
from pyro import distributions as dist
from pyro import poutine
from pyro.contrib.easyguide import easy_guide
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceTMC_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoGuideList, AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pyro_vae import BottomUp, ConditionalVAE, HierarchicalVAE, SemiSupervisedVAE, likelihoods, posteriors, priors
from pyro_vae.nn import mlp

STEPS = 6  # the first runs as it is, the second may record, the others replay


class Program(NamedTuple):
    """Two programs and all that a run of them needs."""

    model: Callable
    guide: Callable
    calls: list[tuple[tuple, dict]]  #: The arguments of each step.
    module: nn.Module = nn.Module()  #: Where parameters and buffers are that Pyro's store does not hold.
    loss: Any = Trace_ELBO()


def call(*args, **kwargs) -> tuple[tuple, dict]:
    return args, kwargs


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

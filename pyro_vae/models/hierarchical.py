"""Variational autoencoders with several stochastic layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.checks import call_part, check_count
from pyro_vae.distributions import as_pyro
from pyro_vae.distributions.independent import split_independent
from pyro_vae.exporting import Program
from pyro_vae.models.at_means import AtMeans
from pyro_vae.models.exported import ROWS, Examples, code_of, conditional, log_density, picked, with_code
from pyro_vae.models.latent_variable_model import LatentVariableModel
from pyro_vae.models.parts_fit import check_batch, check_inside, check_particles, trial, warn_unless_broadcasting
from pyro_vae.system.grad_mode import without_gradients
from pyro_vae.system.threads import one_thread_at_a_time


class HierarchicalVAE(LatentVariableModel):
    """p(z_L) p(z_{L-1} | z_L) ... p(z_1 | z_2) p(x | z_1), with L stochastic layers.

    The sites are ``"z1"``, next to the data, to ``"zL"``, and ``"x"``; the plate is ``"data"`` at dim -1. Everything
    that works on the programs of a :class:`~pyro_vae.VAE` works on these.

    Args:
        prior: ``prior()`` returns p(z_L).
        layers: From the top down, L - 1 modules that map z_{l+1} to p(z_l | z_{l+1}). A posterior such as
            ``posteriors.Normal(nn.mlp(...))`` is one.
        likelihood: ``likelihood(z)``, for z_1, returns p(x | z_1).
        posterior: q(z_1, ..., z_L | x): a :class:`BottomUp`, a :class:`TopDown`, or your own module that is called as
            ``posterior(x, layers)`` and has a ``pyro.sample`` statement for each latent site.

    Raises:
        TypeError: If a part is not a module or does not return a distribution.
        ValueError: If the parts do not fit together; they are run once, on one draw from the prior, to find out.

    Example:
        >>> vae = HierarchicalVAE(
        ...     priors.StandardNormal(2),
        ...     [posteriors.Normal(nn.mlp(2, [8], 6))],
        ...     likelihoods.Bernoulli(nn.mlp(3, [8], (1, 4, 4))),
        ...     BottomUp([posteriors.Normal(nn.mlp((1, 4, 4), [8], 6)), posteriors.Normal(nn.mlp(3, [8], 4))]),
        ... )
        >>> z = vae.encode(x)
        >>> z["z1"].shape, z["z2"].shape
        (torch.Size([8, 3]), torch.Size([8, 2]))
    """

    layers: nn.ModuleList

    def __init__(
        self, prior: nn.Module, layers: Sequence[nn.Module], likelihood: nn.Module, posterior: nn.Module
    ) -> None:
        x, support = _check_fit(prior, layers, likelihood, posterior)
        super().__init__(
            x, support, prior=prior, layers=nn.ModuleList(layers), likelihood=likelihood, posterior=posterior
        )

    def model(self, x: Tensor, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:  # noqa: ARG002
        """The generative program, with x ``[n, *event]`` observed. Returns x."""
        with self._data_plate([self.prior, self.layers, self.likelihood], x):
            z = pyro.sample(f"z{len(self.layers) + 1}", as_pyro(self.prior()))
            for level, layer in self._numbered_layers():
                check_particles(f"the layer of z{level}", layer, z)
                z = pyro.sample(f"z{level}", as_pyro(layer(z)))
            return self._observe(x, z)

    def guide(self, x: Tensor, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:
        """The program q(z_1, ..., z_L | x), for x ``[n, *event]``. Returns z_1 ``[n, latent]``.

        Observations are as in :meth:`VAE.guide <pyro_vae.VAE.guide>`.
        """
        with self._data_plate([self.layers, self.posterior], x):
            return self.posterior(self.data_of(x, observations), self.layers)

    @torch.no_grad()
    def draw_prior(self, n: int) -> tuple[dict[str, Tensor], Distribution]:
        """Draws n latents of each layer; returns them by site, ``[n, latent]``, and p(x | z_1) with batch ``[n]``."""
        z = self.prior().sample((check_count("n", n),))
        latents = {f"z{len(self.layers) + 1}": z}
        for level, layer in self._numbered_layers():
            latents[f"z{level}"] = z = layer(z).sample()
        return latents, self.likelihood(z)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """Draws n datapoints from p(x), ``[n, *event]``; :meth:`sample_means` returns their means given z_1."""
        return self.draw_prior(n)[1].sample()

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """The codes of x ``[n, *event]`` by site, ``[n, latent]``: the mean of each layer given those before it.

        Raises:
            NotImplementedError: If a distribution of the posterior has no mean in closed form; :meth:`codes` draws
                from it.
        """
        return self._codes(x, AtMeans())

    def codes(self, x: Tensor) -> dict[str, Tensor]:
        """The same codes as :meth:`encode`, with draws from the distributions that have no mean in closed form."""
        return self._codes(x, AtMeans(or_draw=True))

    @without_gradients
    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z_1) at latents z_1 ``[*batch, latent]``: ``[*batch, *event]``."""
        return self.likelihood(z).mean

    @without_gradients
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x | z_1) at the :meth:`codes` of x ``[n, *event]``; the same shape as x."""
        return self.likelihood(self.codes(x)["z1"]).mean

    @one_thread_at_a_time
    @without_gradients
    def _codes(self, x: Tensor, at_means: AtMeans) -> dict[str, Tensor]:
        self.check(x)
        trace: Any = poutine.trace(at_means(self.guide)).get_trace(x)
        return {name: trace.nodes[name]["value"] for name in trace.stochastic_nodes if name != "data"}

    def _export_programs(self) -> list[Program]:
        examples, likelihood, prior = self._examples(*ROWS), self.likelihood, self.prior
        top = f"z{len(self.layers) + 1}"
        names = [top, *(f"z{level}" for level, _ in self._numbered_layers())]
        words = {"x": f"data, {self._support}", **{name: f"latents {name}" for name in names}}

        def log_densities(x: Tensor, *latents: Tensor) -> tuple[Tensor, Tensor]:
            log_prior = prior().log_prob(latents[0])
            for layer, above, below in zip(self.layers, latents[:-1], latents[1:], strict=True):
                log_prior = log_prior + layer(above).log_prob(below)
            return likelihood(latents[-1]).log_prob(x), log_prior

        layers = [
            conditional(
                f"layer{level}",
                layer,
                [layer],
                picked(examples, f"z{level + 1}"),
                words,
                f"p(z{level} | z{level + 1})",
            )
            for level, layer in self._numbered_layers()
        ]
        return [
            self._encoder(picked(examples, "x"), words),
            *layers,
            conditional("decoder", likelihood, [likelihood], picked(examples, "z1"), words, "p(x | z1)"),
            log_density(
                log_densities,
                [likelihood, self.layers, prior],
                picked(examples, "x", *names),
                words,
                ("log p(x | z1)", f"log p({', '.join(names)})"),
            ),
        ]

    def _encoder(self, examples: Examples, words: Mapping[str, str]) -> Program:
        """The code of each layer, with the parameters of its distribution."""

        def outputs(x: Tensor) -> dict[str, Tensor]:
            trace: Any = poutine.trace(_AtCodes()(self.posterior)).get_trace(x, self.layers)
            found: dict[str, Tensor] = {}
            for site in sorted(trace.stochastic_nodes):
                values = with_code(trace.nodes[site]["fn"])
                found |= {site if name == "code" else f"{site}_{name}": value for name, value in values.items()}
            return found

        names = outputs(*examples[0].values())
        words = {**{name: f"parameter of q({name.partition('_')[0]} | ...)" for name in names}, **words}
        words |= {name: f"the code {name} of x" for name in names if "_" not in name}
        about = "q(z1, ... | x), each given the codes before it"
        return Program("encoder", outputs, [self.posterior, self.layers], examples, words, about)

    def _numbered_layers(self) -> Iterator[tuple[int, nn.Module]]:
        """The layers from the top down, each with the level l of its z_l."""
        return zip(range(len(self.layers), 0, -1), self.layers, strict=True)


class _AtCodes(Messenger):
    """Sets each site of a posterior to its code."""

    def _pyro_sample(self, msg: Any) -> None:
        msg["value"], msg["done"] = code_of(msg["fn"]), True


class BottomUp(nn.Module):
    """q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_{L-1}) (Burda et al. 2015, section 2).

    The order is the reverse of the model's, so that Pyro's ``TraceMeanField_ELBO`` is not valid for such a pair
    (``evidence.check_elbo`` reports this); train it with ``Trace_ELBO``, the default of ``fit``.

    Args:
        layers: From the bottom up, L modules such as ``posteriors.Normal(nn.mlp(...))``: the first maps x to
            q(z_1 | x), the others z_{l-1} to q(z_l | z_{l-1}).

    Example:
        >>> posterior = BottomUp([posteriors.Normal(nn.mlp(16, [8], 6)), posteriors.Normal(nn.mlp(3, [8], 4))])
        >>> layers = [posteriors.Normal(nn.mlp(2, [8], 6))]
        >>> likelihood = likelihoods.Bernoulli(nn.mlp(3, [8], 16))
        >>> vae = HierarchicalVAE(priors.StandardNormal(2), layers, likelihood, posterior)
        >>> vae.encode(torch.zeros(5, 16))["z1"].shape
        torch.Size([5, 3])
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        if not layers:
            raise ValueError("there are no layers; expected at least one")
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, layers: Sequence[nn.Module]) -> Tensor:  # noqa: ARG002
        """Draws z_1 to z_L; returns z_1."""
        latents = [x]
        for level, layer in enumerate(self.layers, start=1):
            if level > 1:
                check_particles(f"the layer of z{level} of the posterior", layer, latents[-1])
            latents.append(pyro.sample(f"z{level}", as_pyro(layer(latents[-1]))))
        return latents[1]


class TopDown(nn.Module):
    """The ladder: q(z_L | x) and then q(z_l | x, z_{l+1}), which shares the generative layers.

    Below the top, each is the normalized product of two normal densities: p(z_l | z_{l+1}) of the model, and one that
    depends on the data (Sønderby et al. 2016, section 2: precisions add up). The order is that of the model, so that
    Pyro's ``TraceMeanField_ELBO`` is valid.

    Args:
        features: From the bottom up, L networks: the first maps x to features, the others features to features.
        layers: From the bottom up, L modules that map these features to normal distributions, such as
            ``posteriors.Normal(nn.mlp(...))``; the distribution of the last may be of any kind.

    Raises:
        ValueError: If the numbers of features and layers differ.

    Example:
        >>> features = [nn.mlp(16, [8], 5), nn.mlp(5, [8], 5)]
        >>> posterior = TopDown(features, [posteriors.Normal(nn.mlp(5, [], 6)), posteriors.Normal(nn.mlp(5, [], 4))])
        >>> layers = [posteriors.Normal(nn.mlp(2, [8], 6))]
        >>> likelihood = likelihoods.Bernoulli(nn.mlp(3, [8], 16))
        >>> vae = HierarchicalVAE(priors.StandardNormal(2), layers, likelihood, posterior)
        >>> vae.encode(torch.zeros(5, 16))["z1"].shape
        torch.Size([5, 3])
    """

    def __init__(self, features: Sequence[nn.Module], layers: Sequence[nn.Module]) -> None:
        super().__init__()
        if not layers or len(features) != len(layers):
            raise ValueError(
                f"there are {len(features)} features and {len(layers)} layers; expected equally many, and at least one"
            )
        self.features = nn.ModuleList(features)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, layers: Sequence[nn.Module]) -> Tensor:
        """Draws z_L to z_1, given the model's layers from the top down; returns z_1."""
        if len(layers) + 1 != len(self.layers):
            raise ValueError(f"the model has {len(layers) + 1} stochastic layers, the posterior {len(self.layers)}")
        features = list(accumulate(self.features, lambda hidden, feature: feature(hidden), initial=x))[1:]
        level = len(features)
        z = pyro.sample(f"z{level}", as_pyro(self.layers[-1](features[-1])))
        for generative in layers:
            level -= 1
            q = _product(generative(z), self.layers[level - 1](features[level - 1]), level)
            z = pyro.sample(f"z{level}", q)
        return z


def _product(p: Any, q: Any, level: int) -> Any:
    """The normal distribution whose density is proportional to the product of two."""
    normals = [split_independent(fn)[0] for fn in (p, q)]
    for fn, name in zip(normals, ("model", "posterior"), strict=True):
        if not isinstance(fn, torch.distributions.Normal):
            raise ValueError(f"z{level} of the {name} is a {type(fn).__name__}; expected a diagonal Normal")
    (a, b), (x, y) = ((fn.loc for fn in normals), (fn.scale for fn in normals))
    scale = x * y / torch.hypot(x, y)
    loc = a + (b - a) * (scale / y).square()
    return dist.Normal(loc, scale, validate_args=False).to_event(1)


def _check_fit(
    prior: nn.Module, layers: Sequence[nn.Module], likelihood: nn.Module, posterior: nn.Module
) -> tuple[Tensor, Any]:
    """Runs all parts once; returns a draw of x and the support of the likelihood."""
    named = {f"layers[{i}]": layer for i, layer in enumerate(layers)}
    with trial({"prior": prior, **named, "likelihood": likelihood, "posterior": posterior}):
        p = call_part("prior()", prior)
        check_batch("prior()", p, ())
        given = {f"z{len(layers) + 1}": p}
        z = p.sample((1,))
        latents = {f"z{len(layers) + 1}": z}
        for level, (name, layer) in zip(range(len(layers), 0, -1), named.items(), strict=True):
            p = call_part(f"{name}(z), for z{level + 1} of shape {list(z.shape)},", layer, z)
            check_batch(f"{name}(z)", p)
            warn_unless_broadcasting(f"{name}(z)", layer, z)
            z = p.sample()
            given[f"z{level}"], latents[f"z{level}"] = p, z
        p_x = call_part(f"likelihood(z), for z1 of shape {list(z.shape)},", likelihood, z)
        check_batch("likelihood(z)", p_x)
        warn_unless_broadcasting("likelihood(z)", likelihood, z)
        x = p_x.sample()
        with pyro.validation_enabled(False):
            try:
                with pyro.plate("data", 1, dim=-1):
                    trace: Any = poutine.trace(posterior).get_trace(x, nn.ModuleList(layers))
            except (TypeError, RuntimeError, IndexError) as error:
                raise ValueError(f"posterior(x, layers), for x of shape {list(x.shape)}, failed: {error}") from error
        if isinstance(posterior, BottomUp):
            for level, layer in enumerate(posterior.layers[1:], start=1):
                if f"z{level}" in trace.nodes:
                    warn_unless_broadcasting(f"posterior.layers[{level}](z)", layer, trace.nodes[f"z{level}"]["value"])
    shapes = {name: list(value.shape) for name, value in latents.items()}
    drawn = {name: trace.nodes[name] for name in trace.stochastic_nodes}
    if shapes != (others := {name: list(site["value"].shape) for name, site in drawn.items()}):
        raise ValueError(
            f"the latents do not match: one draw from the model has shapes {shapes}, from the posterior {others}"
        )
    for name, site in drawn.items():
        check_inside(latents[name], f"{name} of the model", site["fn"], f"{name} of the posterior")
        check_inside(site["value"], f"{name} of the posterior", given[name], f"{name} of the model")
    return x, p_x.support

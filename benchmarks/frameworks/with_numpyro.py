"""NumPyro's SVI: many steps in one compiled loop, which gathers its batches from data on the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import jax
import numpy as np
import numpyro
from jax import lax, random
from jax import numpy as jnp
from jax.example_libraries import stax
from jax.nn.initializers import normal, variance_scaling
from numpyro import distributions as dist
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from numpyro.nn.masked_dense import MaskedDense

from frameworks.work import CONTEXT, FLOW_HIDDEN, FLOW_STEPS, Work

__all__ = ["Training"]

ACTIVATIONS = {"silu": jax.nn.silu, "softplus": jax.nn.softplus, "relu": jax.nn.relu}
HE = variance_scaling(2.0, "fan_in", "normal")
TORCH = variance_scaling(1 / 3, "fan_in", "uniform")  # of PyTorch's linear layers
IMAGES = ("NHWC", "HWIO", "NHWC")  # the layout that XLA computes fastest on CPUs
Network = tuple[Callable, Callable]


class Training:
    """It stays on the device but for the order of the images, which is drawn anew for every pass."""

    def __init__(self, work: Work, images: np.ndarray) -> None:
        self.work = work
        self.device = jax.devices(work.device)[0]
        self.images = jax.device_put(images.reshape(-1, 28, 28, 1) if work.model == "conv" else images, self.device)
        self.encoder, self.decoder = networks(work)
        self.flow_networks = [masked_network(work, i) for i in range(FLOW_STEPS if work.model == "flow" else 0)]
        self.steps_per_epoch = len(images) // work.batch_size
        elbo = Trace_ELBO() if work.sampled_kl or work.model == "flow" else TraceMeanField_ELBO()
        self.svi = SVI(self.model, self.guide, numpyro.optim.Adam(self.learning_rate if work.decay else work.lr), elbo)
        self.key, key = random.split(jax.device_put(random.key(work.seed), self.device))
        self.state = jax.jit(self.svi.init)(key, self.images[: work.batch_size])
        self.compiled_step = jax.jit(self.step, donate_argnums=0)
        # On CPUs, XLA computes convolutions in loops four times as slowly as outside of them.
        outside = work.model == "conv" and work.device == "cpu"
        self.loop = self.one_by_one if outside else jax.jit(self.in_one_loop, donate_argnums=0)
        self.orders = np.random.default_rng(work.seed)
        self.order, self.done = None, self.steps_per_epoch

    def model(self, x: jax.Array) -> None:
        decode = numpyro.module("decoder", self.decoder, (x.shape[0], self.work.latent))
        with numpyro.plate("data", x.shape[0]):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(self.work.latent), 1).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(x.ndim - 1), obs=x)

    def guide(self, x: jax.Array) -> None:
        encode = numpyro.module("encoder", self.encoder, x.shape)
        latent = self.work.latent
        loc, raw_scale, context = jnp.split(encode(x), [latent, 2 * latent], axis=-1)
        scale = jnp.exp(raw_scale) if self.work.scale == "exp" else jax.nn.softplus(raw_scale)
        q = dist.Normal(loc, scale).to_event(1)
        if self.flow_networks:
            shape = (x.shape[0], latent + CONTEXT)
            bend = [numpyro.module(f"step{i}", network, shape) for i, network in enumerate(self.flow_networks)]
            steps = [InverseAutoregressiveTransform(partial(mean_and_log_scale, net, context)) for net in bend]
            q = dist.TransformedDistribution(q, steps)
        with numpyro.plate("data", x.shape[0]):
            numpyro.sample("z", q)

    def step(
        self, state: object, images: jax.Array, order: jax.Array, key: jax.Array, i: int
    ) -> tuple[object, jax.Array]:
        x = images[lax.dynamic_slice_in_dim(order, i * self.work.batch_size, self.work.batch_size)]
        if self.work.dynamic:
            x = random.bernoulli(random.fold_in(key, i), x).astype(x.dtype)
        return self.svi.update(state, x)

    def in_one_loop(self, state: object, *fixed: jax.Array, first: int, last: int) -> tuple[object, jax.Array]:
        def body(i: int, carry: tuple[object, jax.Array]) -> tuple[object, jax.Array]:
            state, loss = self.step(carry[0], *fixed, i)
            return state, carry[1] + loss

        return lax.fori_loop(first, last, body, (state, jnp.zeros(())))

    def one_by_one(self, state: object, *fixed: jax.Array, first: int, last: int) -> tuple[object, jax.Array]:
        total = jnp.zeros(())
        for i in range(first, last):
            state, loss = self.compiled_step(state, *fixed, i)
            total += loss
        return state, total

    def run(self, steps: int) -> float:
        totals, left = [], steps
        while left:
            if self.done == self.steps_per_epoch:
                order = self.orders.permutation(len(self.images)).astype(np.int32)
                self.order, self.done = jax.device_put(order, self.device), 0
                self.key, self.pass_key = random.split(self.key)
            last = min(self.done + left, self.steps_per_epoch)
            fixed = self.images, self.order, self.pass_key
            self.state, total = self.loop(self.state, *fixed, first=self.done, last=last)
            totals.append(total)
            left -= last - self.done
            self.done = last
        return sum(float(total) for total in totals) / (steps * self.work.batch_size)  # which waits for the device

    def learning_rate(self, step: jax.Array) -> jax.Array:
        return self.work.lr * (1 - step // self.steps_per_epoch / self.work.epochs)

    def train(self) -> None:
        for _ in range(self.work.epochs):
            self.run(self.steps_per_epoch)

    def weights(self) -> list[np.ndarray]:
        parameters = self.svi.get_params(self.state)
        layers = [layer for name in ("encoder$params", "decoder$params") for layer in parameters[name] if layer]
        return [np.asarray(array).T for layer in layers for array in layer]


def networks(work: Work) -> tuple[Network, Network]:
    outputs = 2 * work.latent + (CONTEXT if work.model == "flow" else 0)
    activation = stax.elementwise(ACTIVATIONS[work.activation])
    hidden_law = {"he": HE, "torch": TORCH, "stax": normal(1e-2)}[work.initial]
    law = normal(1e-2) if work.initial == "stax" else TORCH

    def dense(fan_in: int, fan_out: int, weights: Callable = law) -> Network:
        bound = fan_in**-0.5

        def bias(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return (
                law(key, shape) if work.initial == "stax" else random.uniform(key, shape, minval=-bound, maxval=bound)
            )

        return stax.Dense(fan_out, W_init=weights, b_init=bias)

    if work.model != "conv":
        encoder = stax.serial(dense(784, work.hidden, hidden_law), activation, dense(work.hidden, outputs))
        return encoder, stax.serial(dense(work.latent, work.hidden, hidden_law), activation, dense(work.hidden, 784))

    def doubling(channels: int) -> Network:
        bound = (16 * channels) ** -0.5  # PyTorch's law

        def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return random.uniform(key, shape, minval=-bound, maxval=bound)

        return stax.GeneralConvTranspose(IMAGES, channels, (4, 4), (2, 2), "SAME", W_init=uniform, b_init=uniform)

    unflatten = (lambda _, shape: ((shape[0], 7, 7, 64), ()), lambda _, x, **__: x.reshape(x.shape[0], 7, 7, 64))
    encoder = stax.serial(
        stax.GeneralConv(IMAGES, 32, (3, 3), (2, 2), [(1, 1), (1, 1)], W_init=HE),
        activation,
        stax.GeneralConv(IMAGES, 64, (3, 3), (2, 2), [(1, 1), (1, 1)], W_init=HE),
        activation,
        stax.Flatten,
        dense(64 * 7 * 7, outputs),
    )
    decoder = stax.serial(
        dense(work.latent, 64 * 7 * 7),
        unflatten,
        activation,
        doubling(32),
        activation,
        doubling(1),
    )
    return encoder, decoder


def masked_network(work: Work, step: int) -> Network:
    """From z and the context; NumPyro's ``AutoregressiveNN``, which takes no context, has the same layers."""
    position = np.arange(work.latent) if step % 2 == 0 else np.arange(work.latent)[::-1]
    inputs = np.concatenate([position, np.full(CONTEXT, -1)])
    degrees = [inputs, *(np.arange(width) % (work.latent - 1) for width in FLOW_HIDDEN)]
    layers = []
    for fan_in, fan_out in pairwise(degrees):
        mask = jnp.asarray(fan_out[None, :] >= fan_in[:, None], jnp.float32)
        layers += [MaskedDense(mask), stax.elementwise(ACTIVATIONS[work.activation])]
    mask = jnp.asarray(np.tile(position, 2)[None, :] > degrees[-1][:, None], jnp.float32)
    return stax.serial(*layers, MaskedDense(mask, W_init=normal(1e-3), b_init=normal(1e-6)))


def mean_and_log_scale(network: Callable, context: jax.Array, z: jax.Array) -> list[jax.Array]:
    return jnp.split(network(jnp.concatenate([z, context], axis=-1)), 2, axis=-1)

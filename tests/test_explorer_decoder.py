"""The decoder of the explorer: what the browser computes is what PyTorch computes."""

from __future__ import annotations

import pytest
import torch
from browser import browser  # noqa: F401  # a fixture
from parts import LIKELIHOODS
from torch import nn as torch_nn

from pyro_vae import VAE, likelihoods, nn, posteriors, priors
from pyro_vae.explorer.arrays import Arrays
from pyro_vae.explorer.decoder.export import decoder_program
from pyro_vae.explorer.decoder.lowering import lower
from pyro_vae.explorer.decoder.tracing import trace
from pyro_vae.explorer.page import asset

TOLERANCE = 1e-4
N = 3  # latents at which each decoder is compared


@pytest.fixture(scope="module")
def javascript(browser):  # noqa: F811
    """Runs a program in the browser at latents ``[n, latent]``; returns each of its outputs, ``[n, size]``."""
    page = browser.new_page()
    # The page's own files, and what the page has around them.
    page.add_script_tag(content=asset("kernels.js") + asset("decoder.js"))

    def run(program, z):
        arrays = Arrays()
        for number, values in program.constants.items():
            arrays.add(str(number), values)
        outputs = page.evaluate(
            """([program, places, text, inputs]) => {
              const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
              const weights = {};
              for (const [number, [type, from, length]] of Object.entries(places))
                weights[number] = new (type === "f" ? Float32Array : Int32Array)(bytes.buffer, from, length);
              const decode = makeDecoder(program, weights);
              return inputs.map((z) => decode(z).map((values) => Array.from(values, String)));
            }""",
            [
                {name: getattr(program, name) for name in ("input", "outputs", "sizes", "operations")},
                arrays.places,
                arrays.text(),
                z.tolist(),
            ],
        )
        return [torch.tensor([[float(value) for value in row[i]] for row in outputs]) for i in range(len(outputs[0]))]

    yield run
    page.close()


def assert_same(found, expected):
    expected = expected.flatten(1).float()
    assert found.shape == expected.shape
    scale = max(1.0, expected.abs().max().item())
    assert (found - expected).abs().max().item() <= TOLERANCE * scale


def compare(javascript, likelihood, latent):
    """Compares the mean at random latents, some of them far out."""
    event = likelihood(torch.zeros(1, latent)).event_shape
    posterior = posteriors.Normal(torch_nn.Sequential(torch_nn.Flatten(-len(event)), _Zeros(2 * latent)))
    vae = VAE(priors.StandardNormal(latent), likelihood, posterior).eval()
    z = torch.randn(N, latent) * torch.tensor([[0.5], [1.0], [3.0]])
    with torch.no_grad():
        expected = likelihood(z).mean
    assert expected.std() > 1e-3 or expected.unique().numel() > 1  # a constant would be no test
    assert_same(javascript(decoder_program(vae), z)[0], expected)


class _Zeros(torch_nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return torch.zeros(*x.shape[:-1], self.size)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods(javascript, name):
    compare(javascript, LIKELIHOODS[name](), 2)


def test_a_likelihood_for_missing_values(javascript):
    compare(javascript, likelihoods.Incomplete(likelihoods.DiscretizedLogistic(nn.mlp(2, [8], (4, 2)))), 2)


class _LocationsAndScales(torch_nn.Module):
    """60 locations, inside and outside of [0, 1], each with 8 scales: from a tenth of a level to 3."""

    def forward(self, z):
        loc = torch.linspace(-0.3, 1.3, 60)[:, None] + z[..., :1, None]
        raw = torch.logspace(-3.5, 0.5, 8).expm1().log().expand(60, 8)
        return torch.stack([loc + 0 * raw, raw + 0 * loc], dim=-1)


def test_discretized_means_at_every_scale(javascript):
    likelihood = likelihoods.DiscretizedLogistic(_LocationsAndScales())
    posterior = posteriors.Normal(torch_nn.Sequential(torch_nn.Flatten(-2), _Zeros(2)))
    program = decoder_program(VAE(priors.StandardNormal(1), likelihood, posterior))
    z = torch.tensor([[0.0], [0.013]])
    found, expected = javascript(program, z)[0], likelihood(z.double()).mean.flatten(1)
    assert (found - expected).abs().max() < 1e-6


NETWORKS = {
    "mlp": lambda: nn.mlp(4, [16, 8], (2, 3)),
    "linear": lambda: nn.mlp(4, [], (2, 3)),
    "gated_mlp": lambda: nn.gated_mlp(4, [16], (2, 3)),
    "convolutional": lambda: nn.convolutional_decoder(4, (1, 7, 10), [8, 4]),
    "convolutional, residual": lambda: nn.convolutional_decoder(4, (3, 8, 6), [6, 4], block=nn.ResidualBlock),
    "series": lambda: nn.series_decoder(4, (13, 2), [8, 4]),
    "recurrent": lambda: nn.recurrent_decoder(4, (6, 2), hidden=5),
    "broadcast": lambda: nn.Broadcast(torch_nn.Sequential(torch_nn.Linear(4, 6), torch_nn.BatchNorm1d(6).eval()), 1),
    "size factor": lambda: nn.SizeFactor(nn.mlp(3, [8], 5)),
    "standardize": lambda: nn.Standardize(nn.mlp(4, [8], 5), 0.5, 2.0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(javascript, name):
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, torch_nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    compare(javascript, likelihoods.Normal(network, 1.0), 4)


ACTIVATIONS = [
    torch_nn.ReLU(),
    torch_nn.LeakyReLU(0.1),
    torch_nn.GELU(),
    torch_nn.GELU("tanh"),
    torch_nn.ELU(),
    torch_nn.SELU(),
    torch_nn.Softplus(),
    torch_nn.Softmax(-1),
    torch_nn.LogSoftmax(-1),
    torch_nn.LogSigmoid(),
    torch_nn.Tanh(),
    torch_nn.Hardtanh(),
    torch_nn.Hardswish(),
    torch_nn.Mish(),
    torch_nn.LayerNorm(6),
    torch_nn.RMSNorm(6),
    torch_nn.PReLU(),
    torch_nn.Softsign(),
]


class _Several(torch_nn.Module):
    """Every layer on the same features."""

    def __init__(self):
        super().__init__()
        self.first, self.layers = torch_nn.Linear(4, 6), torch_nn.ModuleList(ACTIVATIONS)

    def forward(self, z):
        features = 3 * self.first(z)
        return torch.cat([layer(features) for layer in self.layers], dim=-1)


IMAGE_LAYERS = {
    "nearest": torch_nn.Upsample(scale_factor=2),
    "bilinear": torch_nn.Upsample(size=(7, 5), mode="bilinear"),
    "bilinear with corners": torch_nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "pixel shuffle": torch_nn.PixelShuffle(2),
    "group norm": torch_nn.GroupNorm(2, 8),
    "batch norm": torch_nn.BatchNorm2d(8).eval(),
    "instance norm": torch_nn.InstanceNorm2d(8),
    "convolution in groups": torch_nn.Conv2d(8, 4, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2), groups=4),
    "transposed in groups": torch_nn.ConvTranspose2d(
        8, 4, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2
    ),
    "1x1": torch_nn.Conv2d(8, 3, 1, bias=False),
    "padding": torch_nn.ReflectionPad2d(1),
    "zero padding": torch_nn.ZeroPad2d((1, 0, 2, 1)),
    "average pooling": torch_nn.AdaptiveAvgPool2d(1),
    "attention": None,
}


class _Attention(torch_nn.Module):
    """Self-attention over the pixels: products of two arrays that both depend on z."""

    def forward(self, x):
        rows = x.flatten(2).mT
        return torch_nn.functional.scaled_dot_product_attention(rows, rows * 2, rows + 1)


IMAGE_LAYERS["attention"] = _Attention()


class _OnImages(torch_nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.layers = torch_nn.Linear(4, 8 * 4 * 3), torch_nn.ModuleList(IMAGE_LAYERS.values())

    def forward(self, z):
        image = self.first(z).unflatten(-1, (8, 4, 3))
        return torch.cat([layer(image).flatten(1) for layer in self.layers], dim=-1)


class _Operators(torch_nn.Module):
    """Operators that users' own networks may have."""

    def __init__(self):
        super().__init__()
        self.table = torch_nn.Parameter(torch.randn(5, 3))

    def forward(self, z):
        a, b = z.chunk(2, dim=-1)
        parts = [
            torch.where(a > b, a, b * 2), a.clamp(-0.5, 0.5), (a.abs() + 1) ** b, torch.atan2(a, b), a.cumsum(-1),
            z.softmax(-1).cumsum(-1), z.flip(-1), z.roll(1, -1), torch.logaddexp(a, b),
            z.logsumexp(-1, keepdim=True), z.var(-1, keepdim=True), z.std(-1, keepdim=True), z.amax(-1, keepdim=True),
            z.prod(-1, keepdim=True), z.norm(dim=-1, keepdim=True), z.max(-1).values[:, None], a.erf(), a.expm1(),
            torch.nn.functional.embedding(z.argmax(-1), self.table), (z @ z.mT).flatten(1), a.round(), a.sign(), a.tan(),
            torch.remainder(z, 0.7), torch.einsum("bi,bj->bij", a, b).flatten(1), torch.outer(a[0], b[0]).reshape(1, -1),
            z.repeat(1, 2), z.tile(2), z[:, [2, 0]], (a > 0).to(z.dtype), a.sinh(), (a.square() + 1).rsqrt(),
            torch.addcmul(a, a, b, value=0.5), torch.lerp(a, b, 0.3), torch.stack([a, b], -1).flatten(1), z.masked_fill(z > 0, 2.0),
        ]  # fmt: skip
        return torch.cat(parts, dim=-1)


@pytest.mark.parametrize("make", [_Several, _OnImages, _Operators])
def test_layers_that_users_may_have(javascript, make):
    module = make().eval()
    z = torch.randn(N, 4)
    program = lower(trace(_Tuple(module), z[:1]))
    with torch.no_grad():
        expected = torch.cat([module(row[None]) for row in z])
    found = javascript(program, z)[0]
    assert_same(found, expected)


class _Tuple(torch_nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, z):
        return (self.module(z),)

"""Networks: any size of image, any leading dimensions, and rows that do not see each other."""

from __future__ import annotations

import copy
from itertools import pairwise

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO
from torch import nn as torch_nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors, weights

IMAGE = (1, 7, 5)
LATENT = 2

ENCODERS = {
    "mlp": lambda outputs: nn.mlp(IMAGE, [6], outputs),
    "gated_mlp": lambda outputs: nn.gated_mlp(IMAGE, [6, 5], outputs),
    "convolutional": lambda outputs: nn.convolutional_encoder(IMAGE, outputs, [3, 4]),
    "residual": lambda outputs: nn.convolutional_encoder(IMAGE, outputs, [3, 4], block=nn.ResidualBlock),
    "Broadcast": lambda outputs: nn.Broadcast(
        torch_nn.Sequential(torch_nn.Conv2d(1, 2, 3), torch_nn.Flatten(), torch_nn.Linear(30, outputs)), 3
    ),
}
DECODERS = {
    "mlp": lambda outputs: nn.mlp(LATENT, [6], outputs),
    "gated_mlp": lambda outputs: nn.gated_mlp(LATENT, [6, 5], outputs),
    "convolutional": lambda outputs: nn.convolutional_decoder(LATENT, outputs, [4, 3]),
    "residual": lambda outputs: nn.convolutional_decoder(LATENT, outputs, [4, 3], block=nn.ResidualBlock),
    "Broadcast": lambda outputs: torch_nn.Sequential(
        nn.mlp(LATENT, [6], (2, *outputs[1:])), nn.Broadcast(torch_nn.Conv2d(2, outputs[0], 3, padding=1), 3)
    ),
}
NETWORKS = {
    **{f"{name} encoder": (lambda make=make: make(4), IMAGE, (4,)) for name, make in ENCODERS.items()},
    **{f"{name} decoder": (lambda make=make: make(IMAGE), (LATENT,), IMAGE) for name, make in DECODERS.items()},
}


@pytest.fixture(params=NETWORKS)
def case(request):
    make, inputs, outputs = NETWORKS[request.param]
    return make().double(), inputs, outputs


def random(*shape):
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("batch", [(), (1,), (4,), (0,), (2, 3), (2, 1, 3)])
def test_leading_dimensions_only_repeat(case, batch):
    network, inputs, outputs = case
    x = random(*batch, *inputs)
    y = network(x)
    assert y.shape == (*batch, *outputs)
    assert y.dtype == torch.float64
    if 0 not in batch:
        rows = torch.stack([network(row) for row in x.reshape(-1, *inputs)])
        assert_close(y.reshape(rows.shape), rows, rtol=1e-12, atol=1e-12)


def test_a_row_does_not_depend_on_the_others(case):
    network, inputs, _ = case
    x, other = random(5, *inputs), random(5, *inputs)
    other[2] = x[2]
    assert_close(network(other)[2], network(x)[2], rtol=1e-13, atol=1e-13)


def test_every_input_and_every_parameter_matters(case):
    network, inputs, outputs = case
    x = random(4, *inputs).requires_grad_()
    (network(x) * random(4, *outputs)).sum().backward()
    for name, tensor in (("x", x), *network.named_parameters()):
        assert tensor.grad is not None, name
        assert (tensor.grad.flatten(1) if name == "x" else tensor.grad).ne(0).any(0).all(), name


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_tracing(case, batch):
    network, inputs, _ = case
    graph = make_fx(network)(random(*batch, *inputs))
    x = random(*batch, *inputs)
    assert_close(graph(x), network(x))


def test_copies_and_states(case):
    network, inputs, _ = case
    x = random(2, *inputs)
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    assert not torch.equal(other(x), network(x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), network(x))


@st.composite
def images(draw):
    """The shape of an image, and channels for as many halvings as it can take, or fewer."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(2, 33)), draw(st.integers(2, 33)))
    depth = draw(st.integers(1, min(5, (min(shape[1:]) - 1).bit_length())))
    return shape, draw(st.lists(st.integers(1, 5), min_size=depth, max_size=depth))


@settings(max_examples=60)
@given(
    images(),
    st.lists(st.integers(1, 3), max_size=3),
    st.sampled_from([torch_nn.Identity, nn.ResidualBlock]),
    st.sampled_from([(), (1,), (3,)]),
)
def test_images_of_any_size(image, batch, block, parameters):
    shape, channels = image
    encoder = nn.convolutional_encoder(shape, (2, 3), channels, block=block)
    decoder = nn.convolutional_decoder((2, 3), (*shape, *parameters), channels[::-1], torch_nn.ELU, block)
    seen = sizes_seen(encoder), sizes_seen(decoder)
    code = encoder(torch.randn(*batch, *shape))
    assert code.shape == (*batch, 2, 3)
    assert decoder(code).shape == (*batch, *shape, *parameters)
    # The decoder mirrors the encoder: the same sizes, the other way round.
    down, up = seen
    assert down[0] == up[-1] == shape[1:]
    assert down == up[::-1]
    assert len(down) == len(channels) + 1
    for larger, smaller in pairwise(down):
        assert smaller == tuple(-(-side // 2) for side in larger)


def sizes_seen(network):
    """A list that fills with the sizes of images between the strided convolutions of a network, as it runs."""
    sizes = []

    def see(_, inputs, output):
        sizes.extend(tuple(x.shape[-2:]) for x in ([inputs[0], output] if not sizes else [output]))

    for module in network.modules():
        if isinstance(module, torch_nn.Conv2d | torch_nn.ConvTranspose2d) and module.stride == (2, 2):
            module.register_forward_hook(see)
    return sizes


def test_parameters_of_a_pixel_come_last():
    """Those of one pixel are of its place: where features differ from a constant, all of them do, and nowhere else."""
    decoder = nn.convolutional_decoder(2, (3, 16, 12, 2), [4]).double()
    features = torch.ones(4, 8, 6, dtype=torch.float64)
    flat = decoder[1](features)
    features[:, 4, 1] = 2
    changed = (decoder[1](features) != flat).all(0).all(-1)
    expected = torch.zeros(16, 12, dtype=torch.bool)
    expected[7:11, 1:5] = True  # a 4x4 kernel around the doubled place
    assert torch.equal(changed, expected)
    assert torch.equal((decoder[1](features) != flat).any(0).any(-1), expected)


@pytest.mark.parametrize("size", [(24, 24), (23, 19)])
def test_a_decoder_begins_without_a_checkerboard(size):
    """Where features are constant the picture is, away from the border."""
    decoder = nn.convolutional_decoder(2, (2, *size), [5, 4]).double()
    picture = decoder[1](random(5, 1, 1).expand(5, -(-size[0] // 4), -(-size[1] // 4)))
    inside = picture[:, 4:-4, 4:-4]
    assert inside.abs().min() > 0
    assert_close(inside, inside[:, :1, :1].expand_as(inside), rtol=0, atol=1e-6)  # drawn in float32
    assert picture.std() > 0.01


@torch.no_grad()
def test_deep_networks_begin_with_open_eyes():
    """Differences between datapoints reach the end of five layers, rather than fade away."""
    x = torch.rand(64, 1, 32, 32).bernoulli()
    features = nn.convolutional_encoder((1, 32, 32), 4, [16] * 5)[0](x)
    assert features.std(0).mean() > 0.02  # with PyTorch's initial weights: 0.0006
    pictures = nn.convolutional_decoder(8, (1, 32, 32), [16] * 5)(torch.randn(64, 8))
    assert 0.02 < pictures.std(0).mean() < 2  # 0.00005
    gated = nn.gated_mlp(100, [100] * 5, 3)[:-1](torch.randn(64, 100))
    assert 0.5 < gated.std() < 4  # 0.03
    hidden = nn.mlp(100, [100] * 5, 3, torch.nn.ReLU)[:-1](torch.randn(64, 100))
    assert 0.2 < hidden.std(0).mean() < 2  # 0.02


@torch.no_grad()
def test_gates_begin_on_the_scale_of_what_comes_in():
    """Standard normal, for standard normal inputs; their values twice that. 300 units: 5% is 20 standard errors."""
    values, gates = nn.gated_mlp(300, [300], 1)[0](torch.randn(1000, 300)).chunk(2, -1)
    assert gates.std().item() == pytest.approx(1, rel=0.05)
    assert values.std().item() == pytest.approx(2, rel=0.05)


@torch.no_grad()
def test_residual_blocks_begin_close_to_the_identity():
    x = torch.randn(8, 16, 8, 8)
    y = torch_nn.Sequential(*(nn.ResidualBlock(16) for _ in range(50)))(x)
    assert 0.8 < y.std() < 2
    assert torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1] > 0.5


def test_a_gated_layer_is_a_linear_map_times_a_sigmoid():
    network = nn.gated_mlp(3, 4, 2).double()
    (hidden, _, last), x = network, random(5, 3)
    (value, gate), (a, b) = hidden.weight.chunk(2), hidden.bias.data.normal_().chunk(2)
    expected = last((x @ value.T + a) * torch.sigmoid(x @ gate.T + b))
    assert_close(network(x), expected)


@pytest.mark.parametrize("block", [torch_nn.Identity, nn.ResidualBlock])
def test_a_vae_of_convolutions(block):
    """Several parameters for each pixel, SVI, evidence with particles, state and float64."""
    vae = VAE(
        priors.StandardNormal(LATENT),
        NormalPixels(nn.convolutional_decoder(LATENT, (*IMAGE, 2), [4, 3], block=block)),
        posteriors.Normal(nn.convolutional_encoder(IMAGE, 2 * LATENT, [3, 4], block=block)),
    )
    before = copy.deepcopy(vae.state_dict())
    x = vae.sample(6)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO(2, vectorize_particles=True))
    for _ in range(2):
        svi.step(x)
    for name, value in vae.state_dict().items():
        assert not torch.equal(value, before[name]), name
    vae.load_state_dict(before)
    vae.double()
    x = x.double()
    result = evidence.importance(vae.model, vae.guide, x, num_samples=20)
    assert result.log_prob.shape == (6,)
    assert result.log_prob.dtype == torch.float64
    assert result.log_prob.isfinite().all()
    # A log-weight is of its own datapoint: with the same noise, it does not change with the others.
    other = vae.sample(6)
    other[2] = x[2]
    one, two = (seeded_log_weights(vae, data) for data in (x, other))
    assert_close(one[:, 2], two[:, 2], rtol=1e-12, atol=1e-12)
    assert (one[:, 3] != two[:, 3]).all()


@torch.no_grad()
def seeded_log_weights(vae, x):
    torch.manual_seed(3)
    return weights.log_weights(vae.model, vae.guide, x, 4)


class NormalPixels(torch_nn.Module):
    """A likelihood with two parameters for each pixel, the last dimension of its network's outputs."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z):
        loc, log_scale = self.network(z).unbind(-1)
        return dist.Normal(loc, log_scale.exp()).to_event(3)


def test_binary_images_with_the_default_settings():
    vae = VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(nn.convolutional_decoder(LATENT, (3, 5, 6))),
        posteriors.Normal(nn.convolutional_encoder((3, 5, 6), 2 * LATENT)),
    )
    assert vae.event_shape == (3, 5, 6)
    assert vae.likelihood(torch.randn(4, 2, LATENT)).sample().shape == (4, 2, 3, 5, 6)


def test_broadcast_of_scalars_and_its_print():
    square = nn.Broadcast(torch_nn.Softplus(), 0)
    assert square(torch.zeros(2, 3)).shape == (2, 3)
    assert "event_dims=0" in repr(square)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.mlp(0, [3], 2), "inputs is 0; expected an integer of at least 1"),
        (lambda: nn.mlp((), [3], 2), r"inputs is \(\); expected an integer or a sequence of at least one"),
        (lambda: nn.gated_mlp(3, [2.5], 2), "hidden is 2.5; expected an integer"),
        (lambda: nn.gated_mlp(3, [2], (4, -1)), "outputs is -1; expected an integer"),
        (lambda: nn.convolutional_encoder((28, 28), 4), r"inputs is \(28, 28\); .* \(channels, height, width\)$"),
        (lambda: nn.convolutional_encoder(784, 4), "inputs is 784; expected the shape of an image"),
        (lambda: nn.convolutional_encoder((1, 28, 28), 4, []), r"channels is \[\]; expected"),
        (lambda: nn.convolutional_encoder((1, 28, 28), 4, [8, 0]), "channels is 0; expected"),
        (
            lambda: nn.convolutional_encoder((1, 5, 4), 4, [8] * 3),
            "height and width 5 x 4; expected more than 4 of each",
        ),
        (lambda: nn.convolutional_decoder(2, (28, 28)), r"outputs is .*, height, width, parameters\)$"),
        (lambda: nn.convolutional_decoder(2, (1, 8, 8, 2, 2)), "outputs is .*; expected the shape of an image"),
        (lambda: nn.convolutional_decoder(2, (1, 9, 2), [8] * 2), "9 x 2; expected more than 2 of each for 2 halvings"),
        (lambda: nn.Broadcast(torch_nn.Identity(), -1), "event_dims is -1; expected an integer of at least 0"),
        (lambda: nn.Broadcast(torch_nn.Identity(), 3)(torch.zeros(28, 28)), r"\[28, 28\]; expected at least 3 dim"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_hot():
    network = nn.OneHot(nn.mlp((3, 4), [5], 2), 4)
    x = torch.randint(4, (6, 7, 3))
    by_hand = network.network(torch.nn.functional.one_hot(x, 4).float())
    assert_close(network(x), by_hand)
    assert network.double()(x).dtype == torch.float64
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Categorical(nn.mlp(2, [5], (3, 4))),
        posteriors.Normal(nn.OneHot(nn.mlp((3, 4), [5], 4), 4)),
    )
    assert evidence.importance(vae.model, vae.guide, vae.sample(5), num_samples=20).log_prob.isfinite().all()
    with pytest.raises(ValueError, match="classes is 1"):
        nn.OneHot(nn.mlp(4, [], 2), 1)

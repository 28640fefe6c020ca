"""Networks with layers to which dimension 1 means something: never a wrong number under a plate of particles."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn as torch_nn
from torch.testing import assert_close

from pyro_vae import VAE, BottomUp, HierarchicalVAE, likelihoods, nn, posteriors, priors, weights

SIZES = [3, 5, 8]  # the probe tries 3 and 5 rows


def layers(size):
    return {
        "BatchNorm1d": torch_nn.BatchNorm1d(size),
        "GroupNorm": torch_nn.GroupNorm(1, size),
        "InstanceNorm1d": torch_nn.Sequential(
            torch_nn.Unflatten(1, (size, 1)), torch_nn.Conv1d(size, size, 1), torch_nn.Flatten()
        ),
        "PReLU": torch_nn.PReLU(size),
        "Softmax": torch_nn.Softmax(dim=1),
        "reshape": torch_nn.Flatten(1),
    }


def network(layer, inputs, size, outputs, seed=0):
    torch.manual_seed(seed)
    whole = torch_nn.Sequential(torch_nn.Linear(inputs, size), layer, torch_nn.Linear(size, outputs))
    for parameter in layer.parameters():
        torch_nn.init.normal_(parameter, 1.0)  # another one for each feature
    return whole


def vae_with(decoder):
    return VAE(priors.StandardNormal(2), likelihoods.Bernoulli(decoder), posteriors.Normal(nn.mlp(6, [8], 4))).eval()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layer", layers(3))
def test_a_decoder_is_refused_or_right(layer, size):
    """As many datapoints as features are where a layer takes the ones for the others."""
    decoder = network(layers(size)[layer], 2, size, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = vae_with(decoder)
    right = vae_with(nn.Broadcast(decoder, 1))
    right.posterior = plain.posterior
    x = torch.rand(size, 6).bernoulli()
    torch.manual_seed(1)
    expected = weights.log_weights(right.model, right.guide, x, 4)
    torch.manual_seed(1)
    try:
        found = weights.log_weights(plain.model, plain.guide, x, 4)
    except ValueError as error:
        assert "nn.Broadcast" in str(error)  # noqa: PT017
    else:
        assert_close(found, expected)
    torch.manual_seed(1)
    z = torch.randn(4, size, 2)
    apart = torch.stack([decoder(each) for each in z])
    assert_close(nn.Broadcast(decoder, 1)(z), apart)


@pytest.mark.parametrize("size", SIZES)
def test_it_warns_once_at_the_line_of_the_caller_and_says_what_to_do(size):
    with pytest.warns(UserWarning, match=r"nn\.Broadcast\(network, event_dims=1\)") as caught:
        vae_with(network(torch_nn.BatchNorm1d(size), 2, size, 6))
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae_with(nn.Broadcast(network(torch_nn.BatchNorm1d(size), 2, size, 6), 1))


@pytest.mark.parametrize("where", ["layer", "posterior"])
def test_layers_between_latents_are_refused_too(where):
    def normal(inputs, outputs, spoiled):
        batch_norm = torch_nn.BatchNorm1d(8) if spoiled else torch_nn.Softplus()
        return posteriors.Normal(network(batch_norm, inputs, 8, 2 * outputs))

    with pytest.warns(UserWarning, match="does not broadcast"):
        vae = HierarchicalVAE(
            priors.StandardNormal(2),
            [normal(2, 3, where == "layer")],
            likelihoods.Bernoulli(nn.mlp(3, [8], 6)),
            BottomUp([posteriors.Normal(nn.mlp(6, [8], 6)), normal(3, 2, where == "posterior")]),
        ).eval()
    with pytest.raises(ValueError, match=r"z\d.*does not broadcast.*nn\.Broadcast"):
        weights.log_weights(vae.model, vae.guide, torch.rand(8, 6).bernoulli(), 3)


def test_a_layer_that_is_right_for_one_number_of_rows_alone_is_found():
    """At first batch normalization changes nothing, so that 3 rows may be taken for 3 features; 5 rows may not."""
    decoder = torch_nn.Sequential(torch_nn.Linear(2, 3), torch_nn.BatchNorm1d(3), torch_nn.Linear(3, 6))
    with pytest.warns(UserWarning, match=r"likelihood\(z\) does not broadcast over a leading dimension"):
        vae_with(decoder)

"""What a model does works under ``torch.export``, ``torch.compile`` and ``torch.func``, with Pyro's validation on."""

from __future__ import annotations

import pyro
import pytest
import torch
from conftest import EVENT, LATENT, small_vae
from pyro import poutine
from test_parts import FITTING, identify, in_few, make
from torch import nn as torch_nn
from torch.export import Dim
from torch.testing import assert_close

from pyro_vae import ConditionalVAE, SemiSupervisedVAE, likelihoods, nn, posteriors, priors
from pyro_vae.system.tracing import is_tracing, validation

# Parts of the tests, whose own distributions check their arguments, and flows, in which zuko asserts that a tuple is not
# empty: torch.compile does not take that.
OWN = {"torch's own", "linear normal", "one covariance"}
FLOWS = {"MaskedAutoregressiveFlow", "zuko flow", "InverseAutoregressive", "NeuralSpline"}


def log_weight(vae, x, z):
    """The sum of log p(x, z) - log q(z | x), by Pyro's handlers, which look for NaN if its validation is on."""
    with pyro.validation_enabled(False):
        model, guide = (poutine.condition(program, data={"z": z}) for program in (vae.model, vae.guide))
        return poutine.trace(model).get_trace(x).log_prob_sum() - poutine.trace(guide).get_trace(x).log_prob_sum()


METHODS = {
    "encode": lambda vae, x, z: vae.encode(x),  # noqa: ARG005
    "decode": lambda vae, x, z: vae.decode(z),  # noqa: ARG005
    "reconstruct": lambda vae, x, z: vae.reconstruct(x),  # noqa: ARG005
    "codes": lambda vae, x, z: vae.codes(x)["z"],  # noqa: ARG005
    "likelihood": lambda vae, x, z: vae.likelihood(z).log_prob(x),
    "prior": lambda vae, x, z: vae.prior().log_prob(z),  # noqa: ARG005
    "posterior": lambda vae, x, z: vae.posterior(x).log_prob(z),
}


class Method(torch_nn.Module):
    def __init__(self, vae, name):
        super().__init__()
        self.vae, self.method = vae, {**METHODS, "programs": log_weight}[name]

    def forward(self, x, z):
        return self.method(self.vae, x, z)


@pytest.fixture(autouse=True)
def _compiled_anew():
    """Torch compiles one function, such as ``forward`` of ``nn.Sequential``, at most eight times in a process."""
    torch._dynamo.reset()


@pytest.fixture
def z(x):
    return torch.randn(len(x), LATENT)


@pytest.mark.parametrize("name", METHODS)
def test_export(name, vae, x, z):
    n = Dim("n")
    program = torch.export.export(Method(vae, name), (x, z), dynamic_shapes=({0: n}, {0: n})).module()
    assert_close(program(x[:3], z[:3]), METHODS[name](vae, x[:3], z[:3]))


@pytest.mark.parametrize("name", METHODS)
def test_compile(name, vae, x, z):
    """Without a break of the graph; machine code is what ``test_parts.py`` tests."""
    compiled = torch.compile(METHODS[name], fullgraph=True, backend="eager")
    assert_close(compiled(vae, x, z), METHODS[name](vae, x, z))


@pytest.mark.parametrize("name", [*METHODS, "programs"])
def test_vmap(name, vae, x, z):
    method = {**METHODS, "programs": log_weight}[name]
    found = torch.func.vmap(lambda row, code: method(vae, row[None], code[None]))(x, z)
    assert_close(found, torch.stack([method(vae, row[None], code[None]) for row, code in zip(x, z, strict=True)]))


@pytest.mark.parametrize("name", [*METHODS, "programs"])
def test_jacobian(name, vae, x, z):
    """That of ``torch.func`` equals differences."""
    vae = vae.double()
    x, z = x.double(), z.double()
    wrt = 0 if name in ("encode", "reconstruct", "codes") else 1
    method = {**METHODS, "programs": log_weight}[name]
    inputs = [torch.full_like(x, 0.5) if wrt == 0 else x, z]

    def function(moved):
        return method(vae, *(moved if i == wrt else each for i, each in enumerate(inputs)))

    with pyro.validation_enabled(True):
        direction = torch.randn_like(inputs[wrt])
        jacobian = torch.func.jacrev(function)(inputs[wrt])
        along = torch.tensordot(jacobian, direction, dims=direction.ndim)
        step = 1e-4
        with pytest.MonkeyPatch.context() as patch:  # grey values, which are no data
            patch.setattr(type(vae), "check", lambda *_: None)
            ahead, behind = (function(inputs[wrt] + sign * step * direction) for sign in (1, -1))
    assert_close(along, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)
    assert along.abs().sum() > 0


@pytest.mark.parametrize("name", [*METHODS, "programs"])
def test_functional_call(name, vae, x, z):
    module, other = Method(vae, name), Method(small_vae(), name)
    weights = dict(other.named_parameters())
    assert_close(torch.func.functional_call(module, weights, (x, z)), other(x, z))


def test_the_programs_can_be_exported(vae, x, z):
    n = Dim("n")
    shapes = {0: n}, {0: n}
    # strict=False is the default of today's torch.
    program = torch.export.export(Method(vae, "programs"), (x, z), dynamic_shapes=shapes, strict=False).module()
    assert_close(program(x[:3], z[:3]), log_weight(vae, x[:3], z[:3]))


@pytest.mark.parametrize("names", in_few(FITTING), ids=identify)
def test_every_part_can_be_compiled_and_mapped(names):
    prior, likelihood, posterior = make(*names)

    def outputs(x, z):
        q = posterior(x)
        return prior().log_prob(z), likelihood(z).log_prob(x), getattr(q, "base", q).mean

    with torch.no_grad(), pyro.validation_enabled(not OWN & set(names)):
        z = prior().sample((5,))
        x = likelihood(z).sample()
        expected = outputs(x, z)
        assert_close(torch.func.vmap(outputs)(x, z), expected)
        if not FLOWS & set(names):
            assert_close(torch.compile(outputs, fullgraph=True, backend="eager")(x, z), expected)


def test_a_compiled_jacobian(vae, z):
    jacobian = torch.func.jacrev(vae.decode)
    assert jacobian(z).abs().sum() > 0
    assert_close(torch.compile(jacobian, fullgraph=True, backend="eager")(z), jacobian(z))


def test_models_with_conditions(x):
    y, labels = torch.rand(len(x), 3), torch.arange(len(x)) % 3
    parts = [
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(nn.mlp(LATENT + 3, [4], EVENT)),
        posteriors.Normal(nn.mlp(16 + 3, [4], 2 * LATENT)),
    ]
    conditional = ConditionalVAE(*parts, conditions=3)
    labelled = SemiSupervisedVAE(*parts, nn.mlp(EVENT, [4], 3), classes=3)
    for vae, given in ((conditional, y), (labelled, labels)):
        expected = vae.reconstruct(x, given)
        assert_close(torch.compile(vae.reconstruct, fullgraph=True, backend="eager")(x, given), expected)
        rows = torch.func.vmap(lambda x, y, vae=vae: vae.reconstruct(x[None], y[None])[0])(x, given)
        assert_close(rows, expected)


def test_checks_of_shapes_stay_and_those_of_values_come_back(vae, x):
    with pytest.raises(Exception, match=r"x has shape \[7, 1, 4\]; expected \[n, 1, 4, 4\]"):
        torch.func.vmap(vae.encode)(x[None, ..., 0])
    torch.func.vmap(vae.encode)(x[None] + 5)
    with pytest.raises(ValueError, match="outside the support"):
        vae.encode(x + 5)


def test_it_is_known_when_torch_traces():
    seen = []

    def look(x):
        seen.append((is_tracing(), validation()))
        return x

    look(torch.ones(1))
    torch.func.vmap(look)(torch.ones(1))
    torch.func.grad(look)(torch.tensor(1.0))
    look(torch.ones(1))
    assert seen == [(False, None), (True, False), (True, False), (False, None)]

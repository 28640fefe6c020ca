"""Graphs of operations, against torch's make_fx."""

from __future__ import annotations

import weakref

import pyro
import pytest
import torch
from conftest import EVENT, small_vae
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

from pyro_vae.infer.recording.operations import NeedsValueError, TensorKind, operations

aten = torch.ops.aten
WEIGHT = torch.nn.Parameter(torch.linspace(-1.0, 1.0, 12).reshape(4, 3))
VAE = small_vae()
RUNNING = torch.zeros(3), torch.ones(3)


def gradients(x):
    loss = (x @ WEIGHT).tanh().logsumexp(-1).sum()
    return [loss.detach(), *torch.autograd.grad(loss, [WEIGHT])]


def step(x):
    data = (x.mean() > 0).to(x).expand(5, *EVENT)
    with pyro.validation_enabled(False):
        q = VAE.posterior(data)
        z = q.rsample()
        loss = (q.log_prob(z) - VAE.prior().log_prob(z) - VAE.likelihood(z).log_prob(data)).sum()
    return loss, torch.autograd.grad(loss, list(VAE.parameters()))


def written_in_place(x):
    y = x.clone()
    y[1:].mul_(2.0)
    y.t().add_(torch.rand(y.shape[1], 1))
    torch.add(x, 1.0, out=y[:, :])
    return y.square_(), x


def literals(x):
    offset = torch.tensor(2.0)
    offset.add_(1.0)
    repeats = torch.tensor(3) * torch.tensor([2])
    return x.repeat(repeats.item(), 1) + offset, torch.tensor([1.0, 2.0]).tolist()[1] * x


def in_inference_mode(x):
    with torch.inference_mode():
        return torch.nn.functional.linear(x, WEIGHT.T)


def in_mixed_precision(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (x @ WEIGHT).sum() + (x @ WEIGHT).mean()


FUNCTIONS = {
    "gradients": gradients,
    "step": step,
    "in place": written_in_place,
    "literals": literals,
    "inference mode": in_inference_mode,
    "mixed precision": in_mixed_precision,
    "several results": lambda x: (torch.unbind(x), {"sorted": tuple(x.sort()), "same": [x, WEIGHT, None, 1.5]}),
    "batch norm": lambda x: torch.nn.functional.batch_norm(x @ WEIGHT, *RUNNING, training=True),
    "convolution": lambda x: torch.nn.functional.conv2d(x[None, None], WEIGHT[None, None, :2, :2], padding=1),
    "vmap": lambda x: vmap(grad(lambda row: (row @ WEIGHT).exp().sum()))(x),
    "random": lambda x: (torch.randn(3), torch.rand_like(x), torch.bernoulli(x.sigmoid()), torch.randperm(4)),
    "masks": lambda x: (x[x > 0], x[:, torch.tensor([0, 2])], x.where(x > 0, float("-inf"))),
    "factories": lambda x: torch.arange(4, dtype=x.dtype) + torch.zeros_like(x) + torch.full((4,), float("nan")),
    "checkpoint": lambda x: torch.utils.checkpoint.checkpoint(gradients, x, use_reentrant=False),
}


@pytest.fixture(autouse=True)
def _fresh():
    pyro.clear_param_store()
    for tensor, value in zip(RUNNING, (0.0, 1.0), strict=True):
        tensor.fill_(value)


def example(seed: int = 0) -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))


def results_of(function, x):
    """The results, what is left of the input, and the running statistics."""
    torch.manual_seed(0)
    x, before = x.clone(), [each.clone() for each in RUNNING]
    results = function(x)
    after = [each.clone() for each in RUNNING]
    for each, value in zip(RUNNING, before, strict=True):
        each.copy_(value)
    return [results, x, after]


def called(graph):
    """The operations that it calls, without those whose results nobody uses."""
    graph.graph.eliminate_dead_code()
    same = {aten.alias.default: aten.detach.default}  # newer versions of torch write one for the other
    return [same.get(node.target, node.target) for node in graph.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_they_are_those_of_make_fx_and_give_the_results_of_the_function(name):
    torch.manual_seed(0)
    ours = operations(FUNCTIONS[name], example())
    torch.manual_seed(0)
    theirs = make_fx(FUNCTIONS[name])(example())
    if hasattr(torch.utils._python_dispatch, "autograd_would_have_decomposed"):  # torch 2.7 splits what runs as one
        assert called(ours) == called(theirs)
    for seed in range(2):
        expected = results_of(FUNCTIONS[name], example(seed))
        assert_close(results_of(ours, example(seed)), expected, rtol=0, atol=0, equal_nan=True)


def test_the_function_runs_once_and_returns_what_it_would():
    calls = []
    operations(lambda x: calls.append((type(x), x.requires_grad)), example().requires_grad_())
    assert calls == [(torch.Tensor, True)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_kinds_are_those_of_the_tensors(name):
    graph = operations(FUNCTIONS[name], example())
    seen = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, node):
            value = super().run_node(node)
            if node.op != "output" and isinstance(value, torch.Tensor):
                assert node.meta["val"] == TensorKind.of(value)
                empty = node.meta["val"].empty()
                assert (empty.shape, empty.stride(), empty.dtype) == (value.shape, value.stride(), value.dtype)
                seen.append(node)
            return value

    Watch(graph).run(example())
    assert seen


def test_other_tensors_are_attributes_not_copies():
    weight, buffer = torch.nn.Parameter(torch.ones(4)), torch.ones(4)
    graph = operations(lambda x: x * weight + buffer + weight, example())
    held = [getattr(graph, node.target) for node in graph.graph.nodes if node.op == "get_attr"]
    assert [any(each is tensor for each in held) for tensor in (weight, buffer)] == [True, True]
    with torch.no_grad():
        weight.fill_(2.0)
        buffer.fill_(3.0)
    assert_close(graph(example()), example() * 2.0 + 3.0 + 2.0)


@pytest.mark.parametrize(
    "decide",
    [
        lambda x: bool(x.sum() > 0),
        lambda x: float(x.sum()),
        lambda x: x.sum().item(),
        lambda x: torch.equal(x, x + 1.0),
        lambda x: (torch.tensor(1.0) * x.sum()).item(),
        lambda _: float(torch.rand(())),
        lambda _: float(torch.tensor(1.0).uniform_()),
        lambda _: float(torch.bernoulli(torch.tensor(0.5))),
        lambda _: float(2.0 * WEIGHT.sum()),
    ],
)
def test_a_decision_by_values_is_an_error(decide):
    with pytest.raises(NeedsValueError, match=r"needs the value of a tensor"):
        operations(lambda x: x if decide(x) else -x, example())


def test_a_literal_that_gets_other_values_is_no_constant():
    def through_a_view(x):
        literal = torch.tensor([1.0])
        literal.view(()).copy_(x.sum())
        return x if literal.item() > 0 else -x

    def as_output(x):
        literal = torch.tensor(1.0)
        torch.add(x[0, 0], 1.0, out=literal)
        return x if literal > 0 else -x

    for function in (through_a_view, as_output):
        with pytest.raises(NeedsValueError):
            operations(function, example())


def test_literals_stay_constants_where_they_get_constant_values_or_are_read():
    def function(x):
        literal = torch.tensor(1.0)
        literal.add_(torch.tensor(2.0)).mul_(-1.0)
        y = x.clone().add_(literal)
        return y if literal < 0 else -y

    assert_close(operations(function, example())(example(1)), example(1) - 3.0)


def test_a_decision_by_what_does_not_change_is_made_once():
    flag = torch.tensor(True)
    graph = operations(lambda x: x + 1.0 if flag and torch.tensor(2) > 1 else x, example())
    assert_close(graph(example()), example() + 1.0)


def test_generators_cannot_be_part_of_a_graph():
    generator = torch.Generator()
    with pytest.raises(NotImplementedError, match=r"an argument of type Generator cannot be recorded"):
        operations(lambda x: x + torch.randn(4, generator=generator), example())


def test_errors_of_the_function_come_through():
    with pytest.raises(ZeroDivisionError):
        operations(lambda x: x * (1 / 0), example())
    assert torch.is_autocast_cache_enabled()
    assert torch.ones(2).sum().item() == 2.0  # nothing is recorded any more


def test_tensors_that_are_not_used_any_more_are_freed():
    alive = []

    def function(x):
        y = x + 1.0
        alive.append(weakref.ref(y))
        y = y * 2.0
        alive.append(alive[0]() is not None)
        return y

    operations(function, example())
    assert alive[1] is False


def test_a_subclass_of_tensor_calls_its_own_operations():
    class Doubled(torch.Tensor):
        @staticmethod
        def __new__(cls, inner):
            wrapper = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
            wrapper.inner = inner
            return wrapper

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            plain = [each.inner if isinstance(each, cls) else each for each in args]
            return func(*plain, **(kwargs or {})) * 2.0

    graph = operations(lambda x: Doubled(x) + 1.0, example())
    assert_close(graph(example()), (example() + 1.0) * 2.0)

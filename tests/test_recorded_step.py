"""Recorded steps: graphs with fewer operations, when they are compiled, and what happens when something fails."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO
from torch.testing import assert_close

from pyro_vae import SVI, VAE, data, likelihoods, nn, posteriors, priors
from pyro_vae.infer import recorded_step, svi
from pyro_vae.infer.recorded_step import RecordedStep
from pyro_vae.infer.recording.call import Call
from pyro_vae.infer.recording.record import record
from pyro_vae.infer.recording.simplify import written_attributes


def small_svi(**options) -> tuple[SVI, torch.Tensor]:
    torch.manual_seed(0)
    vae = VAE(priors.StandardNormal(2), likelihoods.Bernoulli(nn.mlp(2, [4], 3)), posteriors.Normal(nn.mlp(3, [4], 4)))
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    return SVI(vae.model, vae.guide, optimizer, Trace_ELBO(), **options), torch.rand(5, 3).bernoulli()


def weights_of(svi: SVI) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in svi.optim.parameters()])


def neutral(x):
    return ((x / 1 + 0) * 1).view(x.shape).detach() * torch.ones_like(x) ** 1


def constants(x):
    return x * (torch.full((3,), 2.0).exp() + torch.tensor([1.0, 2.0, 3.0])).sqrt()


def in_place(x):
    total = torch.zeros(3)
    view = total.view(3)
    total.add_(x)
    return view + 0 + total.detach() * 1


def random(x):
    return x + torch.randn(3) + torch.rand_like(torch.ones_like(x))


@pytest.mark.parametrize(("function", "most"), [(neutral, 1), (constants, 1), (in_place, 9), (random, 5)])
def test_simplified_graphs_have_the_same_results_by_fewer_operations(function, most):
    graph = record(function, torch.zeros(3))
    operations = [node for node in graph.graph.nodes if node.op == "call_function"]
    assert len(operations) <= most
    for _ in range(2):  # what is written in place is made anew
        x = torch.randn(3)
        torch.manual_seed(1)
        expected = function(x)
        torch.manual_seed(1)
        assert torch.equal(graph(x), expected)


def test_attributes_that_are_written_to_are_found():
    norm = torch.nn.BatchNorm1d(3)
    graph = record(norm, torch.randn(4, 3))
    found = {id(tensor) for tensor in written_attributes(graph)}
    assert found == {id(tensor) for tensor in norm.buffers()}


def test_attributes_are_no_constants():
    """A buffer may be another one at the next step."""
    buffer = torch.tensor([1.0, 2.0, 3.0])
    graph = record(lambda x: x * buffer.exp(), torch.zeros(3))
    buffer.mul_(2)
    assert torch.equal(graph(torch.ones(3)), buffer.exp())


def test_a_decision_by_a_parameter_is_refused():
    weight = torch.nn.Parameter(torch.ones(()))
    with pytest.raises(RuntimeError):
        record(lambda x: x if weight > 0 else -x, torch.zeros(3))
    with pytest.raises(RuntimeError):
        record(lambda x: x * float(weight), torch.zeros(3))


class Compiler:
    """In the place of Inductor."""

    def __init__(self, error: Exception | None = None, wrong: bool = False):
        self.calls, self.runs = 0, 0
        self.error, self.wrong = error, wrong

    def __call__(self, graph, *_):
        self.calls += 1
        if self.error is not None:
            raise self.error

        def run(*inputs):
            self.runs += 1
            results = graph(*inputs)
            return [2 * result for result in results] if self.wrong else results

        return run


def losses(svi: SVI, x: torch.Tensor, steps: int = 8) -> list[float]:
    torch.manual_seed(2)
    return [svi.step(x) for _ in range(steps)]


@pytest.fixture(scope="module")
def expected() -> list[float]:
    return losses(*small_svi(compile="graph"))


def seconds(compiled: float):
    """What a step takes, in the place of a clock."""
    return lambda self, way, _: 1.0 if way is self._graph else compiled


def test_auto_compiles_once_it_would_have_paid(monkeypatch, expected):
    compiler = Compiler()
    monkeypatch.setattr(RecordedStep, "_seconds", seconds(compiled=1.05))
    monkeypatch.setattr(recorded_step, "inductor", compiler)
    assert losses(*small_svi()) == expected
    assert compiler.calls == 0
    monkeypatch.setattr(recorded_step, "_SECONDS_TO_COMPILE", 1e-9)
    assert losses(*small_svi()) == expected
    assert compiler.calls == 1
    assert compiler.runs == 6  # one to see that it is right, then all steps but three


def test_auto_goes_back_from_what_is_slower(monkeypatch, expected):
    compiler = Compiler()
    monkeypatch.setattr(RecordedStep, "_seconds", seconds(compiled=1.2))
    monkeypatch.setattr(recorded_step, "inductor", compiler)
    monkeypatch.setattr(recorded_step, "_SECONDS_TO_COMPILE", 1e-9)
    assert losses(*small_svi()) == expected
    assert compiler.calls == 1
    assert compiler.runs == 1


@pytest.mark.parametrize("compiler", [Compiler(error=RuntimeError("no compiler")), Compiler(wrong=True)])
def test_without_a_compiler_recorded_steps_are_replayed(monkeypatch, expected, compiler):
    monkeypatch.setattr(recorded_step, "inductor", compiler)
    monkeypatch.setattr(recorded_step, "_SECONDS_TO_COMPILE", 1e-9)
    with pytest.warns(UserWarning, match="cannot be compiled, and is replayed as it was recorded"):
        assert losses(*small_svi(compile=True)) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert losses(*small_svi()) == expected


def test_without_bfloat16_a_warning_says_so(monkeypatch, expected):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.warns(UserWarning, match="no instructions for it; float32 is used"):
        assert losses(*small_svi(compile="graph", precision="bfloat16")) == expected


@pytest.mark.parametrize("when", range(5))
def test_an_interrupted_step_leaves_nothing_behind(when):
    """Ctrl-C in the model at step ``when``: parameters stay, and no gradients are left for the next one to add to."""

    class Interrupted(torch.nn.Module):
        calls = -100  # to make a VAE runs its parts

        def forward(self, z):
            Interrupted.calls += 1
            if Interrupted.calls == when + 1:
                raise KeyboardInterrupt
            return z

    torch.manual_seed(0)
    decoder = torch.nn.Sequential(torch.nn.Linear(2, 3), Interrupted())
    vae = VAE(priors.StandardNormal(2), likelihoods.Bernoulli(decoder), posteriors.Normal(nn.mlp(3, [4], 4)))
    ours = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(), compile="graph")
    x = torch.rand(5, 3).bernoulli()
    Interrupted.calls, interrupted = 0, False
    for _ in range(5):
        before = {name: value.clone() for name, value in vae.state_dict().items()}
        try:
            ours.step(x)
        except KeyboardInterrupt:
            interrupted = True
            assert_close(vae.state_dict(), before)
        assert all(parameter.grad is None for parameter in vae.parameters())
    assert interrupted == (when < 3)  # the others are replayed, without the Python of the model


def test_calls_that_are_never_alike_are_advised_against(monkeypatch):
    monkeypatch.setattr(svi, "_MANY", 5)

    def model(x, beta):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z * beta, 1.0), obs=x)

    def guide(x, beta):  # noqa: ARG001
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))

    ours = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for i in range(4):
        ours.step(torch.zeros(3), beta=0.1 * i)
    with pytest.warns(UserWarning, match="in 5 different ways"):
        ours.step(torch.zeros(3), beta=0.4)


def test_learning_rates_that_change_between_epochs_are_taken_over():
    """Within an epoch nothing is looked at between steps, but at its beginning."""
    ours, x = small_svi(compile="graph")
    batches = data.Batches(x, 1)
    for _ in range(2):
        ours.epoch(batches)
    ours.optim.optimizer.param_groups[0]["lr"] = 0.0
    before = [parameter.clone() for parameter in ours.optim.parameters()]
    ours.epoch(batches)
    assert_close(list(ours.optim.parameters()), before, rtol=0, atol=0)


def test_the_loss_of_an_epoch_is_the_sum_over_all_datapoints():
    ours, _ = small_svi(compile="graph")
    x = torch.rand(53, 3)
    batches = data.Batches(x, 10, transform=data.binarize.dynamic)  # the last batch is smaller
    for _ in range(3):
        torch.manual_seed(4)
        total = ours.epoch(batches)
        assert 53 * 0.5 < total < 53 * 5
    untrained, _ = small_svi(compile="graph")
    torch.manual_seed(4)
    first = untrained.epoch(batches)
    by_hand, _ = small_svi(compile=False)
    torch.manual_seed(4)
    assert first == pytest.approx(sum(by_hand.step(batch) for batch in batches), rel=1e-6)


# The step in two halves, and as a CUDA graph


@pytest.mark.parametrize("mode", ["graph", False])
def test_a_step_in_two_halves_is_a_step(mode):
    """Gradients, then the update: the same losses and weights; without the update, nothing changes."""
    whole, x = small_svi(compile=mode)
    expected = [whole.step(x) for _ in range(6)], weights_of(whole)
    svi, x = small_svi(compile=mode)
    losses = []
    for _ in range(6):
        before = weights_of(svi)
        computed = svi._gradients(Call((x,), {}))
        losses.append(sum(float(loss) for loss in computed.losses))
        assert torch.equal(weights_of(svi), before)
        computed.update()
    assert losses == pytest.approx(expected[0], rel=1e-6)
    assert_close(weights_of(svi), expected[1])


def test_preparing_records_a_step_and_takes_none(monkeypatch):
    svi, x = small_svi(compile="graph")
    before = weights_of(svi)
    assert svi._prepare(Call((x,), {})) > 0
    assert torch.equal(weights_of(svi), before)
    calls = []
    model = svi._pyro.run
    monkeypatch.setattr(svi._pyro, "run", lambda *args: calls.append(1) or model(*args))
    svi.step(x)
    assert not calls  # the first step is a replay
    assert not torch.equal(weights_of(svi), before)


class Captured:
    """Stands in for a CUDA graph: it runs the function that it has captured."""

    made = ()

    def __init__(self, function, _inputs) -> None:
        self.function = function
        Captured.made += (function.__name__,)

    def __call__(self, *inputs):
        return list(self.function(*inputs))


@pytest.mark.parametrize("halves", [True, False])
def test_what_is_captured_for_a_gpu(halves, monkeypatch):
    """All operations on tensors, once; the update again when the optimizer has another state."""
    (captured, x), (plain, _) = small_svi(compile="graph"), small_svi(compile="graph")

    def take(ours):
        if not halves:
            return ours.step(x)
        computed = ours._gradients(Call((x,), {}))
        computed.update()
        return float(computed.losses[0])

    def both(steps):
        found = []
        for each in (captured, plain):
            torch.manual_seed(1)
            found.append([take(each) for _ in range(steps)])
        assert found[0] == found[1]
        assert_close(weights_of(captured), weights_of(plain))

    both(4)
    monkeypatch.setattr(recorded_step, "CudaGraph", Captured)
    monkeypatch.setattr(Captured, "made", ())
    monkeypatch.setattr(next(iter(captured._steps.values())), "_device", SimpleNamespace(type="cuda"))
    both(3)
    assert Captured.made == ("_without_update" if halves else "_with_update",)
    for each in (captured, plain):
        each.optim.set_state(each.optim.get_state())
    both(2)
    assert Captured.made == (("_without_update",) if halves else ("_with_update",) * 2)


def test_a_keyword_is_not_taken_for_another():
    """What is recorded for one keyword argument is not replayed for another one of the same shape."""

    def model(up=None, down=None):
        loc = pyro.param("loc", torch.zeros(3))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=up if down is None else -down)

    def guide(up=None, down=None):
        pass

    def run(kind, **options):
        pyro.clear_param_store()
        ours = kind(model, guide, pyro.optim.SGD({"lr": 0.1}), Trace_ELBO(), **options)
        x = torch.tensor([1.0, 2.0, 3.0])
        return [ours.step(**{name: x}) for name in ["up"] * 4 + ["down"] * 4]

    assert run(SVI, compile="graph") == pytest.approx(run(pyro.infer.SVI), rel=1e-6)

"""Private names of torch and Pyro: that they do what they are used for, and what happens without each of them.

Tested with torch 2.7 and 2.15, and with Pyro 1.9.1 and 1.9.2.
"""

import ast
import importlib.util
import operator
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pyro
import pyro.poutine.runtime
import pytest
import torch
import torch._inductor
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch._subclasses import fake_tensor
from torch.distributions import transforms
from torch.fx.experimental import symbolic_shapes
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import StepLR

import pyro_vae
from pyro_vae import SVI, VAE, likelihoods, nn, posteriors, priors
from pyro_vae.evidence.runner.chunks import Allocations
from pyro_vae.infer.recording.record import record
from pyro_vae.saving import bounded
from pyro_vae.system import kernel_source, private_apis

GONE = SimpleNamespace()  # something without any private name


# All of them are in one module


def private_names(path):
    """Private attributes and imports in a file, except for those of ``self``, ``cls`` and the package itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            is_own = owner in ("self", "cls", "super()") or owner.startswith(("aten", "sys", "self."))
            if node.attr.startswith("_") and not node.attr.startswith("__") and not is_own:
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("torch", "pyro.")):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            yield from (name for name in names if name.startswith("_") or name == "experimental")


def test_no_other_module_uses_private_names():
    files = [path for path in Path(pyro_vae.__file__).parent.rglob("*.py") if path.name != "private_apis.py"]
    own = {node.name for path in files for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "name")}
    own |= {
        node.attr
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    own |= {"_replace", "_fields"}  # of named tuples
    found = {str(path): names for path in files if (names := set(private_names(path)) - own)}
    assert not found


def test_such_names_would_be_found():
    assert {"_PYRO_STACK", "_schema", "_inductor", "experimental"} & set(private_names(Path(private_apis.__file__)))


# Recording: without a name, steps run as in Pyro


def train(compile_, steps=5):
    pyro.clear_param_store()
    torch.manual_seed(0)
    vae = VAE(priors.StandardNormal(2), likelihoods.Bernoulli(nn.mlp(2, [4], 3)), posteriors.Normal(nn.mlp(3, [4], 4)))
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters(), lr=0.01), Trace_ELBO(), compile=compile_)
    x = torch.rand(5, 3).bernoulli()
    losses = [svi.step(x) for _ in range(steps)]
    return losses, torch.cat([parameter.detach().flatten() for parameter in vae.parameters()])


@pytest.mark.parametrize("name", private_apis._NEEDED)
def test_without_it_nothing_is_recorded_and_steps_run_as_in_pyro(name, monkeypatch):
    expected = train(False)
    monkeypatch.setitem(private_apis._NEEDED, name, (GONE, "it"))
    with pytest.warns(UserWarning, match=rf"cannot be recorded.*do not have {name}"):
        losses, weights = train("graph")
    assert losses == expected[0]
    assert torch.equal(weights, expected[1])


def test_with_all_of_them_steps_are_recorded(monkeypatch):
    recorded = []
    monkeypatch.setattr("pyro_vae.infer.svi.record", lambda *args: recorded.append(1) or record(*args))
    train("graph")
    assert recorded == [1]
    private_apis.check_recording()


def test_handlers(monkeypatch):
    assert not private_apis.handlers_are_active()
    with poutine.trace():
        assert private_apis.handlers_are_active()
    monkeypatch.delattr(pyro.poutine.runtime, "_PYRO_STACK")
    assert private_apis.handlers_are_active()


def test_gradient_hooks():
    x = torch.zeros(2, requires_grad=True)
    assert not private_apis.has_gradient_hooks(x)
    x.register_hook(lambda gradient: gradient)
    assert private_apis.has_gradient_hooks(x)
    assert private_apis.has_gradient_hooks(GONE)


def test_what_a_module_holds(monkeypatch):
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    module.register_parameter("scale", torch.nn.Parameter(torch.ones(2)))
    module.register_buffer("count", torch.zeros(2))
    parameters, buffers, modules = private_apis.held_by(module)
    names = [["scale"], ["count"], ["0", "1"]]
    assert [list(held) for held in (parameters, buffers, modules)] == names
    module.scale = torch.nn.Parameter(torch.zeros(2))
    assert parameters["scale"] is module.scale
    monkeypatch.setattr(private_apis, "_HELD", ("_gone",))
    assert [list(held) for held in private_apis.held_by(module)] == names


def test_schemas():
    assert private_apis.schema_of(torch.ops.aten.add_.Tensor).is_mutable
    assert not private_apis.schema_of(torch.ops.aten.add.Tensor).is_mutable
    assert private_apis.schema_of(operator.getitem) is None


def test_value_checks_are_those_that_look(monkeypatch):
    """With all of them replaced, neither Pyro nor torch complains."""
    for owner, name in private_apis.value_checks():
        monkeypatch.setattr(owner, name, lambda *_: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyro.util.warn_if_nan(torch.tensor(torch.nan), "loss")
    dist.Exponential(torch.ones(2), validate_args=True).log_prob(torch.tensor([1.0, -1.0]))


def test_sums_without_selection(monkeypatch):
    terms, mask = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[True, False], [False, True]])
    assert not torch._C._get_tracing_state()
    for owner, name, value in private_apis.sums_without_selection():
        monkeypatch.setattr(owner, name, value)
    assert pyro.infer.util.torch._C._get_tracing_state()
    assert pyro.infer.util.torch.ones is torch.ones
    assert terms.masked_select(mask).tolist() == [1.0, 0.0, 0.0, 4.0]


# Speed


def test_optimizers_without_the_names_that_import_dynamo_late_needs(monkeypatch):
    method = Optimizer.add_param_group
    monkeypatch.delattr(method.__wrapped__, "__dynamo_disable", raising=False)
    private_apis.import_dynamo_late()
    assert hasattr(method.__wrapped__, "__dynamo_disable")
    Adam([torch.nn.Parameter(torch.ones(1))])  # TorchDynamo is imported here: torch's own function takes over
    assert "_without_dynamo" not in getattr(method.__wrapped__.__dynamo_disable, "__qualname__", "")
    monkeypatch.setattr(Optimizer, "add_param_group", method.__wrapped__)
    private_apis.import_dynamo_late()
    Adam([torch.nn.Parameter(torch.ones(1))])


def test_compiled_graphs(monkeypatch):
    x = torch.randn(3)
    graph = record(lambda x: [(x.sin() + 1).exp()], x)
    torch.testing.assert_close(private_apis.compile_graph(graph, [x])(x), graph(x))
    expected = train("graph")
    monkeypatch.delattr(torch._inductor, "compile")
    with pytest.warns(UserWarning, match="cannot be compiled, and is replayed as it was recorded"):
        losses, weights = train(True)
    assert losses == expected[0]
    assert torch.equal(weights, expected[1])


def test_a_compiler_that_does_not_know_the_instructions_of_the_processor(monkeypatch):
    """Inductor is told that it does. Where that is wrong, it is asked again, and finds out by itself."""
    by_torch, asked = torch._inductor.compile, []

    def compile_(graph, inputs, options):
        asked.append(options.get("cpp.vec_isa_ok"))
        instructions = importlib.import_module("torch._inductor.cpu_vec_isa").valid_vec_isa_list
        if len(asked) < 3:
            instructions()
            raise RuntimeError("unrecognized command-line option -mavx1024")
        assert instructions.cache_info().currsize == 0
        return by_torch(graph, inputs, options)

    monkeypatch.setattr(torch._inductor, "compile", compile_)
    x = torch.randn(3)
    graph = record(lambda x: [(x.sin() + 1).exp()], x)
    torch.testing.assert_close(private_apis.compile_graph(graph, [x])(x), graph(x))
    assert asked == [True, True, None]


@pytest.mark.parametrize("is_described", [True, False])
@pytest.mark.usefixtures("new_cache")
def test_what_was_compiled_before_is_found(is_described, monkeypatch):
    """Also by another process; then neither code is generated, nor the C++ compiler called."""
    counters = importlib.import_module("torch._dynamo.utils").counters
    if not is_described:
        monkeypatch.setattr(private_apis, "_described", list)
    x = torch.randn(7)
    graph = record(lambda x: [(x.sin() + 1).exp() * 3], x)
    hits = []
    for _ in range(2):
        before = counters["inductor"]["fxgraph_cache_hit"]
        torch.testing.assert_close(private_apis.compile_graph(graph, [x])(x), graph(x))
        hits.append(counters["inductor"]["fxgraph_cache_hit"] - before)
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    assert hits[0] == 0
    assert version < (2, 8) or hits[1] == is_described


@pytest.mark.parametrize(("owner", "name"), [(fake_tensor, "FakeTensorMode"), (symbolic_shapes, "ShapeEnv")])
def test_descriptions_for_inductor(owner, name, monkeypatch):
    x = torch.randn(7, 3).T
    (described,) = private_apis._described([x])
    assert isinstance(described, fake_tensor.FakeTensor)
    assert (described.shape, described.stride()) == (x.shape, x.stride())
    monkeypatch.delattr(owner, name)
    assert private_apis._described([x]) == [x]


@pytest.fixture
def new_cache(monkeypatch, tmp_path):
    """Inductor has compiled nothing yet, but for the headers. A function that counts its libraries of kernels.

    It makes others to try the instructions of the processor; these are no modules of Python.
    """
    codecache = importlib.import_module("torch._inductor.codecache")  # it decides now where headers are
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    codecache.FxGraphCache.clear()
    return lambda: sum("PyInit_" in each.with_suffix(".cpp").read_text() for each in tmp_path.rglob("*.so"))


def two_kernels(size):
    """A graph, with an input. A product stands between its kernels. For no other size are they the same."""
    x = torch.randn(size, size, dtype=torch.float64)
    return record(lambda x: [(x.sin() @ x).sigmoid()], x), x


@pytest.mark.parametrize(("threads", "libraries"), [(1, 1), (9, 2)])
def test_kernels_are_in_as_few_libraries_as_there_are_threads_to_compile_in(new_cache, threads, libraries):
    graph, x = two_kernels(20 + threads)
    with torch._inductor.config.patch(compile_threads=threads):
        fast = private_apis.compile_graph(graph, [x])
    for each in (x, x + 1):
        torch.testing.assert_close(fast(each), graph(each))
    assert new_cache() == libraries


def test_kernels_have_a_library_each_where_they_do_not_compile_together(monkeypatch, new_cache):
    monkeypatch.setattr(kernel_source, "ARGUMENT", "this is not C++")
    graph, x = two_kernels(40)
    torch.testing.assert_close(private_apis.compile_graph(graph, [x])(x), graph(x))
    assert new_cache() == 2


def test_only_usual_sources_are_put_together_and_only_where_inductor_is_the_one_we_know(monkeypatch):
    usual = 'extern "C"  void  kernel(float* out) {}'
    assert kernel_source.is_usual(usual)
    assert not kernel_source.is_usual("#define a b\n" + usual)
    assert not kernel_source.is_usual(usual + usual)
    collector = importlib.import_module("torch._inductor.async_compile").AsyncCompile
    before = collector.cpp_pybinding, collector.wait
    with private_apis._few_libraries():
        assert (collector.cpp_pybinding, collector.wait) != before
    assert (collector.cpp_pybinding, collector.wait) == before
    monkeypatch.setattr(private_apis, "_COLLECTS", ("no_such_method",))
    with private_apis._few_libraries():
        assert (collector.cpp_pybinding, collector.wait) == before


def test_bfloat16(monkeypatch):
    assert private_apis.has_bfloat16() in (True, False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert private_apis.has_bfloat16()
    monkeypatch.setattr(torch.ops, "mkldnn", GONE)
    assert not private_apis.has_bfloat16()


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_step_hooks(register):
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    assert not private_apis.has_step_hooks(optimizer)
    getattr(optimizer, register)(lambda *_: None)
    assert private_apis.has_step_hooks(optimizer)
    assert private_apis.has_step_hooks(GONE)


def test_a_mark_that_an_optimizer_has_stepped():
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    with pytest.warns(UserWarning, match=r"lr_scheduler.step\(\)` before `optimizer.step\(\)"):
        StepLR(optimizer, 1).step()
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    private_apis.mark_as_stepped(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StepLR(optimizer, 1).step()


def test_scaling_in_place(monkeypatch):
    tensors = [torch.randn(3), torch.randn(2, 2)]
    expected = [0.3 * tensor for tensor in tensors]
    others = [tensor.clone() for tensor in tensors]
    private_apis.scale_in_place(tensors, 0.3)
    monkeypatch.delattr(torch, "_foreach_mul_")
    private_apis.scale_in_place(others, 0.3)
    for found in (tensors, others):
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_a_step_of_adam(kind, amsgrad, monkeypatch):
    gradients = [torch.randn(3), torch.randn(2, 2)]
    names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsgrad else [])]
    found = []
    for way in ("optimizer", "kernel", "function"):
        parameters = [torch.ones(3, requires_grad=True), torch.ones(2, 2, requires_grad=True)]
        optimizer = kind(parameters, lr=0.1, weight_decay=0.2, amsgrad=amsgrad, fused=True)
        for i in range(3):
            if i == 0 or way == "optimizer":
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient.clone()
                optimizer.step()
                continue
            with monkeypatch.context() as patch, torch.no_grad():
                if way == "function":
                    patch.setattr(private_apis, "torch", GONE)
                states = [optimizer.state[each] for each in parameters]
                moments = [[state[name] for state in states] for name in names] + [[]] * (not amsgrad)
                settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.2, "eps": 1e-8}
                steps = [state["step"] for state in states]
                private_apis.update_by_adam(
                    kind, parameters, gradients, *moments, steps, amsgrad=amsgrad, maximize=False, **settings
                )
        found.append([*parameters, *(optimizer.state[each][name] for each in parameters for name in (*names, "step"))])
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


# Looking at operations, modules and distributions


@pytest.fixture(params=["with it", "without it"])
def reloaded(request, monkeypatch):
    """Loads a module again, with ``TorchDispatchMode`` or without it."""
    if request.param == "without it":
        monkeypatch.setitem(sys.modules, "torch.utils._python_dispatch", None)
    fresh = load(private_apis)
    assert (fresh.TorchDispatchMode is fresh._FunctionMode) == (request.param == "without it")
    monkeypatch.setattr(private_apis, "TorchDispatchMode", fresh.TorchDispatchMode)
    return load


def load(module):
    spec = importlib.util.spec_from_file_location("reloaded", module.__file__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return fresh


def test_what_operations_allocate_is_seen(reloaded):
    fresh = reloaded(importlib.import_module(Allocations.__module__))
    x, weight = torch.randn(7, 3), torch.randn(3, 5)
    with fresh.Allocations(7) as allocations:
        weight.exp()
        (x @ weight).exp_()
    assert allocations.largest == allocations.total == 7 * 5 * 4


def test_what_a_file_asks_for_is_bounded(reloaded):
    fresh = reloaded(bounded)
    with fresh.Bounded(1000):
        torch.ones(100).exp()
    with pytest.raises(ValueError, match="far more memory or time than its weights need"), fresh.Bounded(1000):
        torch.empty(2**40)


def test_versions_of_tensors():
    x = torch.zeros(2)
    before = private_apis.version_of(x)
    x.add_(1)
    assert private_apis.version_of(x) > before
    assert private_apis.version_of(GONE) == 0


def test_gamma_draws(monkeypatch):
    """By both ways the same draws from the same seed, of the right mean: five standard errors."""
    concentration = torch.full((4000,), 2.5, dtype=torch.float64)
    torch.manual_seed(0)
    draws = private_apis.standard_gamma(concentration)
    assert abs(draws.mean().item() - 2.5) < 5 * (2.5 / 4000) ** 0.5
    gamma = torch._standard_gamma
    monkeypatch.delattr(torch, "_standard_gamma")
    monkeypatch.setattr("torch.distributions.gamma._standard_gamma", gamma)
    torch.manual_seed(0)
    assert torch.equal(private_apis.standard_gamma(concentration), draws)


def test_masks():
    mask = torch.tensor([True, False, True])
    masked = dist.Normal(torch.zeros(3), 1.0).mask(mask)
    assert torch.equal(private_apis.mask_of(masked), mask)
    assert private_apis.mask_of(dist.Normal(torch.zeros(3), 1.0).mask(False)) is False
    state = torch.get_rng_state()
    without = SimpleNamespace(sample=masked.sample, log_prob=masked.log_prob)
    assert torch.equal(private_apis.mask_of(without), mask)
    assert torch.equal(torch.get_rng_state(), state)


def test_inverses(monkeypatch):
    transform = transforms.ExpTransform()
    inverse = transform.inv
    assert private_apis.inverse_of(inverse) is transform
    assert private_apis.inverse_of(transform) is None
    monkeypatch.delattr(transforms, "_InverseTransform")
    assert private_apis.inverse_of(inverse) is None


@pytest.mark.parametrize("validate", [True, False])
def test_validation(validate):
    assert private_apis.validates(dist.Normal(0.0, 1.0, validate_args=validate)) is validate
    assert private_apis.validates(GONE)


def test_buffers_that_are_not_saved():
    module = torch.nn.Module()
    module.register_buffer("saved", torch.zeros(2))
    module.register_buffer("unsaved", torch.zeros(2), persistent=False)
    assert private_apis.unsaved_buffers(module) == {"unsaved"}
    without = SimpleNamespace(named_buffers=module.named_buffers, state_dict=module.state_dict)
    assert private_apis.unsaved_buffers(without) == {"unsaved"}


def test_constraints(monkeypatch):
    pyro.clear_param_store()
    pyro.param("scale", torch.ones(2), constraint=dist.constraints.positive)
    expected = pyro.get_param_store().get_state()["constraints"]["scale"]
    assert private_apis.constraint_of("scale") is expected
    store = SimpleNamespace(get_state=pyro.get_param_store().get_state)
    monkeypatch.setattr(pyro, "get_param_store", lambda: store)
    assert private_apis.constraint_of("scale") is expected


def test_transforms(monkeypatch):
    seen = []
    torch.func.vmap(lambda x: seen.append(private_apis.is_transforming()) or x)(torch.ones(1))
    assert seen == [True]
    assert not private_apis.is_transforming()
    monkeypatch.setattr(torch._C, "_functorch", GONE)
    assert not private_apis.is_transforming()


def test_decompositions(monkeypatch):
    found = private_apis.decompositions(["silu", "no_such_operator"])
    assert torch.ops.aten.silu.default in found
    monkeypatch.setattr(torch, "_decomp", GONE)
    assert private_apis.decompositions(["silu"]) == {}

"""The Triton backend in Triton's interpreter: every program, its gradients and second derivatives, as on the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gdsl
from gdsl.codegen import triton as codegen
from gdsl.codegen import unrolled
from gdsl.ir.types import Domain
from gdsl.passes import layout
from gdsl.passes.options import GraphShape
from gdsl.runtime import backend as backends
from gdsl.runtime import interpreted
from gdsl.runtime import order as orders
from gdsl.runtime import triton as runtime
from tests.programs import harness
from tests.programs.sources import PROGRAMS
from tests.programs.test_programs import LISTED, NAMES

pytestmark = pytest.mark.skipif(not runtime.interpreted(), reason="Triton was imported for a GPU, not to interpret")


@pytest.mark.parametrize("name", NAMES)
def test_every_program(name: str) -> None:
    made = harness.layer(name, "triton")
    plain = harness.twin(made, "torch")
    values = harness.inputs(made, harness.random_edges(9, 24, seed=1), 9)
    expected = harness.oracle(plain, values)
    for order, (a, b) in enumerate(zip(harness.run(made, values), expected, strict=True)):
        assert harness.difference(a, b) < 1e-9, f"derivative of order {order}"


def as_on_torch(name: str) -> None:
    made = harness.layer(name, "triton")
    values = harness.inputs(made, harness.random_edges(9, 24, seed=7), 9)
    found, expected = harness.run(made, values), harness.run(harness.twin(made, "torch"), values)
    for order, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert harness.difference(a, b) < 1e-9, f"derivative of order {order}"


@pytest.fixture
def all_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short dims are written out beside any other, which are longer than those of these programs."""
    monkeypatch.setattr(unrolled, "LEAST_BESIDE", 2)


# Their kernels, forward and backward, have the same text with this as without.
UNCHANGED = set("APPNP AGNN GIN GEN SplineConv RGAT HGT Statistics Tables Selection".split())


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in UNCHANGED else n for n in NAMES])
def test_short_dims_written_out(name: str, all_written_out: None) -> None:
    as_on_torch(name)


@pytest.fixture
def gpu_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans as for graphs on a GPU, with matrices as narrow as those of these programs."""
    of = GraphShape.of
    monkeypatch.setattr(GraphShape, "of", lambda *sizes: replace(of(*sizes), device="cuda"))
    monkeypatch.setattr(layout, "MATRIX_SIDE", 2)


@pytest.mark.parametrize("name", ["RGCN", "RGCN_blocks", "FiLM", "SplineConv"])
def test_plans_of_a_gpu(name: str, gpu_plans: None) -> None:
    as_on_torch(name)


@pytest.mark.parametrize("name", ["GAT", "Transformer"])
def test_scores_handed_from_walk_to_walk(name: str, gpu_plans: None, small_hubs: None) -> None:
    """The gradient of a score is written by the walk over one end, and read by the one over the other."""
    test_hubs_in_chunks(name, None)
    made = harness.layer(name, "triton")
    values = harness.inputs(made, harness.random_edges(9, 30, seed=4), 9)
    made(**values)
    plans = made._ran()[0].on(values["graph"]).inspection.plans
    stored = [n for direction, plan in plans for k in plan.kernels for n in k.outputs if n.domain is Domain.EDGE]
    assert stored


def test_sums_by_kind_as_matrix_products(gpu_plans: None) -> None:
    """In float32, for which there are matrix units, and with sides that they take."""
    source, sizes = PROGRAMS["SplineConv"]
    made = gdsl.compile(source, **{**sizes, "in_channels": 16, "out_channels": 16, "kernel_size": 5}, backend="triton")
    plain = harness.twin(made, "torch")
    made.choose(aggregate="last")
    values = harness.inputs(made, harness.random_edges(9, 60, seed=7), 9)
    values = {k: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in values.items()}
    for a, b in zip(harness.run(made.float(), values), harness.run(plain.float(), values), strict=True):
        assert harness.difference(a, b) < 1e-4
    assert any("tl.dot" in k.source for k in made.kernels)


@pytest.mark.parametrize("graph", harness.HARD_GRAPHS)
@pytest.mark.parametrize("name", LISTED)
def test_hard_graphs(name: str, graph: str) -> None:
    made = harness.layer(name, "triton")
    plain = harness.twin(made, "torch")
    edges = torch.tensor(harness.HARD_GRAPHS[graph], dtype=torch.long)
    values = harness.inputs(made, edges, 7)
    for a, b in zip(harness.run(made, values), harness.run(plain, values), strict=True):
        assert harness.difference(a, b) < 1e-9


@pytest.mark.parametrize("name", LISTED)
def test_no_nodes(name: str) -> None:
    made = harness.layer(name, "triton")
    values = harness.inputs(made, torch.zeros(2, 0, dtype=torch.long), 0)
    outputs, _, _ = harness.run(made, values)
    assert all(o.shape[0] == 0 for o in outputs)


@settings(max_examples=10)
@given(
    name=st.sampled_from([n for n in LISTED if n in PROGRAMS]),
    nodes=st.integers(1, 12),
    edges=st.integers(0, 40),
    seed=st.integers(0, 10**6),
)
def test_random_graphs(name: str, nodes: int, edges: int, seed: int) -> None:
    made = harness.layer(name, "triton")
    plain = harness.twin(made, "torch")
    values = harness.inputs(made, harness.random_edges(nodes, edges, seed), nodes, seed)
    for a, b in zip(harness.run(made, values), harness.run(plain, values), strict=True):
        assert harness.difference(a, b) < 1e-9


# Products of matrices on edges, which float64 does without, besides programs of other kinds.
SINGLE = ["GCN", "GAT_edge", "GATv2", "EdgeConv", "CGConv", "NNConv", "GMMConv", "PNA", "RGCN"]


@pytest.mark.parametrize("name", SINGLE)
def test_rows_before_edges(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The axes of blocks for older Tritons, in whichever this is."""
    monkeypatch.setattr(runtime, "edge_axis", lambda: 1)
    test_float32(name)


@pytest.mark.parametrize("name", SINGLE)
def test_float32(name: str) -> None:
    exact = harness.layer(name, "torch")
    values = harness.inputs(exact, harness.random_edges(9, 24, seed=2), 9)
    narrow = {k: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in values.items()}
    single = harness.twin(exact, "triton").float()
    for found, wanted in zip(harness.run(single, narrow)[:2], harness.run(exact, values)[:2], strict=True):
        for x, y in zip(found, wanted, strict=True):
            torch.testing.assert_close(x.double(), y, rtol=1e-4, atol=1e-4)


@pytest.fixture
def small_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with more than 3 edges are hubs, in chunks of 4."""
    for module in (orders, codegen):
        monkeypatch.setattr(module, "GPU_CHUNK_EDGES", 4)
    monkeypatch.setattr(orders, "GPU_HUB_EDGES", 3)
    monkeypatch.setattr(orders, "GPU_HUB_MEANS", 0)


@pytest.mark.parametrize("name", [n if n in LISTED else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_hubs_in_chunks(name: str, small_hubs: None) -> None:
    made = harness.layer(name, "triton")
    plain = harness.twin(made, "torch")
    edges = harness.random_edges(9, 30, seed=4)
    edges[1, :14], edges[0, 14:21] = 2, 5
    values = harness.inputs(made, edges, 9)
    for order, (a, b) in enumerate(zip(harness.run(made, values), harness.run(plain, values), strict=True)):
        assert harness.difference(a, b) < 1e-9, f"derivative of order {order}"


@pytest.mark.parametrize("name", ["CGConv", "GMMConv", "RGCN", "PNA"])
def test_hubs_with_short_dims_written_out(name: str, small_hubs: None, all_written_out: None) -> None:
    test_hubs_in_chunks(name, None)


@pytest.mark.parametrize("name", ["EdgeConv", "CGConv", "NNConv", "GMMConv", "SAGE_max"])
def test_hubs_in_float32(name: str, small_hubs: None) -> None:
    made = harness.layer(name, "triton").float()
    plain = harness.twin(made, "torch")
    edges = harness.random_edges(9, 30, seed=4)
    edges[1, :14] = 2
    values = harness.inputs(made, edges, 9)
    narrow = {k: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in values.items()}
    for found, wanted in zip(harness.run(made, narrow)[:2], harness.run(plain, narrow)[:2], strict=True):
        for x, y in zip(found, wanted, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["GCN", "GATv2", "SAGE_max"])
def test_half_as_wide(name: str, dtype: torch.dtype) -> None:
    """The same values as the C++ kernels to the last bit or so of the narrow type, whatever is kept between."""
    made = harness.layer(name, "triton").to(dtype)
    other = harness.twin(made, "cpp")
    values = harness.inputs(made, harness.random_edges(9, 24, seed=1), 9)
    narrow = {k: v.to(dtype) if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in values.items()}
    step = torch.finfo(dtype).eps
    for found, wanted in zip(harness.run(made, narrow)[:2], harness.run(other, narrow)[:2], strict=True):
        for x, y in zip(found, wanted, strict=True):
            assert x.dtype is dtype
            torch.testing.assert_close(x, y, rtol=2 * step, atol=2 * step)


def test_dropout_draws_the_same_numbers() -> None:
    source = """
    layer Dropped(channels) {
        node x[channels]
        message   m = dropout(x[j], 0.4)
        aggregate a = sum(m)
        update    y = dropout(a, 0.3)
    }
    """
    x, edges = torch.rand(30, 5) + 1, harness.random_edges(30, 90, seed=0)
    found = []
    for backend in ("triton", "cpp", "torch"):
        torch.manual_seed(7)
        leaf = x.clone().requires_grad_()
        y = gdsl.compile(source, channels=5, backend=backend).train()(leaf, edges)
        (gradient,) = torch.autograd.grad(y.sum(), leaf)
        found.append((y, gradient))
    for y, gradient in found[1:]:
        assert torch.equal(y == 0, found[0][0] == 0)
        torch.testing.assert_close(y, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])


def test_nan_and_infinity_pass_as_in_torch() -> None:
    source = """
    layer Extremes(channels) {
        node x[channels]
        aggregate a = max(x[j])
        aggregate b = min(x[j])
        aggregate c = sum(x[j])
        aggregate d = mul(x[j])
        update    y = cat(a, b, c, d)
    }
    """
    x = torch.tensor([[float("nan"), 1.0], [float("inf"), -float("inf")], [2.0, float("nan")], [-1.0, 0.0]])
    edges = torch.tensor([[0, 1, 2, 3, 2, 3, 1], [0, 0, 0, 1, 1, 2, 2]])
    y = {b: gdsl.compile(source, channels=2, backend=b)(x, edges) for b in ("triton", "torch")}
    torch.testing.assert_close(y["triton"], y["torch"], equal_nan=True)


def test_same_bits() -> None:
    made = harness.layer("GATv2", "triton").float()
    values = harness.inputs(made, harness.random_edges(20, 120, seed=3), 20)
    narrow = {k: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in values.items()}
    first, again = harness.run(made, narrow), harness.run(made, narrow)
    assert all(torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("name", [pytest.param("GAT_edge", marks=pytest.mark.slow), "SAGE_max", "RGCN"])
def test_places_counted_in_64_bits(name: str, small_hubs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a tensor has more than 2^31 numbers: no result depends on the width."""
    made = harness.layer(name, "triton")
    values = harness.inputs(made, harness.random_edges(9, 30, seed=4), 9)
    narrow = harness.run(made, values)
    widths = []

    def index_type(most: int) -> str:
        widths.append(64)
        return "int64"

    monkeypatch.setattr(runtime, "index_type", index_type)
    wide = harness.run(made, values)
    assert widths
    assert all(torch.equal(a, b) for x, y in zip(narrow, wide, strict=True) for a, b in zip(x, y, strict=True))


def test_large_tensors_are_counted_in_64_bits() -> None:
    """Tensors without memory, with just below and above 2^31 numbers."""
    below, above = (torch.empty(rows, 64, device="meta") for rows in (2**25 - 1, 2**25))
    assert runtime.Given([below], []).index == "int32"
    assert runtime.Given([below], [above]).index == runtime.Given([above], []).index == "int64"


def test_the_cpu_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_interpreted", lambda: False)
    conv = gdsl.compile("layer C(d) { node x[d] aggregate a = sum(x[j]) update y = a }", d=2, backend="triton")
    with pytest.raises(
        gdsl.InputError, match=r"the Triton backend runs .* on a GPU, not float32 on cpu; .*INTERPRET=1"
    ):
        conv(torch.rand(3, 2), torch.tensor([[0, 1], [1, 2]]))


def test_kernels_are_those_of_the_backend() -> None:
    for backend, language in (("triton", "triton"), ("cpp", "cpp"), ("auto", "cpp")):
        conv = gdsl.compile("layer C(d) { node x[d] aggregate a = sum(x[j]) update y = a }", d=2, backend=backend)
        assert {k.language for k in conv.kernels} == {language}


ONE_NUMBER = {
    "by a constant": "param s[1] ~ ones  node x[c]  aggregate y = sum(softmax(s[0] * dot(x[i], x[j])) * x[j])",
    "by an index": "param s[1] ~ ones  node x[c]  node kind: int(1)  update y = sigmoid(s[kind]) * x",
}


@pytest.mark.parametrize("rule", ONE_NUMBER)
def test_a_table_of_one_number(rule: str) -> None:
    """Loads of it are no blocks, and the sum that is its gradient is one."""
    source = f"layer L {{ {ONE_NUMBER[rule]} return y }}"
    x = torch.randn(6, 4, dtype=torch.float64)
    edges = torch.randint(6, (2, 12), generator=torch.Generator().manual_seed(0))
    inputs = (x, torch.zeros(6, dtype=torch.long)) if "kind" in source else (x,)
    found = []
    for backend in ("triton", "torch"):
        layer = gdsl.compile(source, backend=backend).double()
        y = layer(*inputs, edges)
        found.append([y, *torch.autograd.grad((y * x.sin()).sum(), [layer.s])])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-9)


REDUCTIONS = """import triton
import triton.language as tl

%s

@triton.jit
def reduced(x, y):
    block = tl.load(x + tl.arange(0, 4)[:, None] * 8 + tl.arange(0, 8)[None, :])
    tl.store(y + tl.arange(0, 8), gdsl_%s(block, 0, False))
"""


@pytest.mark.parametrize("name", ["max", "min", "mul"])
def test_reductions_of_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What NumPy stands in for everywhere else, because it takes the interpreter long."""
    monkeypatch.setattr(interpreted, "OURS", ())
    module = runtime.load(REDUCTIONS % (codegen.HELPERS[f"gdsl_{name}"], name), f"reduced_{name}")
    x, y = torch.randn(4, 8), torch.empty(8)
    x[2, 3] = x[0, 5] = x[3, 5] = float("nan")
    module["reduced"][(1,)](x, y)
    expected = {"max": x.amax(0), "min": x.amin(0), "mul": x.prod(0)}[name]
    torch.testing.assert_close(y, expected, equal_nan=True)

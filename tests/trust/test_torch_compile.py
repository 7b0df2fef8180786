"""torch.compile, torch.export and autocast: layers inside what torch traces."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import gdsl
import gdsl.nn
from tests.parity import (
    test_nn_attention,
    test_nn_basic,
    test_nn_edge,
    test_nn_mixed,
    test_nn_points,
    test_nn_relations,
    test_nn_simple,
    test_nn_spectral,
    test_nn_types,
)
from tests.parity.drop_in import Case, build, draw, outcome, set_backend
from tests.programs import harness
from tests.programs.sources import PROGRAMS

# Sizes that are the same in no two calls, so that a second graph makes the tracer take them for variables.
SIZES = [(6, 10), (7, 12), (9, 30), (9, 31), (20, 50)]

LISTED = ["GCN", "GAT_edge", "SAGE_max", "SAGE_bipartite", "EdgeConv", "PNA"]
# Its recurrence is another number of torch operations for each graph.
OTHERS = [n for n in PROGRAMS if n not in [*LISTED, "SAGE_module"]]

FAMILIES = (
    test_nn_basic, test_nn_attention, test_nn_simple, test_nn_edge, test_nn_types, test_nn_spectral, test_nn_points,
    test_nn_relations, test_nn_mixed,
)  # fmt: skip
CASES = {case.layer: case for family in FAMILIES for case in reversed(family.CASES)}
LISTED_CASES = ["GCNConv", "GATConv", "RGCNConv", "DNAConv", "ChebConv"]


@pytest.fixture(autouse=True)
def _fresh_tracer() -> None:
    torch._dynamo.reset()
    counters.clear()


def slow_rest(names: list[str], listed: list[str]) -> list[Any]:
    return [*listed, *(pytest.param(n, marks=pytest.mark.slow) for n in names if n not in listed)]


def graphs_traced() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("name", slow_rest(OTHERS, LISTED))
def test_programs(name: str) -> None:
    """Values and gradients as without torch.compile, and one retrace for all sizes."""
    made = harness.layer(name, "cpp").train()
    traced = torch.compile(made, fullgraph=True, backend="aot_eager")
    for nodes, edges in SIZES:
        values = harness.inputs(made, harness.random_edges(nodes, edges, nodes), nodes)
        if "graph" in values:
            values["graph"] = values["graph"].edge_index.clone()
        for a, b in zip(_first_two(traced, made, values), _first_two(made, made, values), strict=True):
            assert harness.difference(a, b) < 1e-9
    assert graphs_traced() == 2


def _first_two(call: Any, made: nn.Module, values: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients of a call with the same dropout."""
    torch.manual_seed(1)
    given = harness._with_grad(values)
    outputs = call(**given)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    leaves = harness._leaves(given) + list(made.parameters())
    score = sum((harness._weights(o, 0.7) * o).sum() for o in outputs if o.requires_grad)
    grads = torch.autograd.grad(score, leaves, allow_unused=True)  # type: ignore[arg-type]
    return outputs, harness._dense(grads, leaves)


class _Named:
    """A compiled layer with the parameters' names of the layer itself."""

    def __init__(self, traced: Any, layer: nn.Module):
        self.traced, self.named_parameters = traced, layer.named_parameters

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.traced(*args, **kwargs)


@pytest.mark.parametrize("name", slow_rest(sorted(CASES), LISTED_CASES))
def test_layers_of_the_library(name: str) -> None:
    case: Case = CASES[name]
    layer = build(case, gdsl.nn, {})
    set_backend(layer, "torch")
    traced = _Named(torch.compile(layer, fullgraph=True, backend="aot_eager"), layer)
    for seed in (1, 2, 3):
        found, wanted = (outcome(of, *draw(case, seed)) for of in (traced, layer))  # type: ignore[arg-type]
        for part, value in wanted.items():
            assert harness.difference([found[part].double()], [value.double()]) < 1e-9, part
    assert graphs_traced() <= 2


class Net(nn.Module):
    """Two layers, with dropout in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = gdsl.nn.GATConv(5, 4, heads=2), gdsl.nn.GCNConv(8, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.second(self.drop(self.first(x, edges).relu()), edges)


@pytest.mark.slow
def test_training_under_inductor() -> None:
    """The default backend of torch.compile: the loss falls as without it, on graphs of several sizes."""
    torch.manual_seed(0)
    plain, again = Net().eval(), Net().eval()
    again.load_state_dict(plain.state_dict())
    traced = torch.compile(again, fullgraph=True)
    losses: list[list[float]] = []
    for model, call in ((plain, plain), (again, traced)):
        step = torch.optim.Adam(model.parameters(), lr=0.05)
        losses.append([])
        for k in range(12):
            nodes, edges = SIZES[k % len(SIZES)]
            x = torch.sin(torch.arange(nodes * 5, dtype=torch.float32)).view(nodes, 5)
            loss = (call(x, harness.random_edges(nodes, edges, k)) - 1).square().mean()
            step.zero_grad()
            loss.backward()
            step.step()
            losses[-1].append(float(loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0] / 2
    assert graphs_traced() == 2


MODULE = """
layer Mapped(c) {
    module f
    node x[c]
    message m = f(x[j] - x[i])
    aggregate y = sum(m)
    return y
}
"""


@pytest.mark.parametrize("change", ["swap", "training", "slope"])
def test_a_module_changed_after_tracing_is_noticed(change: str) -> None:
    """But for hooks, which torch.compile does not look for again in any module."""
    f = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.2), nn.Dropout(0.9), nn.Linear(4, 3)).eval()
    conv = gdsl.compile(MODULE, 3, f)
    traced = torch.compile(conv, fullgraph=True, backend="aot_eager")
    x, edges = torch.randn(6, 3), harness.random_edges(6, 14, 1)
    torch.testing.assert_close(traced(x, edges), conv(x, edges))
    before = conv(x, edges)
    if change == "swap":
        f[1] = nn.Tanh()
    elif change == "training":
        f.train()
    else:
        f[1].negative_slope = 0.7
    torch.manual_seed(1)
    found = traced(x, edges)
    torch.manual_seed(1)
    torch.testing.assert_close(found, conv(x, edges))
    assert not torch.equal(found, before)


def test_bad_input_is_an_error_there_too() -> None:
    conv = gdsl.nn.GCNConv(5, 3)
    traced = torch.compile(conv, fullgraph=True, backend="aot_eager")
    x = torch.randn(6, 5)
    with pytest.raises(gdsl.GraphError, match="nodes"):
        traced(x, torch.tensor([[0, 1], [1, 9]]))
    with pytest.raises(Exception, match="takes 5 features"):
        traced(torch.randn(6, 4), torch.tensor([[0, 1], [1, 2]]))
    with pytest.raises(Exception, match="edge_index"):
        traced(x, [[0, 1], [1, 2]])


POOLED = """
layer Pooled(c, d) {
    node x[c]
    param weight[c, d] ~ glorot
    aggregate a = sum((x @ weight)[j])
    pool z = mean(a)
    return z
}
"""


def test_pooling_with_and_without_a_number_of_graphs() -> None:
    conv = gdsl.compile(POOLED, 3, 2)
    traced = torch.compile(conv, fullgraph=True, backend="aot_eager")
    for nodes in (6, 8, 9):
        x, edges = torch.randn(nodes, 3), harness.random_edges(nodes, 14, 1)
        batch = torch.arange(nodes) * 3 // nodes
        for count in ({}, {"num_graphs": 4}):
            torch.testing.assert_close(traced(x, edges, batch=batch, **count), conv(x, edges, batch=batch, **count))


def test_all_sizes_variable_from_the_start() -> None:
    conv = gdsl.nn.GATConv(5, 4)
    traced = torch.compile(conv, fullgraph=True, backend="aot_eager", dynamic=True)
    for nodes, count in SIZES:
        x, edges = torch.randn(nodes, 5), harness.random_edges(nodes, count, 1)
        torch.testing.assert_close(traced(x, edges), conv(x, edges))
    assert graphs_traced() == 1


# ------------------------------------------------------------------------------------------- export

LOAD = """
import sys, torch
import gdsl.module.operators
program = torch.export.load(sys.argv[1] + "/net.pt2")
for x, edges, wanted in torch.load(sys.argv[1] + "/calls.pt"):
    torch.testing.assert_close(program.module()(x, edges), wanted)
assert "gdsl.module.layer" not in sys.modules, "the model is in the file, not in the library"
print("same")
"""


def test_export_runs_in_a_new_process(tmp_path: Path) -> None:
    """A model and its programs are in the file: nothing of the library's layers is imported to run it."""
    net = Net().eval()
    calls = []
    for nodes, count in SIZES:
        x, edges = torch.randn(nodes, 5), harness.random_edges(nodes, count, nodes)
        calls.append((x, edges, net(x, edges).detach()))
    nodes, edges = torch.export.Dim("nodes", min=2), torch.export.Dim("edges", min=2)
    with torch.no_grad():
        program = torch.export.export(net, calls[0][:2], dynamic_shapes=({0: nodes}, {1: edges}))
    torch.export.save(program, tmp_path / "net.pt2")
    torch.save(calls, tmp_path / "calls.pt")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOAD), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "same\n", done.stderr


# ---------------------------------------------------------------------------------------- autocast


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype, traced: bool) -> None:
    """float32 goes in, the lower precision comes out, gradients arrive in float32; float64 is left alone."""
    conv = harness.layer("GAT_edge", "cpp").float()
    call = torch.compile(conv, fullgraph=True, backend="aot_eager") if traced else conv
    values = harness.inputs(conv, harness.random_edges(9, 30, 1), 9)
    values["graph"] = values["graph"].edge_index.clone()
    narrow = {k: v.float() if v.is_floating_point() else v for k, v in values.items()}
    narrow["x"].requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        found = call(**narrow)
    wanted = conv(**narrow)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.float(), b, rtol=0.05, atol=0.05)
    found[0].float().sum().backward()
    assert narrow["x"].grad is not None and narrow["x"].grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=dtype):
        assert conv.double()(**values)[0].dtype == torch.float64


def test_who_does_not_trace_does_not_load_the_tracer() -> None:
    """It takes longer to import than all else that a layer needs."""
    script = (
        "import sys, torch, gdsl, gdsl.nn\n"
        "edges = torch.tensor([[0, 1], [1, 0]])\n"
        "conv = gdsl.compile('layer C(d) { node x[d] aggregate a = sum(x[j]) update y = a }', d=2)\n"
        "for layer in (conv, gdsl.nn.GCNConv(2, 2)):\n"
        "    layer(torch.ones(2, 2, requires_grad=True), edges).sum().backward()\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("make", ["as it is", "with loops", "without loops", "turned round"])
def test_a_graph_whose_parts_are_not_made_yet(make: str) -> None:
    """What a graph makes when it is first asked for is made under locks, which no tracer follows."""
    edges = torch.tensor([[0, 1, 2, 2, 4], [1, 2, 2, 0, 1]])
    ways: dict[str, Callable[[gdsl.Graph], gdsl.Graph]] = {
        "as it is": lambda g: g,
        "with loops": lambda g: g.add_self_loops().graph,
        "without loops": lambda g: g.remove_self_loops().graph,
        "turned round": lambda g: g.reverse(),
    }
    layer = gdsl.compile("layer C(d) { node x[d] aggregate a = mean(x[j]) update y = x + tanh(a) }", d=3)
    x = torch.randn(5, 3)
    expected = layer(x, ways[make](gdsl.Graph(edges, 5)))
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x, ways[make](gdsl.Graph(edges, 5))), expected)

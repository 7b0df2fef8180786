"""Every mistake has its own words, and is found before any kernel runs. What is not a mistake flows as in torch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, tensor
from torch_geometric import EdgeIndex

import gdsl
import gdsl.nn
from gdsl.language import names
from gdsl.module.arguments import parameters
from gdsl.runtime import execute
from tests.programs import harness
from tests.programs.sources import PROGRAMS

EDGES = tensor([[0, 1, 2], [1, 2, 0]])
X, E, REL = torch.ones(4, 3), torch.ones(3, 2), tensor([0, 1, 1])

STACK = "layer Stack(K) {\n    node x[c]\n    update y = sum[K](stack(x[j], K))\n}\n"
POOL = "layer Pool {\n    node x[c]\n    graph t[c]\n    update y = x + t[g]\n    pool g = sum(y)\n    return g\n}\n"
NEAR = "layer Near(K) {\n    node x[c]\n    graph knn(x, K)\n    update y = max(x[j])\n}\n"
TWO = "layer Two {\n    node x[c]\n    node z[c]\n    update y = x + sum(z[j])\n}\n"
LOOPS = "layer Loops {\n    graph add_self_loops\n    node x[c]\n    edge e[d]\n    update y = x + sum(sum[d](e))\n}\n"
EYE = "layer Eye {\n    param w[c] ~ eye\n    node x[c]\n    update y = x * w\n}\n"


@functools.cache
def layer(name: str) -> gdsl.Layer:
    """Made once, and never run."""
    return {
        "gcn": lambda: gdsl.compile(PROGRAMS["GCN"][0], 3, 2),
        "gat": lambda: gdsl.compile(PROGRAMS["GAT_edge"][0], 3, 2, edge_dim=2),
        "rgcn": lambda: gdsl.compile(PROGRAMS["RGCN"][0], 3, 2, 2),
        "pair": lambda: gdsl.compile(PROGRAMS["SAGE_bipartite"][0], 3, 2, 2),
        "gin": lambda: gdsl.compile(PROGRAMS["GIN"][0], nn=nn.Linear(3, 2)),
        "stack": lambda: gdsl.compile(STACK, 2),
        "pool": lambda: gdsl.compile(POOL),
        "near": lambda: gdsl.compile(NEAR, 2),
        "two": lambda: gdsl.compile(TWO),
        "loops": lambda: gdsl.compile(LOOPS),
    }[name]()


def call(name: str, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: layer(name)(*args, **kwargs)


def make(program: str, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: gdsl.compile(PROGRAMS[program][0] if program in PROGRAMS else program, *args, **kwargs)


def pool(**kwargs: Any) -> Callable[[], Any]:
    return call("pool", **{"x": X, "t": X[:1], "graph": EDGES, **kwargs})


def assigned(backend: str) -> gdsl.Layer:
    made = gdsl.compile(PROGRAMS["GCN"][0], 3, 2)
    made.backend = backend
    return made


USAGE = "GCNConv is called as layer(x, graph, w=None)"

GRAPHS: dict[str, tuple[Callable[[], Any], str]] = {
    "target out of range": (
        call("gcn", X, tensor([[0, 1], [1, 4]])),
        "edge 1 goes to node 4, but the graph has 4 nodes (0 to 3)",
    ),
    "source out of range": (
        call("gcn", X, tensor([[0, 9], [1, 2]])),
        "edge 1 comes from node 9, but the graph has 4 nodes (0 to 3)",
    ),
    "negative index": (
        call("gcn", X, tensor([[0, -1], [1, 1]])),
        "edge 1 comes from node -1, but nodes are numbered from 0",
    ),
    "out of range of the targets": (
        call("pair", (X, X[:2, :2]), EDGES),
        "edge 1 goes to node 2, but the graph has 2 target nodes (0 to 1)",
    ),
    "float edges": (
        call("gcn", X, EDGES.float()),
        "edge_index must hold integers, but its dtype is torch.float32; convert it with edge_index.long()",
    ),
    "transposed edges": (
        call("gcn", X, EDGES.t()),
        "edge_index must have shape [2, E], but its shape is [3, 2]; pass edge_index.t()",
    ),
    "one row of edges": (call("gcn", X, EDGES[0]), "edge_index must have shape [2, E], but its shape is [3]"),
    "a list of edges": (
        call("gcn", X, [[0], [1]]),
        "a graph must be an integer tensor [2, E], a gdsl.Graph, a torch_geometric Data, a torch_sparse SparseTensor, "
        "a torch sparse tensor, a SciPy sparse matrix or a DGL graph, not a list",
    ),
    "edges of NumPy": (
        call("gcn", X, EDGES.numpy()),
        "a graph must be an integer tensor [2, E], a gdsl.Graph, a torch_geometric Data, a torch_sparse SparseTensor, "
        "a torch sparse tensor, a SciPy sparse matrix or a DGL graph, not a ndarray; pass torch.from_numpy(...)",
    ),
    "a sparse matrix on another device": (
        call("gcn", X, torch.sparse_coo_tensor(EDGES, torch.ones(3), (4, 4)).to("meta")),
        "the graph is on meta, and the inputs are on cpu: move one with .to()",
    ),
    "edges that know another size": (
        call("gcn", X, EdgeIndex(EDGES, sparse_size=(5, 5))),
        "the graph has 5 nodes, but 4 are needed here; if some nodes have no edges, give their number: "
        "Graph(edge_index, num_nodes=4)",
    ),
    "edges on another device": (
        call("gcn", X, EDGES.to("meta")),
        "the graph is on meta, and the inputs are on cpu: move one with .to()",
    ),
    "a graph on another device": (
        lambda: layer("gcn")(X, gdsl.Graph(EDGES, 4).to("meta")),
        "the graph is on meta, and the inputs are on cpu: move one with .to()",
    ),
    "a bipartite graph": (
        lambda: layer("gcn")(X, gdsl.Graph(EDGES, (3, 4))),
        "GCNConv needs one set of nodes, and the graph has 3 sources and 4 targets",
    ),
    "the wrong number of in-edges": (
        call("stack", X, tensor([[0, 1, 2, 3], [0, 0, 1, 2]])),
        "Stack needs exactly 2 in-edges for each node, and node 1 has 1",
    ),
}

INPUTS: dict[str, tuple[Callable[[], Any], str]] = {
    "feature size": (call("gcn", X[:, :2], EDGES), "`x` must have shape [N, in_channels = 3], and it has shape [4, 2]"),
    "one dim": (call("gcn", X[0], EDGES), "`x` must have shape [N, in_channels = 3], and it has shape [3]"),
    "three dims": (call("gcn", X[None], EDGES), "`x` must have shape [N, in_channels = 3], and it has shape [1, 4, 3]"),
    "no dims": (call("gcn", tensor(1.0), EDGES), "`x` must have shape [N, in_channels = 3], and it has shape []"),
    "a dim too many": (call("gcn", X, EDGES, torch.ones(3, 1)), "`w` must have shape [E], and it has shape [3, 1]"),
    "edge features": (
        call("gat", X, EDGES, E[:, :1]),
        "`e` must have shape [E, edge_dim = 2], and it has shape [3, 1]",
    ),
    "a list": (call("gcn", [[1.0]], EDGES), "`x` must be a tensor, not list"),
    "an array": (call("gcn", X.numpy(), EDGES), "`x` must be a tensor, not ndarray; pass torch.from_numpy(...)"),
    "the graph first": (
        call("gcn", EDGES, X),
        "`x` must hold floating-point numbers, and it is int64: convert it with x.float(); if it is the graph, that "
        "comes after the inputs of nodes",
    ),
    "an optional list": (call("gcn", X, EDGES, [1.0]), "`w` must be a tensor, not list"),
    "device": (call("gcn", X.to("meta"), EDGES), "`x` is on meta and `weight` is on cpu: move one with .to()"),
    "device of an edge input": (
        call("gcn", X, EDGES, torch.ones(3, device="meta")),
        "`w` is on meta and `weight` is on cpu: move one with .to()",
    ),
    "device of an integer": (
        call("rgcn", X, EDGES, REL.to("meta")),
        "`rel` is on meta and `weight` is on cpu: move one with .to()",
    ),
    "dtype": (
        call("gcn", X.double(), EDGES),
        "`x` is float64 and `weight` is float32: convert one with .to(torch.float32)",
    ),
    "dtype of an edge input": (
        call("gcn", X, EDGES, torch.ones(3).half()),
        "`w` is float16 and `weight` is float32: convert one with .to(torch.float32)",
    ),
    "integers for floats": (
        call("gcn", X.long(), EDGES),
        "`x` must hold floating-point numbers, and it is int64: convert it with x.float()",
    ),
    "floats for integers": (
        call("rgcn", X, EDGES, REL.float()),
        "`rel` must hold int64 or int32, and it is float32: convert it with rel.long()",
    ),
    "beyond its bound": (
        call("rgcn", X, EDGES, tensor([0, 1, 2])),
        "edge 2 has rel = 2, and rel must be from 0 to 1",
    ),
    "negative integer": (
        call("rgcn", X, EDGES, tensor([0, -3, 1])),
        "edge 1 has rel = -3, and rel must be from 0 to 1",
    ),
    "too few rows for the edges": (call("rgcn", X, EDGES, REL[:2]), "`rel` has 2 rows, and the graph has 3 edges"),
    "too few rows before loops": (call("gat", X, EDGES, E[:1]), "`e` has 1 row, and the graph has 3 edges"),
    "too many rows for the nodes": (
        lambda: layer("gcn")(X, gdsl.Graph(EDGES)),
        "`x` has 4 rows, and the graph has 3 nodes; nodes without edges count too: gdsl.Graph(edge_index, num_nodes=4)",
    ),
    "too few rows for the nodes": (
        lambda: layer("gcn")(X, gdsl.Graph(EDGES, 9)),
        "`x` has 4 rows, and the graph has 9 nodes",
    ),
    "rows of two node inputs": (call("two", X, X[:3], EDGES), "`z` has 3 rows, and the graph has 4 nodes"),
    "rows of targets": (
        lambda: layer("pair")((X, X[:, :2]), gdsl.Graph(EDGES, (4, 3))),
        "`z` has 4 rows, and the graph has 3 target nodes",
    ),
    "free dims that clash": (call("two", X, X[:, :2], EDGES), "dim `c` has size 3 and, in `z`, size 2"),
    "no value on new loops": (
        call("loops", X, EDGES, E),
        "edge input `e` has no value on the self-loops that the layer adds: say which, as in "
        '`graph add_self_loops(e = 1)` or `(e = "mean")`',
    ),
    "length of batch": (pool(batch=REL), "`batch` must have shape [4], and it has shape [3]"),
    "float batch": (
        pool(batch=torch.zeros(4)),
        "`batch` must be an int64 or int32 tensor [N], the graph of each node, not float32",
    ),
    "a list as batch": (
        pool(batch=[0, 0, 0, 0]),
        "`batch` must be an int64 or int32 tensor [N], the graph of each node, not list",
    ),
    "device of batch": (
        pool(batch=torch.zeros(4, dtype=torch.long, device="meta")),
        "`batch` is on meta, and the inputs are on cpu: move one with .to()",
    ),
    "negative batch": (pool(batch=tensor([0, -1, 0, 0])), "node 1 is in graph -1, and graphs are numbered 0 to 0"),
    "batch beyond num_graphs": (
        pool(batch=tensor([0, 0, 2, 0]), num_graphs=2),
        "node 2 is in graph 2, and graphs are numbered 0 to 1",
    ),
    "rows of a graph input": (pool(batch=tensor([0, 0, 1, 1])), "`t` has 1 row, and the batch has 2 graphs"),
    "num_graphs of another kind": (
        pool(num_graphs=2.0),
        "`num_graphs` must be a whole number from 0, not 2.0",
    ),
    "num_graphs": (pool(num_graphs=-1), "`num_graphs` must be a whole number from 0, not -1"),
    "positions": (call("near", X * torch.nan), "positions must be finite, but node 0 has [nan, nan, nan]"),
    "missing graph": (call("gcn", X), f"{USAGE}: `graph` is missing"),
    "missing input": (call("gcn", edge_index=EDGES), f"{USAGE}: `x` is missing"),
    "missing half of a pair": (
        call("pair", X, EDGES),
        "`z` must have shape [N_dst, in_target = 2], and it has shape [4, 3]",  # x alone would be both
    ),
    "half of a pair alone": (
        call("pair", X),
        "BipartiteSAGE is called as layer(x, z, graph): `z` is missing",
    ),
    "unknown keyword": (call("gcn", X, EDGES, weights=E), f"{USAGE}: there is no `weights`"),
    "too many arguments": (call("gcn", X, EDGES, None, None), f"{USAGE}, and got 4 arguments"),
    "an argument twice": (call("gcn", X, EDGES, x=X), f"{USAGE}, and `x` came twice"),
    "eight bits": (
        lambda: layer("gcn")(X.to(torch.float8_e4m3fn), EDGES),
        "`x` must hold floating-point numbers of 16 to 64 bits, and it is float8_e4m3fn: convert it with x.float()",
    ),
    "complex numbers": (
        call("gcn", X.to(torch.complex64), EDGES),
        "`x` must hold floating-point numbers, and it is complex64: pass its parts, as torch.view_as_real(x) or "
        "x.real, x.imag",
    ),
    "complex numbers for integers": (
        call("rgcn", X, EDGES, REL.to(torch.complex64)),
        "`rel` must hold int64 or int32, and it is complex64: pass its parts, as torch.view_as_real(rel) or rel.real, "
        "rel.imag",
    ),
    "a sparse matrix": (
        call("gcn", X.to_sparse(), EDGES),
        "`x` is a sparse_coo tensor, and must be a dense one: pass x.to_dense()",
    ),
    "a sparse matrix by rows": (
        call("two", X, X.to_sparse_csr(), EDGES),
        "`z` is a sparse_csr tensor, and must be a dense one: pass z.to_dense()",
    ),
    "a sparse edge input": (
        call("gat", X, EDGES, E.to_sparse()),
        "`e` is a sparse_coo tensor, and must be a dense one: pass e.to_dense()",
    ),
    "a backend that was assigned": (
        lambda: assigned("cuda")(X, EDGES),
        "there is no backend 'cuda'; there are auto, triton, cpp, torch",
    ),
    "eight bits in C++": (
        lambda: gdsl.compile(PROGRAMS["GCN"][0], 3, 2, backend="cpp").to(torch.float8_e5m2)(
            X.to(torch.float8_e5m2), EDGES
        ),
        "`weight` must hold floating-point numbers of 16 to 64 bits, and it is float8_e5m2: convert it with "
        "weight.float()",
    ),
}

CONSTRUCTORS: dict[str, tuple[Callable[[], Any], str]] = {
    "backend": (make("GCN", 3, 2, backend="cuda"), "there is no backend 'cuda'; there are auto, triton, cpp, torch"),
    "backend of the library": (
        lambda: gdsl.nn.GCNConv(3, 2, backend="cuda"),
        "there is no backend 'cuda'; there are auto, triton, cpp, torch",
    ),
    "too many": (make("GCN", 3, 2, True, True, True, 7), "GCNConv takes 5 arguments, and got 6"),
    "twice": (make("GCN", 3, 2, in_channels=3), "GCNConv got `in_channels` twice"),
    "module missing": (make("GIN"), "GINConv needs a torch module for `nn`"),
    "not a module": (make("GIN", 3), "`nn` must be a torch.nn.Module, not int"),
    "a function for a module": (
        make("GIN", torch.relu),
        "`nn` must be a torch.nn.Module, not the function relu: make a module whose `forward` calls it",
    ),
    "size of a free dim": (make(TWO, c=2.5), "`c` is the size of a dim: a whole number from 0, not 2.5"),
    "not a text": (make(3), "a program is text, a str, not int"),  # type: ignore[arg-type]
    "a file": (
        make("layers/gcn.gdsl"),
        "a program is text, not the name of a file: pass pathlib.Path('layers/gcn.gdsl')",
    ),
    "eye of one dim": (make(EYE, c=3), "`eye` is for params of two dims or more, and this one has 1"),
}

HEADER = "layer GCNConv(in_channels, out_channels, add_loops = true, normalize = true, bias = true) {"

FREE = "layer A {\n    node x[d]\n    param w[d, 4] ~ glorot\n    update y = sum(x[j]) @ w\n}\n"
SIZED = "layer A(d) {\n    node x[2*d]\n    update y = x\n}\n"


def size_of(shown: str, what: str) -> str:
    """What is said where the size d of SIZED is no size."""
    return (
        f"error: a size must be {what}, and `d` is {shown}\n  --> A, line 2, column 14\n  |\n2 |     node x[2*d]\n"
        + ("  |              ^")
    )


LANGUAGE: dict[str, tuple[Callable[[], Any], str]] = {
    "a size that is text": (make(SIZED, d="4"), size_of('"4"', "a number")),
    "a size that is none": (make(SIZED, None), size_of("none", "a number")),
    "a size that is true": (make(SIZED, d=True), size_of("true", "a number")),
    "a param of a size that is not known": (
        make(FREE),
        "error: the size of dim `d` of param `w` is not known before a call\n  --> A, line 3, column 5\n  |\n"
        "3 |     param w[d, 4] ~ glorot\n  |     ^^^^^^^^^^^^^^^^^^^^^^\n"
        "  = hint: give it when compiling, as in d=16, or make it an argument of the layer",
    ),
    "a buffer of a size that is not known": (
        make("layer A {\n    node x[d]\n    buffer w[2*d] ~ ones\n    update y = cat(x, x) * w\n}\n"),
        "error: the size of dim `d` of buffer `w` is not known before a call\n  --> A, line 3, column 5\n  |\n"
        "3 |     buffer w[2*d] ~ ones\n  |     ^^^^^^^^^^^^^^^^^^^^\n"
        "  = hint: give it when compiling, as in d=16, or make it an argument of the layer",
    ),
    "a name of torch's modules": (
        make("layer A {\n    node x[3]\n    param train[3] ~ ones\n    update y = x * train\n}\n"),
        "error: `train` is what every torch module or layer has and cannot be the name of a param\n"
        "  --> line 3, column 11\n  |\n3 |     param train[3] ~ ones\n  |           ^^^^^\n"
        "  = hint: call it `train_` or another name",
    ),
    "a name of the call, in a class": (
        lambda: gdsl.define("layer A {\n    node batch[d]\n    update y = batch\n}\n"),
        "error: `batch` is an argument of every call and cannot be the name of an input\n"
        "  --> line 2, column 10\n  |\n2 |     node batch[d]\n  |          ^^^^^\n"
        "  = hint: call it `batch_` or another name",
    ),
    "empty": (
        make(""),
        "error: the program is empty\n  --> line 1, column 1\n  |\n1 | \n  | ^\n"
        "  = hint: a program is `layer Name(arguments) { ... }`",
    ),
    "syntax": (
        make("layer A {\n    node x[c]\n    update y = x +\n}\n"),
        "error: unexpected `}`\n  --> line 4, column 1\n  |\n4 | }\n  | ^\n  = expected an expression",
    ),
    "unknown name": (
        make("layer A {\n    node feat[c]\n    update y = sum(feet[j])\n}\n"),
        "error: unknown name `feet`\n  --> A, line 3, column 20\n  |\n3 |     update y = sum(feet[j])\n"
        "  |                    ^^^^\n  = hint: did you mean `feat`?",
    ),
    "missing argument": (
        make("GCN", 3),
        "error: GCNConv needs a value for `out_channels`\n  --> GCNConv, line 2, column 28\n  |\n"
        f"2 | {HEADER}\n  | {'':27}^^^^^^^^^^^^",
    ),
    "missing argument of a defined class": (
        lambda: gdsl.define(PROGRAMS["GCN"][0])(out_channels=3),
        "error: GCNConv needs a value for `in_channels`\n  --> GCNConv, line 2, column 15\n  |\n"
        f"2 | {HEADER}\n  | {'':14}^^^^^^^^^^^",
    ),
    "unknown argument": (
        make("GCN", 3, 2, heads=4),
        f"error: GCNConv has no argument `heads`\n  --> GCNConv, line 2, column 1\n  |\n2 | {HEADER}\n  | "
        + "^" * (len(HEADER) - 2)
        + "\n  = hint: its arguments are in_channels, out_channels, add_loops, normalize, bias",
    ),
    "module of another size": (
        call("gin", torch.ones(4, 5), EDGES),
        "error: module `nn` takes 3 features, and dim `channels` has 5\n   --> GINConv, line 10, column 20\n   |\n"
        "10 |         update y = nn((1 + eps) * x + a)\n   |                    ^^^^^^^^^^^^^^^^^^^^^",
    ),
}


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> None:
        pytest.fail("a kernel ran")

    monkeypatch.setattr(execute.KernelPlan, "run", run)
    monkeypatch.setattr(execute.ReferencePlan, "run", run)


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize(
    ("kind", "act", "message"),
    [
        pytest.param(kind, act, message, id=name)
        for kind, table in (
            (gdsl.GraphError, GRAPHS),
            (gdsl.InputError, INPUTS),
            (gdsl.InputError, CONSTRUCTORS),
            (gdsl.LanguageError, LANGUAGE),
        )
        for name, (act, message) in table.items()
    ],
)
def test_mistakes(kind: type[Exception], act: Callable[[], Any], message: str) -> None:
    with pytest.raises(gdsl.GdslError) as error:
        act()
    assert type(error.value) is kind
    assert str(error.value) == message


@pytest.mark.usefixtures("no_kernels")
def test_errors_are_of_the_kinds_that_callers_catch() -> None:
    """A ValueError for bad values, and one class for all that gdsl raises on purpose."""
    for kind in (gdsl.GraphError, gdsl.InputError):
        assert issubclass(kind, ValueError) and issubclass(kind, gdsl.GdslError)
    with pytest.raises(pytest.fail.Exception, match="a kernel ran"):
        layer("gcn")(X, EDGES)  # right: so the fixture does watch the kernels


def test_names_that_torch_and_layers_have_are_refused() -> None:
    """The list that texts are checked by without torch has all that modules of this torch and layers have."""
    have = {*dir(nn.Module()), *dir(gdsl.Layer), *layer("two").__dict__}
    assert {name for name in have if not name.startswith("_")} <= names.OF_MODULES
    properties = {name for name in have if isinstance(getattr(gdsl.Layer, name, None), property)}
    assert {name for name in properties if not name.startswith("_")} == names.PROPERTIES
    constructors = {*inspect.signature(gdsl.compile).parameters, *inspect.signature(gdsl.Layer.__init__).parameters}
    assert constructors - {"args", "kwargs"} == names.OF_CONSTRUCTORS
    called = {name for name, _ in parameters(layer("pool").signature)} - {"x", "t"}
    assert called < names.OF_CALLS


def test_names_that_only_another_torch_has_are_refused() -> None:
    with pytest.raises(gdsl.InputError, match="torch's modules have `_buffers` themselves: give the param another"):
        gdsl.compile("layer A { node x[3] param _buffers[3] ~ ones update y = x * _buffers }")
    with pytest.raises(gdsl.InputError, match="torch's modules have `_modules` themselves: give the module another"):
        gdsl.compile("layer A { node x[3] module _modules update y = _modules(x) }", _modules=nn.Linear(3, 3))
    text = "layer A { node x[3] module kernels update y = kernels(x; 3) }"
    for module in (nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Threshold(0.1, 20))):
        made = gdsl.compile(text, kernels=module, backend="torch")
        assert torch.allclose(made(X, EDGES), module(X))
        assert isinstance(made.kernels, list)


def test_sizes_of_numpy() -> None:
    made = gdsl.compile("layer A(d, k = 2, s = 1.0) {\n    node x[d]\n    update y = s * sum(x[j])\n}\n", d=np.int64(3))
    assert made.arguments == {"d": 3, "k": 2, "s": 1.0} and type(made.arguments["d"]) is int
    assert gdsl.compile(FREE, d=np.int32(3)).w.shape == (3, 4)
    scaled = gdsl.compile("layer A(s) {\n    node x[d]\n    update y = s * x\n}\n", np.float32(0.5), backend="torch")
    assert scaled(X, EDGES).tolist() == (0.5 * X).tolist()
    found = layer("pool")(x=X, t=X[:2], graph=EDGES, batch=tensor([0, 0, 1, 1]), num_graphs=np.int64(2))
    assert found.shape == (2, 3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("name", ["GCN", "SAGE_mean", "SAGE_max", "GAT", "GATv2", "GIN", "EdgeConv_text", "RGCN"])
def test_numbers_that_are_not_finite(name: str, value: float) -> None:
    """They spread along the edges as in torch and no further."""
    compiled = harness.layer(name, "cpp")
    edges = tensor([[0, 0, 1, 2, 3, 4, 4], [1, 2, 2, 3, 3, 5, 6]])
    values = harness.inputs(compiled, edges, 8)
    values["x"][0, 1] = value
    expected, _, _ = harness.oracle(harness.twin(compiled, "torch"), values)
    assert not expected[0].isfinite().all() and expected[0][4:].isfinite().all()
    for made in (compiled, harness.twin(compiled, "torch")):
        with torch.no_grad():
            found = made(**values)
        assert harness.difference([found], expected[:1]) < 1e-9


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_softmax_of_scores_that_are_not_finite(backend: str) -> None:
    """-inf has no weight, and where all are -inf none has any; a nan makes its own node nan and no other."""
    source = """
layer S {
    node x[c]
    edge s
    alpha = softmax(s)
    update y = sum(alpha * x[j])
    return y, alpha
}
"""
    edges = tensor([[0, 1, 0, 1, 0, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3]])
    inf, nan = torch.inf, torch.nan
    s = tensor([1e4, -1e4, 0.0, -inf, -inf, -inf, nan, 0.0])
    y, alpha = gdsl.compile(source, backend=backend)(torch.ones(4, 2), edges, s)
    expected = tensor([1.0, 0.0, 1.0, 0.0, 0.0, 0.0, nan, nan])
    torch.testing.assert_close(alpha, expected, equal_nan=True)
    torch.testing.assert_close(y[:3], tensor([1.0, 1.0, 0.0])[:, None].expand(3, 2))

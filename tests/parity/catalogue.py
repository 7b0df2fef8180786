"""docs/layers.md, made from the layers themselves: ``python -m tests.parity.catalogue > docs/layers.md``.

Formula and paper are a class's docstring, the program is its file, the costs are those of its kernels, and what is
compared with torch_geometric is what the tables of the tests say.
"""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import sympy
import torch

import gdsl.nn
from gdsl.nn.conv.base import Programmed
from tests.parity import drop_in, test_nn_static
from tests.parity.drop_in import Case

FAMILIES = {
    "Sums and means of neighbours": ("test_nn_basic", "test_nn_simple"),
    "Filters of the spectrum": ("test_nn_spectral", "test_nn_paths"),
    "Attention": ("test_nn_attention",),
    "Networks on edges": ("test_nn_edge",),
    "Points in space, meshes": ("test_nn_points", "test_nn_mesh"),
    "Several types of nodes and edges": ("test_nn_relations", "test_nn_types"),
    "Several aggregations, weights from features, whole graphs": ("test_nn_mixed",),
}

# Files of layers that are tested together with those of another one.
TOGETHER = {"basic": ("gcn", "sage", "gat"), "types": ("hetero",)}

# torch_geometric's modules, besides that of the layers.
PARTS = ("aggr", "attention", "dense", "encoding", "functional", "kge", "models", "norm", "pool", "unpool")

# Why gdsl.nn has not what torch_geometric 2.8 has; of all else it is "not written yet".
MISSING = {
    "CuGraphGATConv": "another package's kernels for a layer that is here",
    "CuGraphRGCNConv": "another package's kernels for a layer that is here",
    "CuGraphSAGEConv": "another package's kernels for a layer that is here",
    "FusedGATConv": "another package's kernels for a layer that is here",
    "captum_output_to_dicts": "torch_geometric's own takes these layers",
    "to_captum_input": "torch_geometric's own takes these layers",
    "to_captum_model": "torch_geometric's own takes these layers",
}

# Calls that do not give what torch_geometric 2.8 gives, with its own numbers or errors on the right.
DIFFERENT = [
    (
        "var and std (PNAConv, EGConv, SAGEConv, VarAggregation, StdAggregation ...) of values far from 0",
        "in two walks: as torch.var and torch.std, with their gradients",
        "mean(x²) - mean(x)², of which no digit is left where the mean is 10,000 times the spread in float32",
    ),
    (
        "std of a variance of at most 1e-5",
        "0 with no gradient, as there; NaN of NaN. In a program, `std` is the root itself",
        "0 with no gradient",
    ),
    (
        "max and min of equal values",
        "an even share of the gradient each, which add up to all of it",
        "the same, but where the values are 0: there torch's scatter_reduce keeps one share more for the zeros it "
        "starts from. On a GPU with torch-scatter all goes to one of them",
    ),
    (
        "median and quantiles of rows with NaN",
        "NaN, as torch.median and torch.quantile",
        "as if NaN were the largest",
    ),
    (
        "PANConv, PANPooling",
        "M is a sparse matrix of torch; PANPooling takes one of torch_sparse, too; sums only. The gradient of "
        "`weight` is that of all paths",
        "a matrix of torch_sparse, without which the layer cannot run, and whose products have no gradient: "
        "`weight[n]` gets that of the paths of n steps alone, though longer ones are worth as much less",
    ),
    (
        "MeshCNNConv",
        "edges from neighbours to the edge of the mesh, in order, or ValueError",
        "with the edges turned round, as its page says, a sum that is not the paper's",
    ),
    ("SplineConv, XConv, GravNetConv, DynamicEdgeConv", "no other package", "pyg-lib"),
    ("aggregations by order (LSTM, GRU, sort), inside a layer", "edges in any order", "ValueError for unsorted edges"),
    (
        "signals [\\*, N, F] in layers without static graphs",
        "each signal by itself, but for layers that refuse them",
        "torch's errors, or other shapes",
    ),
    (
        "weights of several loops at one node, in layers with self-loops (GCNConv, SGConv, SSGConv, APPNP ...)",
        "the last one counts, and has the gradient alone",
        "the last one counts, and all of them get its gradient",
    ),
    ('SimpleConv("self_loop") on signals', "a loop at every node", "loops at the first nodes, as many as signals"),
    (
        "torch_geometric's `to_hetero_with_bases(..., num_bases=1)` of a model with these layers",
        "set `edge_type_weight` yourself, or take two bases: the function is torch_geometric's",
        "the same: it draws the weights of the types of edges for two bases or more, and sets them by nothing for one",
    ),
    (
        "tensors of a wrong size",
        "an error that is a ValueError and a RuntimeError, and names the tensor or the linear map",
        "torch's RuntimeError",
    ),
    ("an edge of a node that there is not", "IndexError for both ends", "RuntimeError or ValueError for some targets"),
    ("graphs of other kinds (SciPy, DGL, `gdsl.Graph`), CSC matrices", "taken", "ValueError, NotImplementedError"),
    ("ARMAConv(-1, ...) with one layer", "one root weight", "two, of which it reads the first"),
    (
        "PDNConv on a sparse matrix of torch, or beside one of torch_sparse, with features of edges",
        "weights from the features",
        "the numbers of the matrix, or 1 where it has none, and the features are not read",
    ),
    (
        "PDNConv on a sparse matrix of torch, without features of edges",
        "the numbers of the matrix are no weights, as with edges, which take none",
        "messages are multiplied by them",
    ),
    (
        "weights of edges as an argument beside a matrix of torch_sparse without values (GCNConv, GraphConv, "
        "SimpleConv, GatedGraphConv, TAGConv, LGConv, ARMAConv ...)",
        "the weights",
        "the matrix is multiplied by as it is, and the weights are not read",
    ),
    (
        "weights of edges as an argument beside a sparse matrix that has values, as torch's always have",
        "the values, and the weights are not read, but for LEConv and aggregations besides sum, mean, min and max: "
        "pass the edges, or a matrix of the weights",
        "the same",
    ),
    (
        "a number for each edge in a matrix, in layers of features of size 1 (GATConv, GATv2Conv, RGATConv with "
        "`edge_dim=1`, GENConv, GeneralConv)",
        "features in a matrix of torch_sparse; in one of torch, which always has numbers, they are none: give values "
        "of shape [E, 1] there",
        "not read in either, without an error",
    ),
    (
        "EGConv without `symnorm` on a matrix of torch_sparse that has values",
        "as with edges, whose weights it does not take",
        "messages are multiplied by them",
    ),
    (
        "modules that layers and models are given (`nn` of GINConv, GINEConv, EdgeConv, NNConv, `pos_nn`, `encoder` of "
        "GAE ...)",
        "drawn anew by the constructor, what has `reset_parameters` in them: load a state after it",
        "the same",
    ),
    (
        "numbers in a matrix that are taken for relations (RGCNConv, FiLMConv) and are not whole; a number for each "
        "edge where a layer has features of another size (GENConv, GeneralConv)",
        "an error",
        "no edge is of any relation; the numbers are taken for one row of features, or are not read",
    ),
    (
        "SAGEConv, GINConv, SignedConv on a sparse matrix of torch that has values",
        "the values are no weights, as with edges, and as in its own code for torch_sparse's matrices",
        "messages are multiplied by them",
    ),
    ("ClusterGCNConv on a matrix of torch_sparse that has values", "degrees count edges", "degrees are their sums"),
    (
        "GENConv without `edge_dim`, CGConv without `dim`, on a matrix of torch_sparse with a number for each edge",
        "the numbers are no features, as in a matrix of torch",
        "AssertionError, or torch's for the sizes",
    ),
    (
        "an `EdgeIndex` of another size than the features, in layers with self-loops",
        "ValueError, as in layers without",
        "its size is forgotten",
    ),
    ("sparse features, in every layer", "as the same rows of numbers", "torch's errors, but for a linear map of them"),
    (
        "sparse matrices with a vector or matrix of values for each edge, in every layout",
        "as edges with these features",
        "NotImplementedError for CSC; no self-loops",
    ),
    (
        "whole numbers and truth values as features or weights of edges",
        "as real numbers of the other inputs' dtype, or the parameters'",
        "torch's error where a linear map or a normalisation reads them, and sums of their own dtype, which may wrap "
        "around, where nothing else does",
    ),
    (
        "the dtype of results under autocast",
        "autocast's: a layer is one operation, whose sums are in float32",
        "float32 where weights of edges or a bias in float32 come last (GCNConv, GATConv, RGCNConv, CGConv ...)",
    ),
    (
        "edge weights of another floating-point dtype than the features",
        "an error that says which to convert; in a class on `gdsl.nn.MessagePassing`, promoted as by torch",
        "promoted where no linear map follows (GCNConv, ARMAConv, LEConv, LGConv, APPNP), and torch's error where one "
        "does",
    ),
    (
        "means and deviations of truth values; means of complex numbers",
        "as of zeros and ones; as of their parts",
        "sums that are truth values again; NotImplementedError",
    ),
    (
        "complex features in LGConv, of a node with no edge into it",
        "its messages are 0, as those of real features",
        "NaN, in GCNConv without loops, too",
    ),
    (
        "writing to the input after the call, as `h += conv(h)` does, where the gradient needs the input",
        "the gradient of the call, on the CPU: what the backward pass reads takes memory of its own once it is written "
        "to, so that a NumPy array or a DLPack view of the input does not follow such a write. On a GPU, under "
        "torch.compile and torch.func torch's RuntimeError: write `h = h + conv(h)`",
        "trains where only copies on the edges are read; the same error where a linear map or weights of edges read "
        "the input itself",
    ),
    (
        "edge masks (`explain`, as explainers set it) and hooks on messages",
        "with one, a call runs in torch and not fused, as the error says that `kernels` then gives; gone, it is fused "
        "again. A hook before `propagate` or `aggregate` may not give another graph; `message_and_aggregate` is no "
        "part of a program, and a hook on it an InputError. PANConv's messages are the entries of M, and a mask has a "
        "number for each of these, as there. Of several signals, each is a call of its own. `explain` is "
        "gdsl's own method as long as nothing is assigned to it, and then the flag that explainers compare: "
        "`type(layer).explain(layer, graph)` is the method while a mask is there",
        "every call has messages in memory; `explain` is a flag",
    ),
    (
        "an edge mask on RGCNConv, FastRGCNConv, FiLMConv with several relations",
        "each message times the mask of its edge",
        "AssertionError, TypeError",
    ),
    (
        "`node_dim=-1`; `inspector` of a layer of the library",
        "ValueError; AttributeError: a program has no methods to read. Classes on `gdsl.nn.MessagePassing` have both",
        "SimpleConv sums along it, other layers raise torch's errors; the object that reads a class's methods",
    ),
    (
        "an edge mask on MeshCNNConv",
        "on the features of the neighbours",
        "on what the kernels make of sums and differences of them",
    ),
    (
        'an edge mask of ones on GATv2Conv or FAConv with flow="target_to_source"',
        "changes nothing",
        "another result: with a mask, features of two sets of nodes are read at the other ends",
    ),
    (
        "the second derivative of GPSConv's attention",
        "there where graphs of a batch differ much in size, which is a kernel's; elsewhere under "
        "`torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, for torch's attention has none on its quick ways",
        "under `sdpa_kernel(SDPBackend.MATH)`",
    ),
    (
        "GPSConv in training with dropout of the attention, on graphs of more than 1024 nodes on a CPU",
        "a kernel, whose memory grows with the nodes; other draws than torch's",
        "a weight for each pair of nodes, of graphs padded to the largest",
    ),
    (
        "DMoNPooling on graphs of several sizes",
        "the cluster loss of each graph has its own number of nodes, as the paper's",
        "those of all graphs of the batch, in turn",
    ),
    (
        "LabelPropagation, ClusterPooling, SGFormer and EquilibriumAggregation in float64",
        "in float64 throughout",
        "weights, or where a descent starts, in the default dtype; or an error for two dtypes",
    ),
    (
        "Node2Vec, KNNIndex and its kind, approx_knn, knn_interpolate, GAE.test, SchNet, DimeNet, DimeNetPlusPlus",
        "in torch; approximate neighbours are the nearest themselves",
        "pyg-lib, faiss, pynndescent, torch_cluster, scikit-learn, torch_sparse",
    ),
    ("the waves of DimeNet, log 2 in SchNet", "in the dtype of the positions", "from roots and a logarithm in float32"),
    (
        "MLPAggregation with a norm that asks for graphs",
        "one row a group, all of one graph",
        "an error: it is told the groups of the rows before they were joined",
    ),
    (
        "DeepSetsAggregation whose second perceptron has a norm that asks for graphs",
        "one row a group, all of one graph",
        "an error, or the first groups: it is told the groups of the rows before they were joined",
    ),
    (
        "state_dict of `Linear` with weights that are made of others (weight_norm, spectral_norm, pruning)",
        "the parameters, as of `torch.nn.Linear`",
        "`weight` as it was made; its own parameters are not saved",
    ),
    (
        "radius, radius_graph",
        "points nearer than r, as in torch_cluster (at r they are left out), the first `max_num_neighbors` by index",
        "another package; of more than `max_num_neighbors` some quadrants' first, as its page says",
    ),
]

HEAD = """# Layers

Made by `python -m tests.parity.catalogue > docs/layers.md`; a test compares. Each layer takes torch_geometric's
arguments and has its state: change one import, `from gdsl.nn import GATConv`. Outputs, gradients by every input and
parameter,
`state_dict` both ways and `repr` are compared with torch_geometric 2.8, to 1e-9 in float64 (1e-6 where torch_geometric
itself computes in float32): `pytest tests/parity`. On the site (`make docs`) each layer has a page with its equation,
program, costs, what is compared, and measured ratios.
"""

CONVERT = """## A model that is there already

`gdsl.nn.convert(model)` gives a model with torch_geometric's layers, aggregations, norms, poolings and models replaced
by those of this page. They are on the same parameters and buffers, so that an optimizer made before goes on to work,
and have the mode, hooks, ties, parametrizations and what `cached=True` has kept.

```python
import torch
from torch_geometric.nn import GAT
import gdsl.nn

model = GAT(16, 32, num_layers=3, out_channels=7, heads=4)
x, edge_index = torch.randn(100, 16), torch.randint(100, (2, 500))
model = gdsl.nn.convert(model, sample=(x, edge_index))  # prints: replaced: 1 GAT
```

- By default the result is a model of its own on the same parameters, and the old one goes on to work; `inplace=True`
  replaces the parts of the model itself, as for what DistributedDataParallel wraps.
- `sample` is a call to compare on, in evaluation mode: outputs, and gradients by every parameter and input. Where they
  differ, an error names the tensors and the numbers, and the model is as it was.
- What is replaced is printed, and what is not and why (`verbose=False`: nothing); `gdsl.nn.convertible(model)` tells it
  before. A layer's arguments are read back from it, and torch_geometric's class is made with them again: where that one
  is not the same in all that it keeps, the layer stays. So do layers with hooks on messages or a mask on edges; layers
  of your own, which `gdsl.nn.MessagePassing` is for; classes derived from torch_geometric's; scripted
  ones. Functions such as `global_mean_pool` are no modules, and stay.
- A model of sharded parameters, or that `torch.compile` has compiled by `model.compile()`, is converted before that.
"""

# Words of a docstring's paragraph that says what is no program.
NO_PROGRAM = ("in torch", "torch's", "outside the program", "made of")
PROGRAMS = "../gdsl/nn/programs"


def text() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, modules in FAMILIES.items():
        rows = [row(name) for name, _ in layers_of(modules)]
        parts.append(f"## {title}\n\n| layer | computes | program |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n")
    parts.append(CONVERT)
    rows = [" | ".join(["", *row, ""]).strip() for row in DIFFERENT]
    parts.append(
        "\n".join(["## What differs\n", "| call | here | torch_geometric |", "| --- | --- | --- |", *rows, ""])
    )
    parts += [part(name) for name in PARTS]
    parts.append(by_name())
    return "\n".join(parts)


def names_of(module: str) -> list[str]:
    """The public names of one of torch_geometric's modules."""
    found: list[str] = import_module(f"torch_geometric.nn.{module}").__all__
    return found


def by_name() -> str:
    """How many of torch_geometric's names are here, and why others are not."""
    lines = ["## By name", "", "Of torch_geometric 2.8's public names in ``torch_geometric.nn``, ``gdsl.nn`` has:", ""]
    lines += ["| module | here | of | not here |", "| --- | --- | --- | --- |"]
    every = {module: names_of(module) for module in sorted(("conv", *PARTS))}
    absent = {module: [n for n in names if n not in gdsl.nn._HOMES] for module, names in every.items()}
    for module, names in every.items():
        away = ", ".join(absent[module])
        lines.append(f"| {module} | {len(names) - len(absent[module])} | {len(names)} | {away} |")
    total, gone = (sum(map(len, found.values())) for found in (every, absent))
    lines += [f"| all | {total - gone} | {total} | |", ""]
    reasons: dict[str, list[str]] = {}
    for name in (name for names in absent.values() for name in names):
        reasons.setdefault(MISSING.get(name, "not written yet"), []).append(name)
    lines += ["| not here | why |", "| --- | --- |"]
    lines += [f"| {', '.join(names)} | {why} |" for why, names in reasons.items()]
    return "\n".join([*lines, ""])


def part(module: str) -> str:
    """What there is in a module besides layers, in the words of its docstrings."""
    there = [name for name in names_of(module) if name in gdsl.nn._HOMES]
    if not there:
        return ""
    lines = [f"## gdsl.nn.{module}", "", "| name | what it is |", "| --- | --- |"]
    for name in there:
        said = inspect.cleandoc(getattr(gdsl.nn, name).__doc__ or "").split("\n\n")[0]
        lines.append(f"| {name} | {_escaped(' '.join(said.split())).replace('|', '&#124;')} |")
    return "\n".join([*lines, ""])


def _others(modules: tuple[str, ...]) -> Iterator[str]:
    """Layers of a family that have tests of their own and no table."""
    named = {name: family for family, names in gdsl.nn._FAMILIES.items() for name in names}
    families = {module.removeprefix("test_nn_") for module in modules}
    families |= {more for family in families for more in TOGETHER.get(family, ())}
    for name, family in named.items():
        if family in families:
            yield name


def layers_of(modules: tuple[str, ...]) -> Iterator[tuple[str, list[Case]]]:
    """The layers of a family, each with the cases in which it is compared."""
    tests = [import_module(f"tests.parity.{name}") for name in modules]
    cases = [case for test in tests for case in getattr(test, "CASES", [])]
    for name in dict.fromkeys([*(c.layer for c in cases), *_others(modules)]):
        yield name, [c for c in (*cases, *test_nn_static.CASES) if c.layer == name]


def row(name: str) -> str:
    """One layer."""
    kind = getattr(gdsl.nn, name)
    if kind.__name__ != name:
        return f"| {name} | another name of {kind.__name__} | |"
    said = " ".join(said_of(kind).split("\n\n")[0].split()).replace("|", "&#124;")
    there = issubclass(kind, Programmed)
    return f"| {name} | {said} | {f'[text]({PROGRAMS}/{kind.program_name}.gdsl)' if there else 'of other layers'} |"


def said_of(kind: type) -> str:
    """Formula and paper of a layer, and what of it is no program."""
    doc = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    more = [p for p in doc[1:] if any(words in p for words in NO_PROGRAM)]
    return "\n\n".join(_escaped(" ".join(p.split())) for p in (doc[0], *more))


def _escaped(line: str) -> str:
    line = re.sub(r":(?:class|func|meth|mod):`~?(?:[\w.]*\.)?(\w+)`", r"\1", line)
    return line.replace("*", r"\*").replace("<", r"\<")


def called(case: Case) -> Any:
    """A layer after a plain call."""
    layer: Any = drop_in.build(case, gdsl.nn, {}).float()
    drop_in.set_backend(layer, "torch")
    first, graph, values = drop_in.draw(case, 1)
    single = [_single(v) for v in first]
    layer(*single, *(() if graph is None else (graph,)), **{k: _single(v) for k, v in values.items()})
    return layer


def costs(layer: Any) -> list[tuple[str, ...]]:
    """A row for each direction: kernels, then bytes and operations, of an edge and of a node."""
    rows = []
    for direction in ("forward", "backward"):
        kernels = [k for k in layer.kernels_for("cpp") if k.direction == direction]
        if kernels:
            totals = [sympy.expand(sum(getattr(k, what) for k in kernels)) for what in ("bytes", "flops")]
            each = [_each(total, rows_of) for total in totals for rows_of in "EN"]
            rows.append((direction, str(len(kernels)), *each))
    return rows


def _each(total: Any, rows: str) -> str:
    """What a formula has for each edge, E, or each node, N."""
    count = next((s for s in sympy.sympify(total).free_symbols if s.name == rows), None)
    return f"`{total.coeff(count) if count is not None else 0}`"


def _single(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    return tuple(_single(v) for v in value) if isinstance(value, tuple) else value


def compared(cases: list[Case]) -> str:
    """What the table of the tests says about a layer."""
    if not cases:
        return "with a formula of its own; see its test."
    calls = [" ".join(p for p in (c.x, *c.then, *c.call, c.note) if p) for c in cases if c.note != "refused"]
    options = list(dict.fromkeys(name for case in cases for name in case.options))
    return f"calls with {'; '.join(dict.fromkeys(calls))}" + (f"; options {', '.join(options)}." if options else ".")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.stdout.write(text())

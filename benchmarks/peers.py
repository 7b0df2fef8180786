"""The ways to run a layer: gdsl, and those that it is measured against. Each is a row of ``BUILDERS``.

A builder gets a layer and a case (graph, inputs, weights) and gives a ``Built``, or raises ``Unsupported``.
What a library can prepare once for a graph, it prepares once; that time is reported apart, and can be had again for
graphs that are new in each call.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from programs import Layer, Mlp, Peer, Weight
from torch import Tensor, nn


class Unsupported(Exception):
    """This way of running layers does not have this one, or is not installed."""


@dataclass
class Case:
    """What every implementation is given."""

    edge_index: Tensor
    num_nodes: int
    x: Tensor
    grad: Tensor  # the gradient that arrives at the output
    weights: Mapping[str, Tensor]
    extras: Mapping[str, Tensor]


class Prepared(NamedTuple):
    """A layer on a prepared graph: x -> y, and the tensors that hold the graph, when asked for."""

    call: Callable[[Tensor], Tensor]
    graph: Callable[[], list[Tensor]]


class Built:
    """A layer ready to be called.

    prepare     takes the edges as they came and makes what ``call`` wants of them
    call        x -> y, on a graph prepared once
    fresh       x -> y, preparing what this call needs included
    parameters  by their name in the text
    restore     a gradient of the parameter of that name, in the text's shape
    graph       gives the tensors that hold the prepared graph
    prepare_s   seconds that preparing the graph took
    """

    def __init__(
        self,
        prepare: Callable[[], Prepared],
        parameters: Mapping[str, nn.Parameter],
        restore: Callable[[str, Tensor], Tensor] = lambda name, grad: grad,
        fresh: Callable[[Tensor], Tensor] | None = None,
    ):
        self.prepare, self.parameters, self.restore = prepare, parameters, restore
        self.fresh = fresh or (lambda x: prepare().call(x))
        start = time.perf_counter()
        self.call, self.graph = prepare()
        _wait()
        self.prepare_s = time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


# -- gdsl ------------------------------------------------------------------------------------------


def _gdsl(layer: Layer, case: Case) -> Built:
    import gdsl
    from gdsl.runtime import native as native_code

    # Compiled once a machine, for the second graph: what is measured are all the others.
    native_code.native(wait=True)
    on_cpu = case.x.device.type == "cpu"
    conv = gdsl.compile(layer.source, **layer.arguments, backend="cpp" if on_cpu else "triton").to(case.x.device)
    parameters = dict(conv.named_parameters())
    _fill(parameters, case.weights)

    nodes = [case.extras[n] for n, e in layer.extras.items() if e.where == "node"]
    edges = [case.extras[n] for n, e in layer.extras.items() if e.where == "edge"]

    def prepare() -> Prepared:
        graph = gdsl.Graph(case.edge_index, case.num_nodes)
        orders = [graph.in_edges, graph.out_edges]

        def held() -> list[Tensor]:
            parts = [t for o in orders for t in (o.rowptr, o.index, o.edge, o.blocks)]
            return [graph.edge_index, *parts, graph.in_degree, graph.out_degree]

        return Prepared(lambda x: conv(x, *nodes, graph, *edges), held)

    def fresh(x: Tensor) -> Tensor:
        return conv(x, *nodes, gdsl.Graph(case.edge_index, case.num_nodes), *edges)

    return Built(prepare, parameters, fresh=fresh)


def _fill(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    if parameters.keys() != weights.keys():
        raise ValueError(f"the text has {sorted(parameters)}, and the table {sorted(weights)}")
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)


# -- torch_geometric and DGL -----------------------------------------------------------------------


def _module(library: Any, layer: Layer, peer: Peer) -> nn.Module:
    network = [_argument(Mlp(layer.mlp))] if layer.mlp else []
    given = {name: _argument(value) for name, value in peer.kwargs.items()}
    return getattr(library, peer.name)(*network, *map(_argument, peer.args), **given)


def _argument(value: Any) -> Any:
    """A peer's argument: networks and tensors are made here, so that the table holds plain values."""
    if isinstance(value, tuple):
        return torch.tensor(value)
    if not isinstance(value, Mlp):
        return value
    parts: list[nn.Module] = []
    for a, b in pairwise(value.sizes):
        parts += [nn.ReLU(), nn.Linear(a, b)] if parts else [nn.Linear(a, b)]
    return nn.Sequential(*parts) if len(parts) > 1 else parts[0]


def _extras(layer: Layer, case: Case, order: Tensor | None = None) -> dict[str, Tensor]:
    """The other inputs by torch_geometric's keywords; those of edges in an order of the edges."""
    found = {}
    for name, extra in layer.extras.items():
        value = case.extras[name]
        found[extra.peer] = value[order] if order is not None and extra.where == "edge" else value
    return found


def _own(
    module: nn.Module, case: Case, weights: Mapping[str, tuple[str, bool]]
) -> tuple[dict[str, nn.Parameter], Callable[[str, Tensor], Tensor]]:
    """The module's parameters by the text's names, filled, and how to bring their gradients into its shapes.

    weights  the text's name -> the module's, and whether it holds the transpose
    """
    state = dict(module.named_parameters())
    found: dict[str, nn.Parameter] = {}
    with torch.no_grad():
        for name, (theirs, linear) in weights.items():
            value = case.weights[name]
            state[theirs].copy_((value.flatten(1).t() if linear else value).reshape(state[theirs].shape))
            found[name] = state[theirs]

    def restore(name: str, grad: Tensor) -> Tensor:
        return (grad.t() if weights[name][1] else grad).reshape(case.weights[name].shape)

    return found, restore


def _pyg_weights(weights: Mapping[str, Weight]) -> dict[str, tuple[str, bool]]:
    return {name: (w.pyg, w.linear) for name, w in weights.items()}


def _pyg_module(layer: Layer, scatter: bool = False, **more: Any) -> nn.Module:
    """torch_geometric's layer, with torch-scatter's kernels or without them, whether that is installed or not."""
    try:
        import torch_geometric.nn as library
        import torch_geometric.typing as installed
    except ImportError as error:
        raise Unsupported("torch_geometric is not installed") from error
    if scatter and importlib.util.find_spec("torch_scatter") is None:
        raise Unsupported("torch-scatter is not installed")
    installed.WITH_TORCH_SCATTER = scatter
    peer = layer.pyg
    try:
        return _module(library, layer, Peer(peer.name, peer.args, {**peer.kwargs, **more}))
    except ImportError as error:
        raise Unsupported(str(error)) from error


def _pyg(layer: Layer, case: Case, scatter: bool = False) -> Built:
    """As most people call it: the edges as they came."""
    module = _pyg_module(layer, scatter).to(case.x.device)
    parameters, restore = _own(module, case, _pyg_weights(layer.weights))
    more = _extras(layer, case)

    def call(x: Tensor) -> Tensor:
        return module(x=x, edge_index=case.edge_index, **more)

    return Built(lambda: Prepared(call, lambda: [case.edge_index]), parameters, restore)


def _pyg_compile(layer: Layer, case: Case) -> Built:
    module = _pyg_module(layer).to(case.x.device)
    parameters, restore = _own(module, case, _pyg_weights(layer.weights))
    compiled, more = torch.compile(module, dynamic=False), _extras(layer, case)

    def call(x: Tensor) -> Tensor:
        return compiled(x=x, edge_index=case.edge_index, **more)

    return Built(lambda: Prepared(call, lambda: [case.edge_index]), parameters, restore)


def _pyg_sorted(layer: Layer, case: Case) -> Built:
    """The best that torch_geometric does with a graph prepared once.

    That is its product with a sparse matrix where the layer is one, with the norms of GCN computed beforehand
    too, and else an EdgeIndex sorted by target, with its pointers and the other order filled in.
    """
    if layer.sparse is None:
        return _pyg_edge_index(layer, case)
    module = _pyg_module(layer, **({"normalize": False} if layer.sparse == "norm" else {})).to(case.x.device)
    parameters, restore = _own(module, case, _pyg_weights(layer.weights))

    def prepare() -> Prepared:
        values = _norm(case) if layer.sparse == "norm" else _one(case)
        adjacency = _csr(case, values, end=1, index=torch.int64)
        return Prepared(lambda x: module(x, adjacency), lambda: _csr_parts(adjacency))

    return Built(prepare, parameters, restore)


def _pyg_edge_index(layer: Layer, case: Case) -> Built:
    module = _pyg_module(layer).to(case.x.device)
    from torch_geometric import EdgeIndex

    parameters, restore = _own(module, case, _pyg_weights(layer.weights))

    def prepare() -> Prepared:
        order = torch.argsort(case.edge_index[1], stable=True)
        size = (case.num_nodes, case.num_nodes)
        edges = EdgeIndex(case.edge_index[:, order], sparse_size=size, sort_order="col").fill_cache_()
        cached = [getattr(edges, name, None) for name in ("_indptr", "_T_perm", "_T_index", "_T_indptr")]

        def held() -> list[Tensor]:
            flat = [t for c in cached for t in (c if isinstance(c, tuple) else (c,)) if isinstance(t, Tensor)]
            return [edges, *flat]

        more = _extras(layer, case, order)
        return Prepared(lambda x: module(x=x, edge_index=edges, **more), held)

    return Built(prepare, parameters, restore)


def _dgl(layer: Layer, case: Case) -> Built:
    if layer.dgl is None:
        raise Unsupported("DGL does not have this layer with this meaning")
    try:
        import dgl
        import dgl.nn
    except (ImportError, OSError) as error:
        raise Unsupported("dgl is not installed") from error
    module = _module(dgl.nn, layer, layer.dgl)
    names = {n: (w.dgl, w.linear and not w.dgl_flat) for n, w in layer.weights.items() if w.dgl is not None}
    parameters, restore = _own(module, case, names)

    def prepare() -> Prepared:
        graph = dgl.graph((case.edge_index[0], case.edge_index[1]), num_nodes=case.num_nodes)
        graph.create_formats_()
        more = {"edge_weight": _norm(case)} if layer.sparse == "norm" else {}
        return Prepared(lambda x: module(graph, x, **more).flatten(1), held)

    def held() -> list[Tensor]:
        # COO, CSR and CSC: both ends of each edge, and twice a pointer, an index and an edge id. DGL shows
        # none of them as a tensor, so one without memory stands for their size.
        size = 6 * case.edge_index.shape[1] + 2 * (case.num_nodes + 1)
        return [torch.empty(size, dtype=torch.int64, device="meta")]

    return Built(prepare, parameters, restore)


# -- graphs that are new in each call --------------------------------------------------------------


def streamed(
    layer: Layer, case: Case, name: str
) -> tuple[Callable[[Tensor, Tensor], Tensor], Mapping[str, nn.Parameter]]:
    """(x, edge_index) -> y, and the parameters: the text ("gdsl"), gdsl's library ("gdsl.nn"), or torch_geometric's."""
    import gdsl
    import gdsl.nn
    from gdsl.runtime import native as native_code

    native_code.native(wait=True)
    if name == "gdsl":
        conv = gdsl.compile(layer.source, **layer.arguments)
        parameters = dict(conv.named_parameters())
        _fill(parameters, case.weights)
        return conv, parameters
    module = _module(gdsl.nn, layer, layer.pyg) if name == "gdsl.nn" else _pyg_module(layer)
    parameters, _ = _own(module, case, _pyg_weights(layer.weights))
    return lambda x, edge_index: module(x=x, edge_index=edge_index), parameters


# -- torch.sparse ----------------------------------------------------------------------------------


class _Product(torch.autograd.Function):
    """A @ h, with the transpose of A at hand for the backward."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transpose: Tensor, h: Tensor) -> Tensor:
        ctx.transpose = transpose
        return matrix @ h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transpose @ grads[0]


Product = Callable[[Tensor], Tensor]


def _gcn_formula(w: Mapping[str, Tensor], x: Tensor, product: Product) -> Tensor:
    return product(x @ w["weight"]).add_(w["bias"])


def _sage_formula(w: Mapping[str, Tensor], x: Tensor, product: Product) -> Tensor:
    return torch.addmm(w["bias"], product(x), w["weight_l"]).addmm_(x, w["weight_r"])


def _gin_formula(w: Mapping[str, Tensor], x: Tensor, product: Product) -> Tensor:
    hidden = torch.addmm(w["b1"], product(x).add_(x), w["w1"]).relu_()
    return torch.addmm(w["b2"], hidden, w["w2"])


_FORMULAS = {"norm": _gcn_formula, "mean": _sage_formula, "one": _gin_formula}


def _torch_sparse(layer: Layer, case: Case) -> Built:
    """CSR products (MKL's where torch is built with it) plus the dense products, both directions prepared."""
    formula = _FORMULAS.get(layer.sparse or "")
    if formula is None:
        raise Unsupported("the layer is no product with a sparse matrix")
    parameters = {name: nn.Parameter(value.clone()) for name, value in case.weights.items()}

    def prepare() -> Prepared:
        values = _VALUES[layer.sparse or ""](case)
        # int32 indices: MKL takes them as they are, and torch would convert int64 ones in each call.
        matrix, transpose = (_csr(case, values, end, torch.int32) for end in (1, 0))

        def product(h: Tensor) -> Tensor:
            return _Product.apply(matrix, transpose, h)

        return Prepared(lambda x: formula(parameters, x, product), lambda: _csr_parts(matrix) + _csr_parts(transpose))

    return Built(prepare, parameters)


def _csr(case: Case, values: Tensor, end: int, index: torch.dtype) -> Tensor:
    """The matrix whose rows are targets (``end=1``) or sources (``end=0``); parallel edges stay apart."""
    rows = case.edge_index[end]
    order = torch.argsort(rows, stable=True)
    pointer = torch.zeros(case.num_nodes + 1, dtype=index, device=rows.device)
    torch.cumsum(torch.bincount(rows, minlength=case.num_nodes), 0, out=pointer[1:])
    columns = case.edge_index[1 - end][order].to(index)
    size = (case.num_nodes, case.num_nodes)
    return torch.sparse_csr_tensor(pointer, columns, values[order], size, check_invariants=False)


def _csr_parts(matrix: Tensor) -> list[Tensor]:
    return [matrix.crow_indices(), matrix.col_indices(), matrix.values()]


def _in_degree(case: Case) -> Tensor:
    return torch.bincount(case.edge_index[1], minlength=case.num_nodes).float()


def _norm(case: Case) -> Tensor:
    root = _in_degree(case).rsqrt()
    root[root.isinf()] = 0
    return root[case.edge_index[0]] * root[case.edge_index[1]]


def _mean(case: Case) -> Tensor:
    return _in_degree(case).reciprocal()[case.edge_index[1]]


def _one(case: Case) -> Tensor:
    return torch.ones(case.edge_index.shape[1], device=case.edge_index.device)


_VALUES = {"norm": _norm, "mean": _mean, "one": _one}

# Imported before the first call is timed.
LIBRARIES = {
    "gdsl": "gdsl",
    "pyg": "torch_geometric.nn",
    "pyg-scatter": "torch_geometric.nn",
    "pyg-sorted": "torch_geometric.nn",
    "pyg-compile": "torch_geometric.nn",
    "dgl": "dgl.nn",
}

BUILDERS: dict[str, Callable[[Layer, Case], Built]] = {
    "gdsl": _gdsl,
    "pyg": _pyg,
    "pyg-scatter": partial(_pyg, scatter=True),
    "pyg-sorted": _pyg_sorted,
    "pyg-compile": _pyg_compile,
    "torch.sparse": _torch_sparse,
    "dgl": _dgl,
}

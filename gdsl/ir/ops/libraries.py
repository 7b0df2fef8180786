"""What runs as a whole: products that are left to libraries, and torch modules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from gdsl.ir.attributes import MOST, NAME, Allowed, Attrs, need, one_of
from gdsl.ir.node import Node, make
from gdsl.ir.ops.edges import EDGE_END, rows_at
from gdsl.ir.ops.indexing import below
from gdsl.ir.ops.op import ATOM, Op, Run, Sizes, align, define, full
from gdsl.ir.types import Dim, Domain, Kind, Type, row_domains

if TYPE_CHECKING:
    from torch import Tensor

_LATE = "only the last pass before kernels makes it"


def _at(x: Node, end: str | None, rows: Domain) -> None:
    """A value with these rows, or one that is read at an end of each."""
    fits = x.domain in (rows, Domain.GLOBAL) if end is None else x.domain in row_domains(end) and x.domain is not rows
    need(fits and x.kind is Kind.FLOAT, f"{x.type} cannot be read at the end {end} of each {rows.value}")


# -------------------------------------------------------------------------------- sparse_product


class SparseProduct(Attrs):
    end: Annotated[str, EDGE_END]


def sparse_product(x: Node, end: str, row_domain: Domain, weight: Node | None = None) -> Node:
    """The sum over the edges of each node at ``end`` of x at the other end, times one number an edge: ``segment`` of a
    product of ``gather``, as one op for libraries that multiply by a sparse matrix."""
    inputs = (x,) if weight is None else (x, weight)
    return make("sparse_product", inputs, Type(row_domain, x.dims), SparseProduct(end))


def _sparse_product_rule(node: Node) -> Node:
    x, *weight = node.inputs
    end = node.attrs.end
    _at(x, "j" if end == "i" else "i", Domain.EDGE)
    for w in weight:
        _at(w, None, Domain.EDGE)
        need(not w.dims, f"its weight is one number an edge, not {w.type}")
    return sparse_product(x, end, rows_at(node, end), *weight)


def _sparse_product_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    """By torch.sparse, which calls MKL or cuSPARSE."""
    order = run.graph.in_edges if node.attrs.end == "i" else run.graph.out_edges
    x = full(args[0], node.inputs[0].type, run)
    if len(args) == 2:
        numbers = full(args[1], node.inputs[1].type, run)[order.edge.long()]
    else:
        numbers = x.new_ones(len(order.edge))
    rows = run.rows(node.domain)
    matrix = _csr(order.rowptr, order.index, numbers, (rows, len(x)))
    return (matrix @ x.reshape(len(x), node.type.numel)).view(rows, *node.type.shape)


def _csr(rowptr: Tensor, index: Tensor, numbers: Tensor, size: tuple[int, int]) -> Tensor:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # torch calls it a beta, and its checks are done already
        return torch.sparse_csr_tensor(rowptr, index, numbers, size, check_invariants=False)


def _sparse_product_work(node: Node, sizes: Sizes) -> Any:
    return sizes.rows(Domain.EDGE) * sizes.numel(node.dims) * len(node.inputs)


define(Op(
    name="sparse_product", operands=(1, 2), attrs=SparseProduct, rule=_sparse_product_rule,
    value=_sparse_product_value, work=_sparse_product_work, whole=True, no_file=_LATE,
))  # fmt: skip

# ------------------------------------------------------------------------------- grouped_product


def _is_ends(value: Any) -> bool:
    return type(value) is tuple and len(value) == 2 and all(v is None or (type(v) is str and v in "ij") for v in value)


TWO_ENDS = Allowed("two of i, j and none", _is_ends)


class GroupedProduct(Attrs):
    ends: Annotated[tuple[str | None, ...], TWO_ENDS]


def grouped_product(
    left: Node, right: Node, idx: Node, dim: Dim, ends: tuple[str | None, str | None], weight: Node | None = None
) -> Node:
    """For each integer the sum of the outer products of the rows that have it, [dim, *left, *right]: ``scatter`` of a
    product, as one op for libraries that multiply matrices.

    ends:   at which end of an edge a node value is read; None for a value with the rows of ``idx``
    weight: a number for each integer, with which the product is multiplied
    """
    inputs = (left, right, idx) if weight is None else (left, right, idx, weight)
    type = Type(Domain.GLOBAL, (dim, *left.dims, *right.dims))
    return make("grouped_product", inputs, type, GroupedProduct(ends))


def _grouped_product_rule(node: Node) -> Node:
    left, right, idx, *weight = node.inputs
    need(bool(node.dims), f"it has a dim for its index, and its type is {node.type}")
    below(idx, node.dims[0])
    need(idx.domain is not Domain.GLOBAL, f"its index has rows, and {idx.type} has none")
    at_left, at_right = node.attrs.ends
    for x, end in ((left, at_left), (right, at_right)):
        _at(x, end, idx.domain)
        need(end is not None or x.domain is idx.domain, f"{x.type} has no rows to be read at")
    for w in weight:
        _at(w, None, idx.domain)
        need(set(w.dims) <= set(idx.dims), f"its weight has a number for each of {idx.type}, not {w.type}")
    return grouped_product(left, right, idx, node.dims[0], (at_left, at_right), *weight)


# Rows of which two copies are made at a time: no tensor has the features of all edges, and these stay in the cache.
GROUPED_ROWS = 1 << 11


def _grouped_product_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    idx, shape = node.inputs[2], (node.type.shape[0], *(i.type.numel for i in node.inputs[:2]))
    out = torch.zeros(shape, dtype=run.dtype, device=run.device)
    kinds = full(args[2], idx.type, run).flatten()
    lead = Type(idx.domain, idx.dims)
    weights = full(align(args[3], node.inputs[3].type, lead), lead, run).reshape(-1, 1) if len(args) == 4 else None
    # Not -1 for the rows: rows without a number could be any number of them.
    sides = [
        full(a, i.type, run).reshape(run.rows(i.domain), i.type.numel)
        for a, i in zip(args[:2], node.inputs[:2], strict=True)
    ]
    ends = [None if end is None else run.ends(end) for end in node.attrs.ends]

    def add(kind: int, at: Tensor, factor: Tensor | None) -> None:
        row = at // idx.type.numel
        rows = [row if end is None else end.index_select(0, row) for end in ends]
        a, b = (side.index_select(0, r) for side, r in zip(sides, rows, strict=True))
        out[kind].addmm_((a if factor is None else a * factor).t(), b)

    if run.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        # How often each kind comes may not be asked for: each takes all there is, most times 0.
        everything = torch.arange(len(kinds), device=run.device)
        for kind in range(len(out)):
            here = (kinds == kind).to(run.dtype).unsqueeze(1)
            add(kind, everything, here if weights is None else here * weights)
    else:
        counts = torch.bincount(kinds, minlength=len(out)).tolist()
        parts = kinds.sort(stable=True).indices.split(counts)
        for kind in (k for k, count in enumerate(counts) if count):
            for at in parts[kind].split(GROUPED_ROWS):
                add(kind, at, None if weights is None else weights.index_select(0, at))
    return out.view(node.type.shape)


def _grouped_product_work(node: Node, sizes: Sizes) -> Any:
    left, right, idx, *weight = node.inputs
    rows = sizes.rows(idx.domain) * sizes.numel(idx.dims)
    return rows * sizes.numel(left.dims) * (2 * sizes.numel(right.dims) + len(weight))


define(Op(
    name="grouped_product", operands=(3, 4), attrs=GroupedProduct, rule=_grouped_product_rule,
    value=_grouped_product_value, work=_grouped_product_work, whole=True, no_file=_LATE,
))  # fmt: skip

# ------------------------------------------------------------------------------------------ call


class Call(Attrs):
    """kind: how the module runs: on each row by itself, or on the edges of a node at ``end`` together"""

    module: Annotated[str, NAME]
    kind: Annotated[str, one_of(("map", "aggregate"))] = "map"
    end: Annotated[str, EDGE_END] = "i"


def call(module: str, inputs: Sequence[Node], type: Type, kind: str = "map", end: str = "i") -> Node:
    """A torch module that runs as it is, between kernels, on whole tensors. ``module`` is its name in the layer."""
    return make("call", inputs, type, Call(module, kind, end))


define(Op(
    name="call", operands=(0, MOST), attrs=Call,
    rule=lambda n: call(n.attrs.module, n.inputs, n.type, n.attrs.kind, n.attrs.end),
    text=lambda n, args: (f"{n.attrs.module}({', '.join(args)})", ATOM), whole=True, no_file="a file has no modules",
))  # fmt: skip

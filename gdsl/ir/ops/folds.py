"""What depends on the order of a node's edges: folds, and ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from gdsl.ir.attributes import BOOL, FLOAT, MOST, SHARE, Allowed, Attrs, need, one_of
from gdsl.ir.node import Node, make, walk
from gdsl.ir.ops.adjoint import gradients
from gdsl.ir.ops.edges import END, gather, rows_at
from gdsl.ir.ops.elementwise import ELEMENTWISE, broadcast, join_domains, replay, to_float
from gdsl.ir.ops.functions import torch_function
from gdsl.ir.ops.leaves import const, load
from gdsl.ir.ops.op import ATOM, Gradients, Op, Run, Sizes, Text, align, define, full, no_gradient, of
from gdsl.ir.ops.products import product, spread_to
from gdsl.ir.ops.text import expression
from gdsl.ir.types import Domain, Kind, Type, element_domain

if TYPE_CHECKING:
    from torch import Tensor

# ------------------------------------------------------------------------------------------ scan


STEP = Allowed("an expression", lambda v: isinstance(v, Node))


class Scan(Attrs):
    end: Annotated[str, END]
    step: Annotated[Node, STEP]
    init: Annotated[float, FLOAT]
    reverse: Annotated[bool, BOOL]
    last: Annotated[bool, BOOL]


def scan(
    inputs: Sequence[Node],
    end: str,
    step: Node,
    init: float,
    *,
    reverse: bool = False,
    row_domain: Domain | None = None,
) -> Node:
    """Fold each segment in edge order with ``acc = step(acc, inputs...)``, from ``init``.

    ``step`` is an elementwise expression over loads named "acc", "0", "1", ... Without ``row_domain`` the result
    is an edge value, acc *before* each edge; with it, acc after the last one, a node value.
    """
    nodes = [to_float(n) for n in inputs]
    _, dims = broadcast(nodes)
    domain = row_domain or element_domain(end, Domain.NODE)
    return make("scan", nodes, Type(domain, dims), Scan(end, step, float(init), reverse, row_domain is not None))


def scan_step(node: Node, name: str) -> tuple[Node, Node]:
    """(acc, step): one step of a scan as an edge value, made of the scan's inputs and of ``acc``, a load of this name
    that stands for what the fold has come to before the edge."""
    acc = load(name, Type(element_domain(node.attrs.end, Domain.NODE), node.dims), "input")
    step = node.attrs.step
    return acc, replay(step, {n: acc if k == "acc" else node.inputs[int(k)] for k, n in _leaves(step).items()})


def _leaves(step: Node) -> dict[str, Node]:
    """The loads of a step by name: what it has come to, and the places of the inputs."""
    return {n.attrs.name: n for n in walk([step]) if n.op == "load"}


def _rows_at(node: Node, end: str) -> Domain:
    need(node.domain is not Domain.EDGE, "the pairs of an edge have no order")
    return rows_at(node, end)


def _scan_rule(node: Node) -> Node:
    end, step = node.attrs.end, node.attrs.step
    need(join_domains(node.inputs) in (Domain.GLOBAL, element_domain(end, Domain.NODE)), "it folds values of edges")
    places = {"acc", *(str(k) for k in range(len(node.inputs)))}
    for inner in walk([step]):
        known = inner.op in ELEMENTWISE or inner.op == "const"
        known = known or (inner.op == "load" and inner.attrs.name in places and inner.attrs.role == "input")
        need(known and inner.domain is Domain.GLOBAL and not inner.dims, f"its step reads {inner.op}: {inner.type}")
    need(step.kind is Kind.FLOAT, f"its step gives a float, not {step.type}")
    rows = _rows_at(node, end) if node.attrs.last else None
    return scan(node.inputs, end, step, node.attrs.init, reverse=node.attrs.reverse, row_domain=rows)


def _scan_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    """Step k takes the k-th edge of every row that has so many. With rows by degree, most edges first, these are the
    first rows, and with edges by step theirs lie together: all steps together look at each edge once."""
    import torch

    ends, last = run.ends(node.attrs.end), node.attrs.last
    rows = run.rows(node.domain) if last else int(ends.max()) + 1 if len(ends) else 0
    degree, by_degree = torch.bincount(ends, minlength=rows).sort(descending=True, stable=True)
    rank = _inverse(by_degree)
    row, by_row = rank[ends].sort(stable=True)
    place = torch.arange(len(ends), device=ends.device) - (degree.cumsum(0) - degree)[row]
    place = degree[row] - 1 - place if node.attrs.reverse else place
    order = by_row[place.sort(stable=True).indices]
    sizes = torch.bincount(place).tolist()
    wide = Type(element_domain(node.attrs.end, Domain.NODE), node.dims)
    values = [full(align(a, i.type, wide), wide, run)[order] for a, i in zip(args, node.inputs, strict=True)]
    acc = torch.full((rows, *node.type.shape), node.attrs.init, dtype=run.dtype, device=run.device)
    step = _step(node.attrs.step, run)
    done, before = [], []
    for size, *now in zip(sizes, *(v.split(sizes) for v in values), strict=True):
        if size < len(acc):
            acc, ended = acc.split([size, len(acc) - size])
            done.append(ended)
        before.append(acc)
        acc = step(acc, *now)
    if last:
        return torch.cat([acc, *reversed(done)])[rank]
    return torch.cat(before)[_inverse(order)] if before else acc


def _inverse(permutation: Tensor) -> Tensor:
    import torch

    numbers = torch.arange(len(permutation), device=permutation.device)
    return torch.empty_like(permutation).index_copy_(0, permutation, numbers)


def _step(step: Node, run: Run) -> Callable[..., Tensor]:
    """One step of a scan as a function of tensors: what it has come to, and a number of each input for each row."""
    order = list(walk([step]))
    constants: dict[Node, Tensor] = {}
    for n in order:
        value = of(n).value
        if n.op == "const" and value is not None:
            constants[n] = value(n, [], run)
    loads = {n: 0 if k == "acc" else 1 + int(k) for k, n in _leaves(step).items()}
    rest = [(n, torch_function(n.op, n.type.bound, run.dtype)) for n in order if n.inputs]

    def one(acc: Tensor, *now: Tensor) -> Tensor:
        values = constants | {n: (acc, *now)[k] for n, k in loads.items()}
        for node, function in rest:
            values[node] = function(*[values[i] for i in node.inputs])
        return values[step].expand_as(acc)

    return one


def _scan_pull(node: Node, g: Node, ties: str) -> Gradients:
    """The adjoint of a fold is a fold the other way: λ_before = λ_after · ∂step/∂acc + g."""
    end, step, reverse = node.attrs.end, node.attrs.step, node.attrs.reverse
    leaves = _leaves(step)
    acc, operands = leaves.get("acc"), [leaves.get(str(k)) for k in range(len(node.inputs))]
    read = [x for x in [acc, *operands] if x is not None]
    by_leaf = dict(zip(read, gradients({step: const(1.0)}, read), strict=True))
    before = scan(node.inputs, end, step, node.attrs.init, reverse=reverse)
    edge = {leaf: (before if name == "acc" else node.inputs[int(name)]) for name, leaf in leaves.items()}

    def on_edges(leaf: Node | None) -> Node:
        partial = by_leaf.get(leaf) if leaf is not None else None
        return const(0.0) if partial is None else replay(partial, edge)

    a, add, lam = (load(name, Type(Domain.GLOBAL), "input") for name in ("0", "1", "acc"))
    dims = Type(element_domain(end, Domain.NODE), node.dims)
    carry = spread_to(on_edges(acc) * const(1.0, node.dims), dims)
    if node.attrs.last:
        # λ after an edge is g times the product of the carries of the edges after it.
        after = scan([carry], end, lam * a, 1.0, reverse=not reverse) * gather(g, end)
    else:
        # g arrives at each edge's own prefix: λ before = λ after · carry + g.
        after = scan([carry, spread_to(g, dims)], end, lam * a + add, 0.0, reverse=not reverse)
    return [
        None if leaf is None else product([after, on_edges(leaf)], operand.type)
        for leaf, operand in zip(operands, node.inputs, strict=True)
    ]


def _scan_text(node: Node, args: list[str]) -> Text:
    """A fold: its step is a function of ``acc`` and of what it folds, which is called by its place."""
    names = {n: name if name == "acc" else args[int(name)] for name, n in _leaves(node.attrs.step).items()}
    step = expression(node.attrs.step, names, root=False)
    back = " backwards" if node.attrs.reverse else ""
    what = "fold" if node.attrs.last else "before"
    return f"{what}@{node.attrs.end}(acc = {step}{back}, from {node.attrs.init:g})", ATOM


def _scan_work(node: Node, sizes: Sizes) -> Any:
    steps = sum(n.op in ELEMENTWISE for n in walk([node.attrs.step]))
    return sizes.rows(element_domain(node.attrs.end, Domain.NODE)) * sizes.numel(node.dims) * steps


define(Op(
    name="scan", operands=(1, MOST), attrs=Scan, rule=_scan_rule, value=_scan_value, pull=_scan_pull, text=_scan_text,
    work=_scan_work, aggregates=True,
))  # fmt: skip

# ------------------------------------------------------------------------------------ order_rank


class OrderRank(Attrs):
    end: Annotated[str, END]
    q: Annotated[float, SHARE]
    side: Annotated[str, one_of(("lower", "upper"))]


def order_rank(e: Node, end: str, q: float, side: str, row_domain: Domain) -> Node:
    """The edge_id of the value at quantile ``q`` of each segment (``side`` "lower" or "upper"), -1 for none."""
    return make("order_rank", (to_float(e),), Type(row_domain, e.dims, Kind.INT), OrderRank(end, q, side))


def _order_rank_rule(node: Node) -> Node:
    x, end = node.inputs[0], node.attrs.end
    elements = element_domain(end, Domain.NODE)
    need(x.domain is elements, f"{x.type} has no value for each {elements.value}")
    return order_rank(x, end, node.attrs.q, node.attrs.side, _rows_at(node, end))


def _order_rank_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    value = full(args[0], node.inputs[0].type, run).reshape(run.rows(node.inputs[0].domain), node.type.numel)
    rows, ends = run.rows(node.domain), run.ends(node.attrs.end)
    # Not bincount: a GPU's waits for the largest number.
    degree = ends.new_zeros(rows).index_add_(0, ends, torch.ones_like(ends))
    first = degree.cumsum(0) - degree
    place = (degree - 1).clamp(min=0).double() * node.attrs.q
    place = place.floor() if node.attrs.side == "lower" else place.ceil()
    at = first + place.long()
    by_value = value.sort(dim=0, stable=True).indices
    by_row = ends[by_value].sort(dim=0, stable=True).indices
    order = by_value.gather(0, by_row)
    if not len(order):
        return torch.full((rows, *node.type.shape), -1, device=run.device)
    rank = order[at.clamp(max=len(order) - 1)]
    return torch.where((degree > 0)[:, None], rank, -1).reshape(rows, *node.type.shape)


define(Op(
    name="order_rank", operands=(1, 1), attrs=OrderRank, rule=_order_rank_rule, value=_order_rank_value,
    pull=no_gradient, text=lambda n, args: (f"rank@{n.attrs.end}({args[0]}, {n.attrs.q:g})", ATOM),
    whole=True, aggregates=True,
))  # fmt: skip

"""The torch backend: one plain torch expression for each IR op. Slow, readable, and the reference for all others.

Every function takes a node, the tensors of its operands and the run's :class:`Frame`, and returns the tensor of
the node: ``[rows of the domain, *dims]``, or ``[*dims]`` for a global value.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.ir.node import Node, walk
from gdsl.ir.ops import ELEMENTWISE, torch_function
from gdsl.ir.types import Domain, Kind, Type, element_domain
from gdsl.runtime import bspline, philox
from gdsl.runtime.graph import Graph


@dataclass(frozen=True)
class Frame:
    """What a run knows besides the tensors: the graph, the compute dtype and the batch vector of a batch of graphs."""

    graph: Graph
    dtype: torch.dtype
    device: torch.device
    batch: Tensor | None = None
    num_graphs: int = 1

    def rows(self, domain: Domain) -> int:
        """How many rows a value of this domain has."""
        if domain is Domain.GRAPH:
            return self.num_graphs
        if domain is Domain.EDGE:
            return self.graph.num_edges
        return self.graph.num_sources if domain is Domain.SOURCE else self.graph.num_targets

    def ends(self, end: str) -> Tensor:
        """For each edge its node at this end; for ``g``, for each node its graph."""
        if end == "g":
            if self.batch is None:
                return torch.zeros(self.graph.num_targets, dtype=torch.long, device=self.device)
            return self.batch
        return self.graph.edge_index[1 if end == "i" else 0]


def evaluate(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    """The value of one node, its operands given."""
    if node.op in ELEMENTWISE:
        return _elementwise(node, args, frame)
    return _RULES[node.op](node, args, frame)


def run(outputs: Sequence[Node], tensors: Mapping[Node, Tensor], frame: Frame) -> list[Tensor]:
    """Evaluate outputs from the tensors of their loads. Differentiable by torch's own autograd, too."""
    values: dict[Node, Tensor] = dict(tensors)
    for node in walk(outputs):
        if node not in values:
            values[node] = evaluate(node, [values[i] for i in node.inputs], frame)
    return [full(values[o], o.type, frame) for o in outputs]


def full(value: Tensor, type: Type, frame: Frame) -> Tensor:
    """The tensor with its broadcast rows and dims written out."""
    shape = type.shape if type.domain is Domain.GLOBAL else (frame.rows(type.domain), *type.shape)
    return value if value.shape == shape and value.is_contiguous() else value.expand(shape).contiguous()


def align(value: Tensor, have: Type, want: Type) -> Tensor:
    """A view of the value that broadcasts against the wanted dims, matched by name."""
    rows = 0 if have.domain is Domain.GLOBAL else 1
    order = [have.names.index(n) + rows for n in want.names if n in have.names]
    value = value.permute([*range(rows), *order])
    if want.domain is not Domain.GLOBAL and not rows:
        value = value.unsqueeze(0)
    lead = 0 if want.domain is Domain.GLOBAL else 1
    for place, name in enumerate(want.names):
        if name not in have.names:
            value = value.unsqueeze(place + lead)
    return value


def _elementwise(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    aligned = [align(a, i.type, node.type) for a, i in zip(args, node.inputs, strict=True)]
    return torch_function(node.op, node.attr("bound"), frame.dtype)(*aligned)


def _const(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    dtype = {Kind.FLOAT: frame.dtype, Kind.INT: torch.long, Kind.BOOL: torch.bool}[node.kind]
    return torch.full(node.type.shape, node.attr("value"), dtype=dtype, device=frame.device)


def _graph_value(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    graph, what = frame.graph, node.attr("what")
    if what == "edge_id":
        return torch.arange(graph.num_edges, device=frame.device)
    if what == "node_id":
        return torch.arange(frame.rows(node.domain), device=frame.device)
    if what == "position":
        return graph.position.long()
    return graph.degree(what, frame.dtype)


def _iota(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    return torch.arange(node.dims[0].size, device=frame.device)


def _random(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    shape = (*(() if node.domain is Domain.GLOBAL else (frame.rows(node.domain),)), *node.type.shape)
    return philox.uniform(args[0], node.attr("salt"), shape, frame.device, frame.dtype)


def _contract(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    if len(args) == 1:
        return _sum(node, args[0], frame)
    letters: dict[str, str] = {}
    for operand in node.inputs:
        for name in operand.type.names:
            letters.setdefault(name, "abcdefghijklmopqrstuvwxyz"[len(letters)])
    terms = []
    for operand in node.inputs:
        row = "" if operand.domain is Domain.GLOBAL else "n"
        terms.append(row + "".join(letters[n] for n in operand.type.names))
    lead = "" if node.domain is Domain.GLOBAL else "n"
    out = lead + "".join(letters[n] for n in node.type.names)
    tensors = [full(a, i.type, frame) for a, i in zip(args, node.inputs, strict=True)]
    return torch.einsum(",".join(terms) + "->" + out, *tensors)


def _sum(node: Node, value: Tensor, frame: Frame) -> Tensor:
    operand = node.inputs[0].type
    rows = 0 if operand.domain is Domain.GLOBAL else 1
    places = [operand.names.index(name) + rows for name in node.attr("reduce")]
    if node.attr("total"):
        places.append(0)
    value = full(value, operand, frame)
    if places:
        value = value.sum(places)
    kept = [n for n in operand.names if n not in node.attr("reduce")]
    lead = 0 if node.domain is Domain.GLOBAL else 1
    return value.permute([*range(lead), *(kept.index(n) + lead for n in node.type.names)])


def _reduce(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    operand = node.inputs[0].type
    place = operand.names.index(node.attr("dim")) + (0 if operand.domain is Domain.GLOBAL else 1)
    value = full(args[0], operand, frame)
    reducer = node.attr("reducer")
    if not value.shape[place]:
        none = torch.tensor(-1 if reducer.startswith("arg") else -torch.inf if reducer == "max" else torch.inf)
        shape = (*value.shape[:place], *value.shape[place + 1 :])
        return none.to(torch.long if reducer.startswith("arg") else value.dtype).to(value.device).expand(shape)
    best = value.amax(place, keepdim=True) if reducer.endswith("max") else value.amin(place, keepdim=True)
    if not reducer.startswith("arg"):
        return best.squeeze(place)
    winner = _wins(value, best)
    return winner.to(torch.uint8).argmax(place)  # argmax of 0s and 1s: the first winner


def _gather(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    return full(args[0], node.inputs[0].type, frame).index_select(0, frame.ends(node.attr("end")))


def _segment(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    value = full(args[0], node.inputs[0].type, frame)
    reducer, rows = node.attr("reducer"), frame.rows(node.domain)
    ends = frame.ends(node.attr("end"))
    places = 1
    if len(args) == 2:
        places, by = node.dims[0].size, node.inputs[1].type
        turned = Type(node.inputs[0].domain, (*by.dims, *node.dims[1:]))
        value = align(value, node.inputs[0].type, turned).reshape(-1, *node.type.shape[1:])
        ends = (ends.reshape(-1, *(1,) * len(by.dims)) * places + args[1]).flatten()
    shape = (rows * places, *value.shape[1:])
    result = _SEGMENTS[reducer](value, ends, shape)
    return result.reshape(rows, *node.type.shape)


def _segment_sum(value: Tensor, ends: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Added up in double precision: one after the other in float32, a million numbers lose three digits."""
    summed = torch.zeros(shape, dtype=torch.float64, device=value.device).index_add(0, ends, value.double())
    return summed.to(value.dtype)


def _scatter(value: Tensor, ends: Tensor, shape: tuple[int, ...], how: str, start: float) -> Tensor:
    where = ends.reshape(-1, *(1,) * (value.dim() - 1)).expand_as(value)
    if how == "prod":
        return value.new_full(shape, start).scatter_reduce(0, where, value, how)
    # From NaN, which equals no result: torch's derivative counts a tensor to start from among the winners where it is
    # equal to them, though it is left out.
    init = value.new_full(shape, torch.nan) if value.is_floating_point() else value.new_full(shape, -1)
    found = init.scatter_reduce(0, where, value, how, include_self=False)
    filled = torch.zeros(shape[0], dtype=torch.bool, device=value.device).index_fill(0, ends, True)
    return found.where(filled.reshape(-1, *(1,) * (len(shape) - 1)), start)


def _sparse_product(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    """By torch.sparse, which calls MKL or cuSPARSE."""
    order = frame.graph.in_edges if node.attr("end") == "i" else frame.graph.out_edges
    x = full(args[0], node.inputs[0].type, frame)
    if len(args) == 2:
        numbers = full(args[1], node.inputs[1].type, frame)[order.edge.long()]
    else:
        numbers = x.new_ones(len(order.edge))
    rows = frame.rows(node.domain)
    matrix = _csr(order.rowptr, order.index, numbers, (rows, len(x)))
    return (matrix @ x.reshape(len(x), node.type.numel)).view(rows, *node.type.shape)


def _csr(rowptr: Tensor, index: Tensor, numbers: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # torch calls it a beta, and its checks are done already
        return torch.sparse_csr_tensor(rowptr, index, numbers, size, check_invariants=False)


def _segment_arg(value: Tensor, ends: Tensor, shape: tuple[int, ...], how: str) -> Tensor:
    winner = _wins(value, _scatter(value, ends, shape, how, 0.0).index_select(0, ends))
    edges = len(value)
    ids = torch.arange(edges, device=value.device).reshape(-1, *(1,) * (value.dim() - 1)).expand_as(value)
    first = _scatter(torch.where(winner, ids, edges), ends, shape, "amin", edges)
    return torch.where(first == edges, -1, first)


def _segment_count(value: Tensor, ends: Tensor, shape: tuple[int, ...], how: str) -> Tensor:
    best = _scatter(value, ends, shape, how, 0.0).index_select(0, ends)
    return torch.zeros(shape, dtype=torch.long, device=value.device).index_add(0, ends, _wins(value, best).long())


def _wins(value: Tensor, best: Tensor) -> Tensor:
    """Which values are the best of theirs; NaN is."""
    return (value == best) | (value.isnan() & best.isnan())


_SEGMENTS: dict[str, Callable[[Tensor, Tensor, tuple[int, ...]], Tensor]] = {
    "sum": _segment_sum,
    "max": lambda v, e, s: _scatter(v, e, s, "amax", 0.0),
    "min": lambda v, e, s: _scatter(v, e, s, "amin", 0.0),
    "mul": lambda v, e, s: _scatter(v, e, s, "prod", 1.0),
    "argmax": lambda v, e, s: _segment_arg(v, e, s, "amax"),
    "argmin": lambda v, e, s: _segment_arg(v, e, s, "amin"),
    "countmax": lambda v, e, s: _segment_count(v, e, s, "amax"),
    "countmin": lambda v, e, s: _segment_count(v, e, s, "amin"),
}


# Rows of which two copies are made at a time: no tensor has the features of all edges, and these stay in the cache.
GROUPED_ROWS = 1 << 11


def _grouped_product(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    idx, shape = node.inputs[2], (node.type.shape[0], *(i.type.numel for i in node.inputs[:2]))
    out = torch.zeros(shape, dtype=frame.dtype, device=frame.device)
    kinds = full(args[2], idx.type, frame).flatten()
    lead = Type(idx.domain, idx.dims)
    weights = full(align(args[3], node.inputs[3].type, lead), lead, frame).reshape(-1, 1) if len(args) == 4 else None
    sides = [full(a, i.type, frame).reshape(-1, i.type.numel) for a, i in zip(args[:2], node.inputs[:2], strict=True)]
    ends = [None if end is None else frame.ends(end) for end in node.attr("ends")]

    def add(kind: int, at: Tensor, factor: Tensor | None) -> None:
        row = at // idx.type.numel
        rows = [row if end is None else end.index_select(0, row) for end in ends]
        a, b = (side.index_select(0, r) for side, r in zip(sides, rows, strict=True))
        out[kind].addmm_((a if factor is None else a * factor).t(), b)

    if frame.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        # How often each kind comes may not be asked for: each takes all there is, most times 0.
        everything = torch.arange(len(kinds), device=frame.device)
        for kind in range(len(out)):
            here = (kinds == kind).to(frame.dtype).unsqueeze(1)
            add(kind, everything, here if weights is None else here * weights)
    else:
        counts = torch.bincount(kinds, minlength=len(out)).tolist()
        parts = kinds.sort(stable=True).indices.split(counts)
        for kind in (k for k, count in enumerate(counts) if count):
            for at in parts[kind].split(GROUPED_ROWS):
                add(kind, at, None if weights is None else weights.index_select(0, at))
    return out.view(node.type.shape)


def _order_rank(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    value = full(args[0], node.inputs[0].type, frame).reshape(frame.rows(node.inputs[0].domain), node.type.numel)
    rows, ends = frame.rows(node.domain), frame.ends(node.attr("end"))
    degree = torch.bincount(ends, minlength=rows)
    first = degree.cumsum(0) - degree
    place = (degree - 1).clamp(min=0).double() * node.attr("q")
    place = place.floor() if node.attr("side") == "lower" else place.ceil()
    at = first + place.long()
    by_value = value.sort(dim=0, stable=True).indices
    by_row = ends[by_value].sort(dim=0, stable=True).indices
    order = by_value.gather(0, by_row)
    if not len(order):
        return torch.full((rows, *node.type.shape), -1, device=frame.device)
    rank = order[at.clamp(max=len(order) - 1)]
    return torch.where((degree > 0)[:, None], rank, -1).reshape(rows, *node.type.shape)


def _scan(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    """Step k takes the k-th edge of every row that has so many. With rows by degree, most edges first, these are the
    first rows, and with edges by step theirs lie together: all steps together look at each edge once."""
    ends, last = frame.ends(node.attr("end")), node.attr("last")
    rows = frame.rows(node.domain) if last else int(ends.max()) + 1 if len(ends) else 0
    degree, by_degree = torch.bincount(ends, minlength=rows).sort(descending=True, stable=True)
    rank = _inverse(by_degree)
    row, by_row = rank[ends].sort(stable=True)
    place = torch.arange(len(ends), device=ends.device) - (degree.cumsum(0) - degree)[row]
    place = degree[row] - 1 - place if node.attr("reverse") else place
    order = by_row[place.sort(stable=True).indices]
    sizes = torch.bincount(place).tolist()
    wide = Type(element_domain(node.attr("end")), node.dims)
    values = [full(align(a, i.type, wide), wide, frame)[order] for a, i in zip(args, node.inputs, strict=True)]
    acc = torch.full((rows, *node.type.shape), node.attr("init"), dtype=frame.dtype, device=frame.device)
    step = _step(node.attr("step"), frame)
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
    numbers = torch.arange(len(permutation), device=permutation.device)
    return torch.empty_like(permutation).index_copy_(0, permutation, numbers)


def _step(step: Node, frame: Frame) -> Callable[..., Tensor]:
    """One step of a scan as a function of tensors: what it has come to, and a number of each input for each row."""
    order = list(walk([step]))
    constants = {n: _const(n, [], frame) for n in order if n.op == "const"}
    loads = {n: 0 if n.attr("name") == "acc" else 1 + int(n.attr("name")) for n in order if n.op == "load"}
    rest = [(n, torch_function(n.op, n.attr("bound"), frame.dtype)) for n in order if n.inputs]

    def run(acc: Tensor, *now: Tensor) -> Tensor:
        values = constants | {n: (acc, *now)[k] for n, k in loads.items()}
        for node, function in rest:
            values[node] = function(*[values[i] for i in node.inputs])
        return values[step].expand_as(acc)

    return run


def _index(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    table, idx = node.inputs
    dim = node.attr("dim")
    if table.domain is Domain.GLOBAL:
        place = table.type.names.index(dim)
        rest = [k for k in range(len(table.dims)) if k != place]
        return args[0].permute([place, *rest])[args[1]]
    value, where = full(args[0], table.type, frame), args[1]
    moved = value.movedim(table.type.names.index(dim) + 1, 1)
    rows = torch.arange(len(value), device=value.device).reshape(-1, *(1,) * len(idx.dims))
    where = where if idx.domain is not Domain.GLOBAL else where.unsqueeze(0)
    return moved[rows, where]


def _scatter_rows(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    g, idx = node.inputs
    lead = Type(g.domain, idx.dims + tuple(d for d in g.dims if d.name not in idx.type.names))
    value = full(align(args[0], g.type, lead), lead, frame)
    where = full(args[1], Type(lead.domain, idx.dims, Kind.INT), frame) if idx.domain is Domain.GLOBAL else args[1]
    dim = node.type.dim(node.attr("dim"))
    rest = lead.names[len(idx.dims) :]
    flat = value.reshape(where.numel(), *(lead.dim(n).size for n in rest))
    out = flat.new_zeros(dim.size, *flat.shape[1:]).index_add(0, where.reshape(-1), flat)
    have = (dim.name, *rest)
    return out.permute([have.index(n) for n in node.type.names])


def _slice(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    operand = node.inputs[0].type
    place = operand.names.index(node.attr("dim"))
    return full(args[0], operand, frame).narrow(
        place + (0 if operand.domain is Domain.GLOBAL else 1), node.attr("start"), node.dims[place].size
    )


def _cat(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    new, parts = node.attr("new"), []
    for operand, value, old in zip(node.inputs, args, node.attr("dims"), strict=True):
        have = operand.type.with_dims(tuple(_as(d, new) if d.name == old else d for d in operand.dims))
        want = node.type.with_dims(tuple(have.dim(new) if d.name == new else d for d in node.dims))
        parts.append(full(align(value, have, want), want, frame))
    return torch.cat(parts, node.type.names.index(new) + (0 if node.domain is Domain.GLOBAL else 1))


def _as(dim, name: str):
    return type(dim)(name, dim.size)


def _reshape(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    value = full(args[0], node.inputs[0].type, frame)
    return value.reshape((*value.shape[: len(value.shape) - len(node.inputs[0].dims)], *node.type.shape))


def _transpose(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    return align(args[0], node.inputs[0].type, node.type)


def _spread(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    return args[0].unsqueeze(0).expand(frame.rows(node.domain), *node.type.shape)


def _bspline(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    attrs = dict(node.attrs)
    rule = bspline.places if node.op == "bspline_index" else bspline.values
    return rule(full(args[0], node.inputs[0].type, frame), **attrs)


def _load(node: Node, args: Sequence[Tensor], frame: Frame) -> Tensor:
    raise InputError(f"no value was given for `{node.attr('name')}`")


_RULES: dict[str, Callable[[Node, Sequence[Tensor], Frame], Tensor]] = {
    "load": _load,
    "const": _const,
    "graph_value": _graph_value,
    "iota": _iota,
    "random": _random,
    "contract": _contract,
    "reduce": _reduce,
    "gather": _gather,
    "segment": _segment,
    "sparse_product": _sparse_product,
    "grouped_product": _grouped_product,
    "order_rank": _order_rank,
    "scan": _scan,
    "index": _index,
    "scatter": _scatter_rows,
    "slice": _slice,
    "cat": _cat,
    "reshape": _reshape,
    "transpose": _transpose,
    "spread": _spread,
    "stop_gradient": lambda node, args, frame: args[0].detach(),
    "bspline": _bspline,
    "bspline_index": _bspline,
}

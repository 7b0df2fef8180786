"""Places of a dim: picked, added to, cut out, joined, compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from gdsl.ir.attributes import MOST, NAME, NAMES, Attrs, IRError, need, number, one_of
from gdsl.ir.node import Node, make
from gdsl.ir.ops.elementwise import broadcast, choose, elementwise, join_dims, join_domains, to_float
from gdsl.ir.ops.leaves import const, iota
from gdsl.ir.ops.op import ATOM, Gradients, Op, Run, Sizes, Text, align, check_dims, define, dim_of, full, row_axes
from gdsl.ir.ops.products import space, sum_dims, sum_to
from gdsl.ir.ops.rows import add_at
from gdsl.ir.ops.views import rename, reshape, transpose
from gdsl.ir.types import Dim, Domain, Kind, Type

if TYPE_CHECKING:
    from torch import Tensor


class AlongDim(Attrs):
    dim: Annotated[str, NAME]


def below(idx: Node, dim: Dim) -> None:
    """An index of a dim cannot leave it."""
    fits = idx.kind is Kind.INT and idx.type.bound is not None and idx.type.bound <= dim.size
    need(fits, f"an index of `{dim.name}` is an int below {dim.size}, not {idx.type}")


# ----------------------------------------------------------------------------------------- index


def index(x: Node, idx: Node, dim: str) -> Node:
    """``x[idx]``: pick one place of a dim by an integer that differs from row to row.

    The result has the dims of ``idx`` and then the other dims of ``x``.
    """
    d = x.type.dim(dim)
    if idx.kind is not Kind.INT or idx.type.bound is None:
        raise IRError(
            f"an index needs an integer with a bound, not {idx.type}", "declare it: `edge rel: int(num_relations)`"
        )
    if idx.type.bound > d.size:
        raise IRError(f"an integer below {idx.type.bound} cannot index dim `{dim}` of size {d.size}")
    rest = tuple(e for e in x.dims if e.name != dim)
    clash = set(idx.type.names) & {e.name for e in rest}
    if clash:
        raise IRError(f"dim `{min(clash)}` is in both the index and the value")
    domain = join_domains([x, idx])
    return make("index", (x, idx), Type(domain, idx.dims + rest, x.kind, x.type.bound), AlongDim(dim))


def _index_rule(node: Node) -> Node:
    x, idx = node.inputs
    below(idx, dim_of(x, node.attrs.dim))
    return index(x, idx, node.attrs.dim)


def _index_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    table, idx = node.inputs
    dim = node.attrs.dim
    if table.domain is Domain.GLOBAL:
        place = table.type.names.index(dim)
        rest = [k for k in range(len(table.dims)) if k != place]
        return args[0].permute([place, *rest])[args[1]]
    value, where = full(args[0], table.type, run), args[1]
    moved = value.movedim(table.type.names.index(dim) + 1, 1)
    rows = torch.arange(len(value), device=value.device).reshape(-1, *(1,) * len(idx.dims))
    where = where if idx.domain is not Domain.GLOBAL else where.unsqueeze(0)
    return moved[rows, where]


def _index_pull(node: Node, g: Node, ties: str) -> Gradients:
    table, idx = node.inputs
    dim = node.attrs.dim
    if table.domain is Domain.GLOBAL and node.domain is not Domain.GLOBAL:
        return [scatter(g, idx, table.type.dim(dim), table.type.names), None]
    return [_one_hot(g, idx, table, dim), None]


def _one_hot(g: Node, idx: Node, table: Node, name: str) -> Node:
    hit = elementwise("eq", idx, iota(table.type.dim(name)))
    return sum_to(choose(hit, g, 0.0), table.type)


define(Op(
    name="index", operands=(2, 2), attrs=AlongDim, rule=_index_rule, value=_index_value, pull=_index_pull,
    text=lambda n, args: (f"{args[0]}[{args[1]}]", ATOM), rowwise=True,
))  # fmt: skip

# --------------------------------------------------------------------------------------- scatter


def scatter(g: Node, idx: Node, dim: Dim, order: Sequence[str]) -> Node:
    """The adjoint of :func:`index` of a global value: sums the rows of ``g`` into the places that ``idx`` names."""
    rest = {d.name: d for d in g.dims if d.name not in idx.type.names}
    dims = tuple(dim if name == dim.name else rest[name] for name in order)
    return make("scatter", (g, idx), Type(Domain.GLOBAL, dims), AlongDim(dim.name))


def _scatter_rule(node: Node) -> Node:
    g, idx = node.inputs
    dim = dim_of(node, node.attrs.dim)
    below(idx, dim)
    need(g.kind is Kind.FLOAT, f"it adds up floats, not {g.type}")
    need(g.domain is not Domain.GLOBAL, f"it adds up rows, and {g.type} has none")
    broadcast(node.inputs)
    rest = [d.name for d in g.dims if d.name not in idx.type.names]
    need(sorted(node.type.names) == sorted([*rest, dim.name]), f"{[dim.name, *rest]} are left, and not {node.type}")
    return scatter(g, idx, dim, node.type.names)


def _scatter_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    g, idx = node.inputs
    lead = Type(g.domain, idx.dims + tuple(d for d in g.dims if d.name not in idx.type.names))
    value = full(align(args[0], g.type, lead), lead, run)
    where = full(args[1], Type(lead.domain, idx.dims, Kind.INT), run) if idx.domain is Domain.GLOBAL else args[1]
    dim = node.type.dim(node.attrs.dim)
    rest = lead.names[len(idx.dims) :]
    flat = value.reshape(where.numel(), *(lead.dim(n).size for n in rest))
    out = add_at(flat, where.reshape(-1), dim.size)
    have = (dim.name, *rest)
    return out.permute([have.index(n) for n in node.type.names])


def _scatter_pull(node: Node, g: Node, ties: str) -> Gradients:
    value, idx = node.inputs
    return [sum_to(index(g, idx, node.attrs.dim), value.type), None]


def added(node: Node, sizes: Sizes) -> Any:
    """The work of a reduction: an addition, or a comparison, a number of the operand for each place that it goes to."""
    return sizes.rows(node.inputs[0].domain) * sizes.numel(space(node))


define(Op(
    name="scatter", operands=(2, 2), attrs=AlongDim, rule=_scatter_rule, value=_scatter_value, pull=_scatter_pull,
    text=lambda n, args: (f"scatter({args[0]}, {args[1]}; {n.attrs.dim})", ATOM), work=added,
))  # fmt: skip

# ----------------------------------------------------------------------------------------- slice


class Slice(Attrs):
    dim: Annotated[str, NAME]
    start: Annotated[int, number(0, MOST)]


def slice_dim(x: Node, dim: str, start: int, new: Dim) -> Node:
    """Places ``start ... start + new.size`` of a dim, under a new name."""
    d = x.type.dim(dim)
    if start < 0 or start + new.size > d.size:
        raise IRError(f"places {start} to {start + new.size - 1} are outside dim `{dim}` of size {d.size}")
    dims = tuple(new if e.name == dim else e for e in x.dims)
    check_dims(dims)
    return make("slice", (x,), Type(x.domain, dims, x.kind, x.type.bound), Slice(dim, start))


def select(x: Node, dim: str, k: int) -> Node:
    """One place of a dim, by a number known at construction; the dim goes."""
    d = x.type.dim(dim)
    if not 0 <= k < d.size:
        raise IRError(f"index {k} is outside dim `{dim}` of size {d.size} (0 to {d.size - 1})")
    one = Dim(f"{dim}[{k}]", 1)
    part = slice_dim(x, dim, k, one)
    return reshape(part, [(one.name,)], [])


def slice_place(node: Node) -> int:
    """Which of its dims a slice cuts."""
    return node.inputs[0].type.names.index(node.attrs.dim)


def _slice_rule(node: Node) -> Node:
    (x,), dim = node.inputs, node.attrs.dim
    dim_of(x, dim)
    need(len(node.dims) == len(x.dims), f"it has as many dims as {x.type}, and not {node.type}")
    return slice_dim(x, dim, node.attrs.start, node.dims[slice_place(node)])


def _slice_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    operand, place = node.inputs[0].type, slice_place(node)
    return full(args[0], operand, run).narrow(place + row_axes(operand), node.attrs.start, node.dims[place].size)


def _slice_pull(node: Node, g: Node, ties: str) -> Gradients:
    operand, start = node.inputs[0], node.attrs.start
    whole = operand.type.dim(node.attrs.dim)
    new = node.dims[slice_place(node)]
    after = whole.size - start - new.size
    parts, dims = [g], [new.name]
    if start:
        parts.insert(0, const(0.0, [Dim("before", start)]))
        dims.insert(0, "before")
    if after:
        parts.append(const(0.0, [Dim("after", after)]))
        dims.append("after")
    return [transpose(cat(parts, dims, whole), operand.type.names)]


def _slice_text(node: Node, args: list[str]) -> Text:
    new = node.dims[slice_place(node)].name
    return f"slice({args[0]}; {node.attrs.dim} from {node.attrs.start} as {new})", ATOM


define(Op(
    name="slice", operands=(1, 1), attrs=Slice, rule=_slice_rule, value=_slice_value, pull=_slice_pull,
    text=_slice_text, word="slice", view=True, arranges=True, look=True, exact=True, rowwise=True, maps=True,
    linear=True,
))  # fmt: skip

# ------------------------------------------------------------------------------------------- cat


class Cat(Attrs):
    dims: Annotated[tuple[str, ...], NAMES]
    new: Annotated[str, NAME]


def cat(parts: Sequence[Node], dims: Sequence[str], new: Dim) -> Node:
    """Join values along a dim: ``dims[k]`` is the dim of ``parts[k]`` that goes, ``new`` the one that comes."""
    nodes = [to_float(p) for p in parts]
    others = [tuple(d for d in n.dims if d.name != dim) for n, dim in zip(nodes, dims, strict=True)]
    rest = join_dims(others)
    domain = join_domains(nodes)
    size = sum(n.type.dim(dim).size for n, dim in zip(nodes, dims, strict=True))
    if size != new.size:
        raise IRError(f"the parts have {size} places together, and dim `{new.name}` has {new.size}")
    whole = next((n for n, dim in zip(nodes, dims, strict=True) if len(n.dims) == len(rest) + 1), None)
    if whole is not None:
        place = [d.name for d in whole.dims].index(dims[nodes.index(whole)])
    else:
        place = len(rest)
    out = (*rest[:place], new, *rest[place:])
    check_dims(out)
    return make("cat", nodes, Type(domain, out), Cat(tuple(dims), new.name))


def _cat_rule(node: Node) -> Node:
    dims = node.attrs.dims
    need(len(dims) == len(node.inputs), f"it has a dim for each of {len(node.inputs)} parts, not {dims}")
    for x, dim in zip(node.inputs, dims, strict=True):
        dim_of(x, dim)
    return cat(node.inputs, dims, dim_of(node, node.attrs.new))


def _cat_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    new, parts = node.attrs.new, []
    for operand, value, old in zip(node.inputs, args, node.attrs.dims, strict=True):
        have = operand.type.with_dims(tuple(Dim(new, d.size) if d.name == old else d for d in operand.dims))
        want = node.type.with_dims(tuple(have.dim(new) if d.name == new else d for d in node.dims))
        parts.append(full(align(value, have, want), want, run))
    return torch.cat(parts, node.type.names.index(new) + row_axes(node.type))


def _cat_pull(node: Node, g: Node, ties: str) -> Gradients:
    parts: list[Node | None] = []
    new, start = node.attrs.new, 0
    for operand, name in zip(node.inputs, node.attrs.dims, strict=True):
        d = operand.type.dim(name)
        # Another part may have this dim besides the joined one: it is summed away before the name is free.
        taken = name != new and name in node.type.names
        place = Dim(f"{new}[{start}:{start + d.size}]", d.size) if taken else d
        wanted = operand.type.with_dims(tuple(place if e == d else e for e in operand.dims))
        part = sum_to(slice_dim(g, new, start, place), wanted)
        parts.append(rename(part, {place.name: name}) if taken else part)
        start += d.size
    return parts


define(Op(
    name="cat", operands=(1, MOST), attrs=Cat, rule=_cat_rule, value=_cat_value, pull=_cat_pull,
    text=lambda n, args: (f"cat({', '.join(args)}; {n.attrs.new})", ATOM), arranges=True, rowwise=True, linear=True,
))  # fmt: skip

# ---------------------------------------------------------------------------------------- reduce

REDUCERS = ("max", "min", "argmax", "argmin")


class Reduce(Attrs):
    reducer: Annotated[str, one_of(REDUCERS)]
    dim: Annotated[str, NAME]


def reduce(x: Node, reducer: str, dim: str) -> Node:
    """``max``, ``min``, ``argmax`` or ``argmin`` over one dim; arg gives the first winner's place."""
    if dim not in x.type.names:
        raise IRError(f"no dim `{dim}` in {x.type}")
    gone = x.type.dim(dim)
    dims = tuple(d for d in x.dims if d.name != dim)
    type = Type(x.domain, dims, Kind.INT, gone.size) if reducer.startswith("arg") else Type(x.domain, dims)
    return make("reduce", (to_float(x),), type, Reduce(reducer, dim))


def loses(value: Node, best: Node, reducer: str) -> Node:
    """Whether a value is not the best of its own. NaN is, and nothing loses to it."""
    return value < best if reducer == "max" else value > best


def wins(value: Tensor, best: Tensor) -> Tensor:
    """Which values are the best of theirs; NaN is."""
    return (value == best) | (value.isnan() & best.isnan())


def _reduce_rule(node: Node) -> Node:
    dim = dim_of(node.inputs[0], node.attrs.dim)
    need(dim.size > 0, f"there is no {node.attrs.reducer} of no numbers")
    return reduce(node.inputs[0], node.attrs.reducer, dim.name)


def _reduce_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    operand = node.inputs[0].type
    place = operand.names.index(node.attrs.dim) + row_axes(operand)
    value = full(args[0], operand, run)
    reducer = node.attrs.reducer
    if not value.shape[place]:
        none = torch.tensor(-1 if reducer.startswith("arg") else -torch.inf if reducer == "max" else torch.inf)
        shape = (*value.shape[:place], *value.shape[place + 1 :])
        return none.to(torch.long if reducer.startswith("arg") else value.dtype).to(value.device).expand(shape)
    best = value.amax(place, keepdim=True) if reducer.endswith("max") else value.amin(place, keepdim=True)
    if not reducer.startswith("arg"):
        return best.squeeze(place)
    return wins(value, best).to(torch.uint8).argmax(place)  # argmax of 0s and 1s: the first winner


def _reduce_pull(node: Node, g: Node, ties: str) -> Gradients:
    operand, name, reducer = node.inputs[0], node.attrs.dim, node.attrs.reducer
    if reducer.startswith("arg"):
        return [None]
    arg = reduce(operand, "arg" + reducer, name)
    if ties == "first":
        return [_one_hot(g, arg, operand, name)]
    others, zero = elementwise("ne", arg, iota(operand.type.dim(name))), const(0.0)
    losers = elementwise("and", others, loses(operand, node, reducer))
    count = sum_dims(choose(losers, zero, const(1.0)), [name])
    share = g / elementwise("maximum", count, 1.0)  # 0 over a dim of size 0
    return [sum_to(choose(losers, zero, share), operand.type)]


define(Op(
    name="reduce", operands=(1, 1), attrs=Reduce, rule=_reduce_rule, value=_reduce_value, pull=_reduce_pull,
    text=lambda n, args: (f"{n.attrs.reducer}[{n.attrs.dim}]({args[0]})", ATOM), work=added,
    rowwise=True, reduces=True, computes=True,
))  # fmt: skip

"""Constructors of IR nodes. Each checks its typing rule and raises :class:`IRError` with a remedy.

Values are aligned by the names of their dims; rows are aligned by domain, and a global value goes with any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gdsl.errors import GdslError
from gdsl.ir.node import Node, make, walk
from gdsl.ir.ops import ELEMENTWISE
from gdsl.ir.types import Dim, Domain, Kind, Type, element_domain, row_domains


class IRError(GdslError, TypeError):
    """A node cannot be made: domains, dims or kinds do not fit. ``hint`` says what would."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message if hint is None else f"{message} ({hint})")
        self.message, self.hint = message, hint


# ---------------------------------------------------------------------------------------- leaves


def const(value: float | int | bool, dims: Sequence[Dim] = ()) -> Node:
    """A number, the same everywhere; ``dims`` repeats it along feature dims."""
    if isinstance(value, bool):
        kind: Kind = Kind.BOOL
    elif isinstance(value, int):
        kind = Kind.INT
    else:
        kind, value = Kind.FLOAT, float(value)
    return make("const", (), Type(Domain.GLOBAL, tuple(dims), kind), {"value": value})


def load(name: str, type: Type, role: str) -> Node:
    """A value that comes from outside.

    ``role`` is "input", "param", "grad" (of an output), "saved" or "product" (kept by the
    forward pass, a statistic or a product of matrices) or "seed".
    """
    _check_dims(type.dims)
    return make("load", (), type, {"name": name, "role": role})


def graph_value(what: str, domain: Domain) -> Node:
    """A value that the graph itself holds: see ``GRAPH_VALUES``."""
    kind = GRAPH_VALUES[what]
    return make("graph_value", (), Type(domain, (), kind), {"what": what})


def element_id(end: str) -> Node:
    """The number of an edge, or of a node for the end ``g``."""
    return graph_value("node_id", Domain.NODE) if end == "g" else graph_value("edge_id", Domain.EDGE)


# in_degree, out_degree: of a node, as a float. edge_id: the number of an edge in the user's edge_index.
# position: the rank of an edge among the edges into its target, in edge order.
GRAPH_VALUES = {"in_degree": Kind.FLOAT, "out_degree": Kind.FLOAT, "edge_id": Kind.INT, "position": Kind.INT,
                "node_id": Kind.INT}  # fmt: skip


def iota(dim: Dim) -> Node:
    """0, 1, 2, ... along a dim."""
    return make("iota", (), Type(Domain.GLOBAL, (dim,), Kind.INT, dim.size))


def random(seed: Node, salt: int, domain: Domain, dims: Sequence[Dim]) -> Node:
    """Uniform numbers in [0, 1), a function of seed, salt, row and place only (Philox4x32-10)."""
    return make("random", (seed,), Type(domain, tuple(dims)), {"salt": salt})


# ----------------------------------------------------------------------------------- elementwise


def as_node(value: Node | float) -> Node:
    return value if isinstance(value, Node) else const(value)


def to_float(x: Node) -> Node:
    if x.kind is Kind.FLOAT:
        return x
    if x.op == "const":
        return const(float(x.attr("value")), x.dims)
    return make("to_float", (x,), Type(x.domain, x.dims))


def to_int(x: Node, bound: int) -> Node:
    """The number as an index in [0, bound): rounded down and clamped."""
    return make("to_int", (x,), Type(x.domain, x.dims, Kind.INT, bound), {"bound": bound})


def elementwise(op: str, *args: Node | float) -> Node:
    """Apply a function of the op table element by element, broadcasting by name."""
    if op == "one":
        return const(1.0)
    entry = ELEMENTWISE[op]
    nodes = [as_node(a) for a in args]
    if len(nodes) != entry.arity:
        raise IRError(f"{op} takes {entry.arity} arguments, not {len(nodes)}")
    nodes = _unify_kinds(op, nodes)
    domain, dims = broadcast(nodes)
    kind = {"float": Kind.FLOAT, "bool": Kind.BOOL, "same": nodes[-1].kind, "int": Kind.INT}[entry.kind]
    return make(op, nodes, Type(domain, dims, kind))


def _unify_kinds(op: str, nodes: list[Node]) -> list[Node]:
    if op in ("and", "or", "not"):
        for n in nodes:
            if n.kind is not Kind.BOOL:
                raise IRError(f"`{op}` needs true-or-false values, not {n.type}", "compare it with a number first")
        return nodes
    data = nodes[1:] if op == "where" else nodes
    if op == "where" and nodes[0].kind is not Kind.BOOL:
        raise IRError(f"where needs a condition, not {nodes[0].type}", "compare it with a number: where(x > 0, a, b)")
    kinds = {n.kind for n in data}
    exact = ELEMENTWISE[op].kind in ("same", "bool") and (kinds == {Kind.INT} or (op == "where" and len(kinds) == 1))
    return nodes if exact else nodes[: len(nodes) - len(data)] + [to_float(n) for n in data]


def broadcast(nodes: Iterable[Node]) -> tuple[Domain, tuple[Dim, ...]]:
    """The domain and dims of values taken together.

    The dims are in the order of the first operand that has them all, else in order of appearance.
    """
    nodes = list(nodes)
    return join_domains(nodes), join_dims([n.dims for n in nodes])


def join_dims(lists: Sequence[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    union: dict[str, Dim] = {}
    for dims in lists:
        for d in dims:
            if union.setdefault(d.name, d).size != d.size:
                raise IRError(f"dim `{d.name}` has size {d.size} here and {union[d.name].size} there")
    for dims in lists:
        if len(dims) == len(union):
            return dims
    return tuple(union.values())


def join_domains(nodes: Iterable[Node]) -> Domain:
    domain, first = Domain.GLOBAL, None
    for n in nodes:
        if n.domain in (Domain.GLOBAL, domain):
            continue
        if domain is not Domain.GLOBAL:
            assert first is not None
            raise IRError(f"{first.type} and {n.type} do not mix", _mixing_hint({domain, n.domain}))
        domain, first = n.domain, n
    return domain


def _mixing_hint(domains: set[Domain]) -> str:
    if Domain.EDGE in domains:
        return "read the node value at one end of the edge: [j] for the source, [i] for the target"
    if Domain.GRAPH in domains:
        return "read the graph value at each node with [g]"
    return "a source value meets a target value only on an edge: read them with [j] and [i]"


# ------------------------------------------------------------------------------------- products


def contract(
    inputs: Sequence[Node],
    reduce: Iterable[str] = (),
    *,
    total: bool = False,
    order: Sequence[str] | None = None,
) -> Node:
    """The product of the inputs, summed over the dims named in ``reduce``: an einsum with names.

    With ``total``, also summed over all rows of the domain: the result is global. ``order`` gives the order of
    the remaining dims; by default the order of :func:`broadcast`.
    """
    nodes = [to_float(n) for n in inputs]
    domain, dims = broadcast(nodes)
    reduced = set(reduce)
    missing = reduced - {d.name for d in dims}
    if missing:
        raise IRError(f"no dim `{min(missing)}` to sum over in {Type(domain, dims)}")
    kept = tuple(d for d in dims if d.name not in reduced)
    if order is not None:
        by_name = {d.name: d for d in kept}
        kept = tuple(by_name[name] for name in order)
    if total and domain is Domain.GLOBAL:
        raise IRError("a global value has no rows to sum over")
    attrs = {"reduce": tuple(d.name for d in dims if d.name in reduced), "total": total}
    return make("contract", nodes, Type(Domain.GLOBAL if total else domain, kept), attrs)


def matmul(a: Node, b: Node) -> Node:
    """``a @ b``: contracts the last dim of a, which b must have; other shared names are batch dims."""
    if not a.dims:
        raise IRError(f"`@` needs a dim to sum over, and the left side is {a.type}", "use * for a product of numbers")
    last = a.dims[-1]
    if last.name not in b.type.names:
        raise IRError(
            f"`@` sums over `{last.name}`, the last dim of the left side, and the right side {b.type} has no such dim",
            f"rename a dim of the right side, or sum over another: the left side is {a.type}",
        )
    batch = [d.name for d in a.dims[:-1]]
    order = batch + [d.name for d in b.dims if d.name != last.name and d.name not in batch]
    return contract([a, b], [last.name], order=order)


def sum_dims(x: Node, dims: Iterable[str]) -> Node:
    return contract([x], dims)


def total(x: Node) -> Node:
    """The sum over all rows: global."""
    return contract([x], total=True)


def reduce(x: Node, reducer: str, dim: str) -> Node:
    """``max``, ``min``, ``argmax`` or ``argmin`` over one dim; arg gives the first winner's place."""
    if dim not in x.type.names:
        raise IRError(f"no dim `{dim}` in {x.type}")
    gone = x.type.dim(dim)
    dims = tuple(d for d in x.dims if d.name != dim)
    type = Type(x.domain, dims, Kind.INT, gone.size) if reducer.startswith("arg") else Type(x.domain, dims)
    return make("reduce", (to_float(x),), type, {"reducer": reducer, "dim": dim})


# ---------------------------------------------------------------------------------- along edges


def gather(x: Node, end: str) -> Node:
    """Read a node value at an end of each edge (or a graph value at each node, end ``g``)."""
    if x.domain is Domain.GLOBAL:
        return x
    if x.domain not in row_domains(end):
        if x.domain is Domain.EDGE:
            raise IRError(f"{x.type} is already on edges", f"leave out [{end}]")
        raise IRError(f"{x.type} cannot be read at [{end}]", _gather_hint(x.domain))
    return make("gather", (x,), Type(element_domain(end), x.dims, x.kind, x.type.bound), {"end": end})


def _gather_hint(domain: Domain) -> str:
    return {
        Domain.SOURCE: "a source value lives at [j]",
        Domain.TARGET: "a target value lives at [i]",
        Domain.GRAPH: "a graph value is read at nodes with [g]",
    }.get(domain, "only node values have ends")


def segment(
    e: Node, end: str, reducer: str, row_domain: Domain, by: Node | None = None, dim: Dim | None = None
) -> Node:
    """Reduce edge values over the edges of each node at ``end`` (or node values over each graph, end ``g``).

    reducer: "sum", "max", "min", "mul"; "argmax", "argmin": the edge_id of the first winner, -1 for none; "countmax",
             "countmin": how many winners there are, more than one where they tie.
    With ``by``, a bounded integer on the same rows, ``dim`` is a new leading dim: one result for each integer. In a
    sum, ``by`` may have dims of the value: each of its integers names the place of its own numbers, and these dims go.
    An empty segment gives 0 (1 for ``mul``).
    """
    if e.domain is not element_domain(end):
        if e.domain is Domain.GLOBAL:
            e = spread(e, element_domain(end))
        else:
            raise IRError(
                f"only {element_domain(end).value} values can be aggregated, not {e.type}",
                _segment_hint(e, end),
            )
    dims, inputs = e.dims, [to_float(e)]
    if by is not None:
        assert dim is not None
        if by.kind is not Kind.INT or (by.dims and reducer != "sum") or not set(by.dims) <= set(e.dims):
            raise IRError(f"`by` needs one integer an edge, not {by.type}")
        if dim.name in e.type.names:
            raise IRError(f"dim `{dim.name}` is already in {e.type}")
        dims, inputs = (dim, *(d for d in dims if d not in by.dims)), [inputs[0], by]
    kind = Kind.INT if finds_winners(reducer) else Kind.FLOAT
    return make("segment", inputs, Type(row_domain, dims, kind), {"end": end, "reducer": reducer})


def finds_winners(reducer: str) -> bool:
    """Whether a reducer of a segment is about the winners of a maximum or minimum: its last three letters say which."""
    return reducer[:-3] in ("arg", "count")


def _segment_hint(e: Node, end: str) -> str:
    if end == "g":
        return "aggregate edge values to nodes first"
    return "read it along the edges first: [j] for the source, [i] for the target"


def grouped_product(
    left: Node, right: Node, idx: Node, dim: Dim, ends: tuple[str | None, str | None], weight: Node | None = None
) -> Node:
    """For each integer the sum of the outer products of the rows that have it, [dim, *left, *right]: ``scatter`` of a
    product, as one op for libraries that multiply matrices.

    ends:   at which end of an edge a node value is read; None for a value with the rows of ``idx``
    weight: a number for each integer, with which the product is multiplied
    """
    inputs = (left, right, idx) if weight is None else (left, right, idx, weight)
    return make("grouped_product", inputs, Type(Domain.GLOBAL, (dim, *left.dims, *right.dims)), {"ends": ends})


def sparse_product(x: Node, end: str, row_domain: Domain, weight: Node | None = None) -> Node:
    """The sum over the edges of each node at ``end`` of x at the other end, times one number an edge: ``segment`` of a
    product of ``gather``, as one op for libraries that multiply by a sparse matrix."""
    inputs = (x,) if weight is None else (x, weight)
    return make("sparse_product", inputs, Type(row_domain, x.dims), {"end": end})


def spread(x: Node, domain: Domain) -> Node:
    """A global value as a value of a domain: the same for each row."""
    if x.domain is domain:
        return x
    if x.domain is not Domain.GLOBAL:
        raise IRError(f"{x.type} is not global")
    return make("spread", (x,), Type(domain, x.dims, x.kind, x.type.bound))


def order_rank(e: Node, end: str, q: float, side: str, row_domain: Domain) -> Node:
    """The edge_id of the value at quantile ``q`` of each segment (``side`` "lower" or "upper"), -1 for none."""
    return make("order_rank", (to_float(e),), Type(row_domain, e.dims, Kind.INT), {"end": end, "q": q, "side": side})


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
    domain = row_domain or element_domain(end)
    attrs = {
        "end": end,
        "step": step,
        "init": float(init),
        "reverse": reverse,
        "last": row_domain is not None,
    }
    return make("scan", nodes, Type(domain, dims), attrs)


def scan_step(node: Node, name: str) -> tuple[Node, Node]:
    """(acc, step): one step of a scan as an edge value, made of the scan's inputs and of ``acc``, a load of this name
    that stands for what the fold has come to before the edge."""
    acc = load(name, Type(element_domain(node.attr("end")), node.dims), "input")
    step = node.attr("step")
    leaves = {n: n.attr("name") for n in walk([step]) if n.op == "load"}
    return acc, replay(step, {n: acc if k == "acc" else node.inputs[int(k)] for n, k in leaves.items()})


def replay(expression: Node, leaves: Mapping[Node, Node]) -> Node:
    """An elementwise expression with other leaves, rebuilt so that types follow."""
    values = dict(leaves)
    for node in walk([expression]):
        if node not in values:
            values[node] = elementwise(node.op, *(values[i] for i in node.inputs)) if node.inputs else node
    return values[expression]


# ------------------------------------------------------------------------------------- indexing


def index(x: Node, idx: Node, dim: str) -> Node:
    """``x[idx]``: pick one place of a dim by an integer that differs from row to row.

    The result has the dims of ``idx`` and then the other dims of ``x``.
    """
    d = x.type.dim(dim)
    if idx.kind is not Kind.INT or idx.type.bound is None:
        raise IRError(
            f"an index needs an integer with a bound, not {idx.type}",
            "declare it: `edge rel: int(num_relations)`",
        )
    if idx.type.bound > d.size:
        raise IRError(f"an integer below {idx.type.bound} cannot index dim `{dim}` of size {d.size}")
    rest = tuple(e for e in x.dims if e.name != dim)
    clash = set(idx.type.names) & {e.name for e in rest}
    if clash:
        raise IRError(f"dim `{min(clash)}` is in both the index and the value")
    domain = join_domains([x, idx])
    return make("index", (x, idx), Type(domain, idx.dims + rest, x.kind, x.type.bound), {"dim": dim})


def scatter(g: Node, idx: Node, dim: Dim, order: Sequence[str]) -> Node:
    """The adjoint of :func:`index` of a global value: sums the rows of ``g`` into the places that ``idx`` names."""
    rest = {d.name: d for d in g.dims if d.name not in idx.type.names}
    dims = tuple(dim if name == dim.name else rest[name] for name in order)
    return make("scatter", (g, idx), Type(Domain.GLOBAL, dims), {"dim": dim.name})


def select(x: Node, dim: str, k: int) -> Node:
    """One place of a dim, by a number known at construction; the dim goes."""
    d = x.type.dim(dim)
    if not 0 <= k < d.size:
        raise IRError(f"index {k} is outside dim `{dim}` of size {d.size} (0 to {d.size - 1})")
    one = Dim(f"{dim}[{k}]", 1)
    part = slice_dim(x, dim, k, one)
    return reshape(part, [(one.name,)], [])


def slice_dim(x: Node, dim: str, start: int, new: Dim) -> Node:
    """Places ``start ... start + new.size`` of a dim, under a new name."""
    d = x.type.dim(dim)
    if start < 0 or start + new.size > d.size:
        raise IRError(f"places {start} to {start + new.size - 1} are outside dim `{dim}` of size {d.size}")
    dims = tuple(new if e.name == dim else e for e in x.dims)
    _check_dims(dims)
    return make("slice", (x,), Type(x.domain, dims, x.kind, x.type.bound), {"dim": dim, "start": start})


def cat(parts: Sequence[Node], dims: Sequence[str], new: Dim) -> Node:
    """Join values along a dim: ``dims[k]`` is the dim of ``parts[k]`` that goes, ``new`` the one that comes."""
    nodes = [to_float(p) for p in parts]
    others = [tuple(d for d in n.dims if d.name != dim) for n, dim in zip(nodes, dims, strict=True)]
    rest = join_dims(others)
    domain = join_domains(nodes)
    size = sum(n.type.dim(dim).size for n, dim in zip(nodes, dims, strict=True))
    if size != new.size:
        raise IRError(f"the parts have {size} places together, and dim `{new.name}` has {new.size}")
    full = next((n for n, dim in zip(nodes, dims, strict=True) if len(n.dims) == len(rest) + 1), None)
    if full is not None:
        place = [d.name for d in full.dims].index(dims[nodes.index(full)])
    else:
        place = len(rest)
    out = (*rest[:place], new, *rest[place:])
    _check_dims(out)
    return make("cat", nodes, Type(domain, out), {"dims": tuple(dims), "new": new.name})


def rename(x: Node, names: Mapping[str, str]) -> Node:
    """Give dims other names; sizes stay."""
    for old in names:
        if old not in x.type.names:
            raise IRError(f"no dim `{old}` in {x.type}")
    dims = tuple(Dim(names.get(d.name, d.name), d.size) for d in x.dims)
    return _reshape_to(x, dims)


def reshape(x: Node, groups: Sequence[Sequence[str]], new: Sequence[Dim]) -> Node:
    """Merge each group of dims into the new dim of the same rank; a group of size-1 dims without one just goes.

    Merged dims must stand together and in this order; :func:`transpose` brings them there.
    """
    out: list[Dim] = []
    position = {g[0]: k for k, g in enumerate(groups)}
    inside = {name for g in groups for name in g}
    for d in x.dims:
        if d.name in position:
            k = position[d.name]
            if k < len(new):
                out.append(new[k])
        elif d.name not in inside:
            out.append(d)
    return _reshape_to(x, tuple(out))


def merge(x: Node, names: Sequence[str], new: str) -> Node:
    """Flatten dims into one named ``new``, in the order given."""
    for name in names:
        if name not in x.type.names:
            raise IRError(f"no dim `{name}` in {x.type}")
    if len(set(names)) != len(names):
        raise IRError("merge names a dim twice")
    size = 1
    for name in names:
        size *= x.type.dim(name).size
    first = min(x.type.names.index(n) for n in names)
    kept = [d.name for d in x.dims if d.name not in names]
    before = len([n for n in x.type.names[:first] if n not in names])
    x = transpose(x, [*kept[:before], *names, *kept[before:]])
    return reshape(x, [tuple(names)], [Dim(new, size)])


def reshape_like(x: Node, type: Type) -> Node:
    """The same numbers, row by row, under the dims of another type."""
    return _reshape_to(x, type.dims)


def split(x: Node, name: str, parts: Sequence[Dim]) -> Node:
    """The inverse of :func:`merge`."""
    dims: list[Dim] = []
    for d in x.dims:
        dims.extend(parts if d.name == name else (d,))
    return _reshape_to(x, tuple(dims))


def transpose(x: Node, order: Sequence[str]) -> Node:
    """The same value with its dims in another order."""
    if tuple(order) == x.type.names:
        return x
    dims = tuple(x.type.dim(name) for name in order)
    return make("transpose", (x,), Type(x.domain, dims, x.kind, x.type.bound))


def _reshape_to(x: Node, dims: tuple[Dim, ...]) -> Node:
    _check_dims(dims)
    type = Type(x.domain, dims, x.kind, x.type.bound)
    if type.numel != x.type.numel:
        raise IRError(f"{x.type} has {x.type.numel} numbers a row and {type} has {type.numel}")
    return x if type == x.type else make("reshape", (x,), type)


def stop_gradient(x: Node) -> Node:
    """The value, as a constant for the derivative."""
    return make("stop_gradient", (x,), x.type)


def call(module: str, inputs: Sequence[Node], type: Type, **attrs: Any) -> Node:
    """A torch module that runs as it is, between kernels, on whole tensors. ``module`` is its name in the layer."""
    return make("call", inputs, type, {"module": module, **attrs})


def basis(op: str, x: Node, type: Type, **attrs: Any) -> Node:
    """A B-spline basis: ``bspline`` (values) or ``bspline_index`` (places), see ``gdsl.ir.library``."""
    return make(op, (to_float(x),), type, attrs)


def _check_dims(dims: Sequence[Dim]) -> None:
    seen: set[str] = set()
    for d in dims:
        if d.name in seen:
            raise IRError(f"dim `{d.name}` occurs twice", f"call the second one `{d.name}'`")
        if d.size < 0:
            raise IRError(f"dim `{d.name}` has size {d.size}")
        seen.add(d.name)

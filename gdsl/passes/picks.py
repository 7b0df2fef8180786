"""Values of a kind, one chosen by a chain of `where`, as one value of a picked table: no kind is computed in vain.

    where(rel == 1, x @ W1, where(rel == 0, x @ W0, 0)) --> x @ cat(W0, W1)[rel]

The values must be made in the same way from different tables. Where an edge chooses what is read at a node, the node
makes all kinds in one product, and the edge reads one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gdsl.ir import build
from gdsl.ir.node import Node, walk_below
from gdsl.ir.ops import of
from gdsl.ir.types import Dim, Domain, Kind
from gdsl.passes.simplify import constant_value

KINDS = "kinds"
FEWEST, MOST = 3, 64

# A node of each kind, and whether one of them is wanted where the kind is known ("pick"), or all ("stack").
Alike = tuple[str, tuple[Node, ...]]


def pick_before(node: Node) -> Iterator[Node]:
    """where(k == 1, x @ W1, where(k == 0, x @ W0, 0)) --> x @ cat(W0, W1)[k]"""
    chooser, values, otherwise = _chain(node)
    if chooser is None or chooser.dims or not FEWEST <= len(values) + 1 <= MOST:
        return
    count = len(values)
    if chooser.kind is Kind.INT and chooser.type.bound is not None:
        # The last value is for the one kind that no condition names.
        missing = set(range(chooser.type.bound)) - values.keys()
        if len(missing) > 1 or not set(values) <= set(range(chooser.type.bound)):
            return
        values |= dict.fromkeys(missing, otherwise)
        count, idx = chooser.type.bound, chooser
    elif values.keys() == set(range(count)) and chooser.kind is Kind.FLOAT:
        idx = build.to_int(chooser, count)
    else:
        return
    alike = tuple(values[k] for k in range(count))
    if any(v.type.shape != node.type.shape for v in alike):
        return
    found = _picked(alike, idx)
    if found is None:
        return
    if idx is not chooser and not _is_count_below(chooser, count):
        found = build.elementwise("where", build.elementwise("eq", chooser, build.to_float(idx)), found, otherwise)
    if found.domain is node.domain and set(found.type.names) == set(node.type.names):
        yield build.transpose(found, node.type.names)


def _is_count_below(node: Node, bound: int) -> bool:
    """Whether a value is a degree, at most some number below the bound, so that each is one of the kinds."""
    if node.op != "minimum":
        return False
    degree = any(i.op == "graph_value" and i.attrs.what in ("in_degree", "out_degree") for i in node.inputs)
    most = [v for v in map(constant_value, node.inputs) if v is not None]
    return degree and len(most) == 1 and 0 <= most[0] < bound and float(most[0]).is_integer()


def _chain(node: Node) -> tuple[Node | None, dict[int, Node], Node]:
    """where(v == a, x, where(v == b, y, z)) as (v, {a: x, b: y}, z)"""
    chooser: Node | None = None
    values: dict[int, Node] = {}
    while node.op == "where" and node.inputs[0].op == "eq":
        condition, value, otherwise = node.inputs
        asked, number = condition.inputs
        kind = constant_value(number)
        if kind is None or not float(kind).is_integer() or asked is not (chooser or asked) or not value.dims:
            break
        chooser = asked
        values.setdefault(int(kind), value)
        node = otherwise
    return chooser, values, node


def _picked(alike: tuple[Node, ...], idx: Node) -> Node | None:
    """The value of the kind that ``idx`` names; None where the values are not made in the same way."""
    kinds = Dim(KINDS, len(alike))
    below: dict[Alike, tuple[Alike, ...] | None] = {}
    made: dict[Alike, Node] = {}

    def parts(item: Alike) -> tuple[Alike, ...]:
        below[item] = _below(item)
        return below[item] or ()

    for item in walk_below([("pick", alike)], parts):
        how, nodes = item
        inputs = below[item]
        if inputs is None or KINDS in nodes[0].type.names:
            return None
        if len(set(nodes)) == 1:
            made[item] = nodes[0]
        elif nodes[0].domain is Domain.GLOBAL:
            table = _stacked(nodes, kinds)
            made[item] = table if how == "stack" else build.index(table, idx, KINDS)
        elif nodes[0].op == "gather" and how == "pick":
            made[item] = build.index(build.gather(made[inputs[0]], nodes[0].attrs.end), idx, KINDS)
        else:
            made[item] = _rebuilt(nodes[0], [made[i] for i in inputs], kinds)
    return made["pick", alike]


def _below(item: Alike) -> tuple[Alike, ...] | None:
    """What values are made of, kind by kind: nothing below equal ones and tables; None where they differ otherwise."""
    how, nodes = item
    first = nodes[0]
    if all(n is first for n in nodes):
        return ()
    if any(n.type.shape != first.type.shape or n.domain is not first.domain or n.kind is not first.kind for n in nodes):
        return None
    if first.domain is Domain.GLOBAL:
        return () if first.kind is Kind.FLOAT else None
    if not of(first).maps:
        return None
    if any(_signature(n) != _signature(first) for n in nodes):
        return None
    how = "stack" if first.op == "gather" else how
    return tuple((how, inputs) for inputs in zip(*(n.inputs for n in nodes), strict=True))


def _signature(node: Node) -> tuple[Any, ...]:
    """Op and attributes, in which dims are called by their places among those of the operands and the result."""
    places: dict[str, int] = {}
    for n in (*node.inputs, node):
        for name in n.type.names:
            places.setdefault(name, len(places))
    dims = tuple(tuple(places[name] for name in n.type.names) for n in (*node.inputs, node))

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(plain(v) for v in value)
        return places.get(value, value) if isinstance(value, str) else value

    return node.op, dims, plain(tuple(v for _, v in node.attrs.items()))


def _stacked(nodes: Sequence[Node], kinds: Dim) -> Node:
    """Tables as one with a dim more, its first; the dims are called as those of the first table."""
    parts = [Dim(f"{KINDS}[{k}]", 1) for k in range(len(nodes))]
    dims = nodes[0].dims
    rows = [build.reshape_like(n, n.type.with_dims((part, *dims))) for n, part in zip(nodes, parts, strict=True)]
    return build.cat(rows, [p.name for p in parts], kinds)


def _rebuilt(node: Node, inputs: list[Node], kinds: Dim) -> Node:
    """The node of other operands, which may have all kinds; these then are the first dim."""
    several = any(KINDS in i.type.names for i in inputs)
    type = node.type.with_dims((kinds, *node.dims)) if several else node.type
    return build.transpose(of(node).rule(Node(node.op, tuple(inputs), type, node.attrs)), type.names)

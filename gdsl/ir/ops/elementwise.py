"""Functions applied element by element: how they are typed, and how operands are aligned.

Values are aligned by the names of their dims; rows are aligned by domain, and a global value goes with any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gdsl.ir.attributes import IRError
from gdsl.ir.node import ARITHMETIC, Node, make, walk
from gdsl.ir.ops.leaves import const
from gdsl.ir.ops.op import Op
from gdsl.ir.types import Dim, Domain, Kind, Type

Derivative = Callable[..., Node]


@dataclass(frozen=True, kw_only=True)
class ElementwiseOp(Op):
    """A function applied element by element.

    The four forms are templates that name the operands ``{0}``, ``{1}``, ``{2}``. A derivative is written with the IR's
    own operators: a function ``(*operands, y)`` of operands and result that gives the partial derivative as a node.

    derivative: one partial derivative an operand; None is zero
    torch:      over tensors, evaluated with ``torch`` in scope
    cpp:        over scalars of the compute type; ``gdsl::`` functions are in ``codegen/prelude.h``
    triton:     over blocks, with ``tl`` and ``libdevice`` in scope
    sympy:      over sympy expressions
    kind:       of the result: "float", "bool", "int", or "same" as the operands
    sample:     an interval on which the function is smooth, for tests
    """

    torch: str
    cpp: str
    triton: str
    sympy: str
    derivative: tuple[Derivative | None, ...]
    kind: str = "float"
    sample: tuple[float, float] = (-2.0, 2.0)

    @property
    def arity(self) -> int:
        return self.operands[1]


# All of them, by name: a part of the table of all ops.
ELEMENTWISE: dict[str, ElementwiseOp] = {}


def as_node(value: Node | float) -> Node:
    return value if isinstance(value, Node) else const(value)


def to_float(x: Node) -> Node:
    if x.kind is Kind.FLOAT:
        return x
    if x.op == "const":
        return const(float(x.attrs.value), x.dims)
    return make("to_float", (x,), Type(x.domain, x.dims))


def elementwise(op: str, *args: Node | float) -> Node:
    """Apply a function of the table element by element, broadcasting by name."""
    entry = ELEMENTWISE[op]
    nodes = [as_node(a) for a in args]
    if len(nodes) != entry.arity:
        raise IRError(f"{op} takes {entry.arity} arguments, not {len(nodes)}")
    nodes = _unify_kinds(entry, nodes)
    domain, dims = broadcast(nodes)
    kind = {"float": Kind.FLOAT, "bool": Kind.BOOL, "same": nodes[-1].kind, "int": Kind.INT}[entry.kind]
    return make(op, nodes, Type(domain, dims, kind))


ARITHMETIC.append(elementwise)


def _unify_kinds(entry: ElementwiseOp, nodes: list[Node]) -> list[Node]:
    op = entry.name
    if op in ("and", "or", "not"):
        for n in nodes:
            if n.kind is not Kind.BOOL:
                raise IRError(f"`{op}` needs true-or-false values, not {n.type}", "compare it with a number first")
        return nodes
    data = nodes[1:] if op == "where" else nodes
    if op == "where" and nodes[0].kind is not Kind.BOOL:
        raise IRError(f"where needs a condition, not {nodes[0].type}", "compare it with a number: where(x > 0, a, b)")
    kinds = {n.kind for n in data}
    exact = entry.kind in ("same", "bool") and (kinds == {Kind.INT} or (op == "where" and len(kinds) == 1))
    return nodes if exact else nodes[: len(nodes) - len(data)] + [to_float(n) for n in data]


def choose(condition: Node, yes: Node | float, no: Node | float) -> Node:
    """``where``"""
    return elementwise("where", condition, yes, no)


def replay(expression: Node, leaves: Mapping[Node, Node]) -> Node:
    """An elementwise expression with other leaves, rebuilt so that types follow."""
    values = dict(leaves)
    for node in walk([expression]):
        if node not in values:
            values[node] = elementwise(node.op, *(values[i] for i in node.inputs)) if node.inputs else node
    return values[expression]


# ------------------------------------------------------------------------------------- broadcasting


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
    if Domain.PAIR in domains:
        return "read the edge value at an edge of the pair: [kj] for the first, [ji] for the second"
    if Domain.EDGE in domains:
        return "read the node value at one end of the edge: [j] for the source, [i] for the target"
    if Domain.GRAPH in domains:
        return "read the graph value at each node with [g]"
    return "a source value meets a target value only on an edge: read them with [j] and [i]"

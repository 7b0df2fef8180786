"""The one IR node: immutable, hash-consed, so that structural equality is identity."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

from gdsl.ir.attributes import NONE, Attrs
from gdsl.ir.types import Dim, Domain, Kind, Type
from gdsl.locks import Lock

Item = TypeVar("Item", bound=Hashable)


# What Python's operators on nodes make. The rule of the ops' types gives it, which needs nodes itself.
ARITHMETIC: list[Callable[..., Node]] = []

Infix = Callable[["Node", "Node | float"], "Node"]


def _infix(op: str) -> tuple[Infix, Infix]:
    """One of Python's operators, with a node on its left and on its right."""
    return lambda a, b: ARITHMETIC[0](op, a, b), lambda b, a: ARITHMETIC[0](op, a, b)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Node:
    """An operation applied to other nodes. Make one with the functions of :mod:`gdsl.ir.build`.

    op:     the name of its definition in ``gdsl.ir.ops.OPS``
    inputs: the operands
    type:   domain, dims and kind of the result
    attrs:  what else the op needs, a record of the op's own class
    """

    op: str
    inputs: tuple[Node, ...]
    type: Type
    attrs: Attrs

    @property
    def domain(self) -> Domain:
        return self.type.domain

    @property
    def dims(self) -> tuple[Dim, ...]:
        return self.type.dims

    @property
    def kind(self) -> Kind:
        return self.type.kind

    def __repr__(self) -> str:
        attrs = "".join(f" {k}={v!r}" for k, v in sorted(self.attrs.items()))
        return f"<{self.op}{attrs} {self.type}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return make, (self.op, self.inputs, self.type, self.attrs)

    def __neg__(self) -> Node:
        return ARITHMETIC[0]("neg", self)

    __add__, __radd__ = _infix("add")
    __sub__, __rsub__ = _infix("sub")
    __mul__, __rmul__ = _infix("mul")
    __truediv__, __rtruediv__ = _infix("div")
    __lt__, __gt__ = _infix("lt")[0], _infix("gt")[0]
    __le__, __ge__ = _infix("le")[0], _infix("ge")[0]


_interned: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()
_lock = Lock()


def _identity(value: Any) -> Any:
    """A key under which 1, 1.0, True, 0.0 and -0.0 are all different, and NaN equals itself."""
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, tuple):
        return tuple(_identity(v) for v in value)
    return (type(value).__name__, value)


def make(op: str, inputs: Iterable[Node], type: Type, attrs: Attrs = NONE) -> Node:
    """The one node with this op, inputs, type and attributes. No rule is checked here."""
    inputs = tuple(inputs)
    key = (op, inputs, type, attrs.__class__, tuple([_identity(v) for _, v in attrs.items()]))
    with _lock:
        node = _interned.get(key)
        if node is None:
            node = Node(op, inputs, type, attrs)
            _interned[key] = node
    return node


# On a stack above what all operands of have been seen.
_READY = object()


def walk(outputs: Iterable[Node]) -> Iterator[Node]:
    """Every node that the outputs need, each once, inputs before users, in a stable order."""
    return walk_below(outputs, attrgetter("inputs"))


def walk_below(starts: Iterable[Item], below: Callable[[Item], Sequence[Item]]) -> Iterator[Item]:
    """Everything below the starts and they themselves, each once, after what ``below`` gives for it.

    Programs may be thousands of operations deep: no pass is a recursion over them, which Python would end.
    """
    seen: set[Item] = set()
    for start in starts:
        stack: list[Any] = [start]
        while stack:
            item = stack.pop()
            if item is _READY:
                yield stack.pop()
            elif item not in seen:
                seen.add(item)
                if inner := below(item):
                    stack += (item, _READY, *reversed(inner))
                else:
                    yield item


def users(outputs: Iterable[Node]) -> dict[Node, list[Node]]:
    """For every node that the outputs need, the nodes that read it (once per reading operand)."""
    found: dict[Node, list[Node]] = {}
    for node in walk(outputs):
        found.setdefault(node, [])
        for operand in node.inputs:
            found[operand].append(node)
    return found


def rebuild(node: Node, inputs: tuple[Node, ...]) -> Node:
    """The same operation on other operands of the same types."""
    if inputs == node.inputs:
        return node
    return make(node.op, inputs, node.type, node.attrs)


def substitute(
    outputs: Iterable[Node], replace: Callable[[Node], Node | None] | Mapping[Node, Node]
) -> dict[Node, Node]:
    """Map every node below the outputs to its version after ``replace``, bottom up.

    ``replace`` sees each node after its operands were replaced and gives a new node, or None to keep it.
    As a mapping, it names nodes to swap before anything below them is looked at.
    """
    result: dict[Node, Node] = {}
    if isinstance(replace, Mapping):
        for node in walk(outputs):
            swapped = replace.get(node)
            result[node] = rebuild(node, tuple([result[i] for i in node.inputs])) if swapped is None else swapped
        return result
    for node in walk(outputs):
        new = rebuild(node, tuple([result[i] for i in node.inputs]))
        result[node] = replace(new) or new
    return result

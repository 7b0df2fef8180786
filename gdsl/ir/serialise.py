"""Programs as data, for what outlives the process: a program inside an exported model, say.

Data only, and from anywhere: a file may have been edited. Reading runs nothing, and every node is held against the rule
of its op before another is made of it: see :mod:`gdsl.ir.verify`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gdsl.errors import ProgramError
from gdsl.ir import node as ir
from gdsl.ir.attributes import Attrs, shown
from gdsl.ir.node import Node
from gdsl.ir.ops import OPS, Op
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Kind, Type
from gdsl.ir.verify import verify_node

# Names of values and dims, as the compiler writes them: ``h``, ``lin.weight``, ``2*in_channels'``, ``K[1]``. They are
# shown in generated code, and text from a file must bring nothing else there.
_NAME = re.compile(r"[A-Za-z0-9_(][A-Za-z0-9_.,'*+/@ ()\[\]-]{0,999}")
# The name of a program begins the names of its kernels.
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_PLAIN = (str, bool, int, float, type(None))


def to_data(program: Program) -> dict[str, Any]:
    """Lists, numbers and strings that :func:`from_data` makes the same program of."""
    places: dict[Node, int] = {}
    rows: list[list[Any]] = []
    for node in _all_nodes(program.nodes):
        places[node] = len(rows)
        attrs = {k: {"node": places[v]} if isinstance(v, Node) else v for k, v in sorted(node.attrs.items())}
        rows.append([node.op, [places[i] for i in node.inputs], _type_data(node.type), attrs])
    return {
        "name": program.name,
        "nodes": rows,
        "outputs": [[name, places[node]] for name, node in program.outputs],
        "names": {str(places[node]): name for node, name in program.names.items() if node in places},
    }


def from_data(data: Any) -> Program:
    """The program that :func:`to_data` wrote.

    Raises :class:`gdsl.errors.ProgramError`, a ValueError, for what it cannot have written: it says at which node, in
    which field, and what may stand there.
    """
    fields(data, "a program", ("name", "nodes", "outputs", "names"))
    _check_names(data)
    if not _IDENTIFIER.fullmatch(data["name"]):
        raise ProgramError(f"{shown(data['name'])} is no name of a program")
    nodes: list[Node] = []
    for number, row in enumerate(items(data["nodes"], "nodes")):
        try:
            nodes.append(_node(row, nodes))
        except ProgramError as error:
            raise ProgramError(f"node {number}: {error}") from error
    outputs = [items(pair, "an output", 2) for pair in items(data["outputs"], "outputs")]
    named = {_at(nodes, int(k) if k.isdecimal() else k): name for k, name in data["names"].items()}
    for name in (*(name for name, _ in outputs), *named.values()):
        _of_type(name, str, "a name")
    program = Program(data["name"], tuple((name, _at(nodes, place)) for name, place in outputs), named)
    if len(_all_nodes(program.nodes)) != len(nodes):
        raise ProgramError("a node is there twice, or no output needs it")
    return program


def fields(data: Any, what: str, names: Iterable[str]) -> Any:
    """The data itself, which has these fields and no others."""
    names = tuple(names)
    if not isinstance(data, dict) or set(data) != set(names):
        have = ", ".join(map(shown, data)) if isinstance(data, dict) else shown(data)
        raise ProgramError(f"{what} has the fields {', '.join(names)}, not {have}")
    return data


def items(data: Any, what: str, count: int | None = None) -> list[Any]:
    """The data itself, which is a list, of so many items."""
    if not isinstance(data, list) or count not in (None, len(data)):
        wanted = "a list" if count is None else f"a list of {count}"
        raise ProgramError(f"{what}: {wanted} is needed, not {shown(data)}")
    return data


def _node(row: Any, before: list[Node]) -> Node:
    op, inputs, type, attrs = items(row, "a node", 4)
    _of_type(op, str, "an op")
    if op not in OPS:
        raise ProgramError(f"there is no op {shown(op)}")
    if OPS[op].no_file:
        raise ProgramError(f"`{op}`: {OPS[op].no_file}")
    operands = [_at(before, place) for place in items(inputs, f"`{op}`: operands")]
    node = ir.make(op, operands, _type_of(type, op), _attributes(OPS[op], attrs, before))
    verify_node(node)
    return node


def _attributes(op: Op, data: Any, before: list[Node]) -> Attrs:
    if not isinstance(data, dict):
        raise ProgramError(f"`{op.name}`: attributes have names, not {shown(data)}")
    for name in data:
        if name not in op.fields:
            raise ProgramError(f"`{op.name}`: it has no attribute {shown(name)}")
    for name in op.fields:
        if name not in data:
            raise ProgramError(f"`{op.name}`: its attribute `{name}` is missing")
    return op.attrs(**{name: _attribute(value, before) for name, value in data.items()})


def _at(nodes: list[Node], place: Any) -> Node:
    """The node at a place, which must be one that is made already."""
    if type(place) is not int or not 0 <= place < len(nodes):
        raise ProgramError(f"{shown(place)} is no node that comes before it")
    return nodes[place]


def _attribute(value: Any, before: list[Node]) -> Any:
    if isinstance(value, dict):
        return _at(before, fields(value, "a node in an attribute", ("node",))["node"])
    if isinstance(value, list):
        if not all(isinstance(v, _PLAIN) for v in value):
            raise ProgramError(f"an attribute is a number, a name or a list of them, not {shown(value)}")
        return tuple(value)
    return value


def _of_type(value: Any, wanted: type, what: str) -> Any:
    if type(value) is not wanted:
        raise ProgramError(f"{shown(value)} is not {what}")
    return value


def _check_names(data: Mapping[str, Any]) -> None:
    _of_type(data["name"], str, "a name of a program")
    if not isinstance(data["names"], dict):
        raise ProgramError(f"names have places, not {shown(data['names'])}")
    for text in _texts(data):
        if not _NAME.fullmatch(text):
            raise ProgramError(f"{shown(text)} is no name of a value, dim or operation")


def _all_nodes(outputs: Iterable[Node]) -> list[Node]:
    """Every node, those in attributes too, after what it is made of."""
    found: dict[Node, None] = {}
    for node in ir.walk(outputs):
        for _, value in node.attrs.items():
            if isinstance(value, Node):
                found |= dict.fromkeys(_all_nodes([value]))
        found[node] = None
    return list(found)


def _texts(data: Any) -> Iterator[str]:
    """Every text in the data. However deep that is: what is nested too deeply is no program, and is refused later."""
    stack = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            stack += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            stack += value


def _type_data(type: Type) -> list[Any]:
    return [type.domain.value, [[d.name, d.size] for d in type.dims], type.kind.value, type.bound]


def _type_of(data: Any, op: str) -> Type:
    """Of the exact types of Python: True is a 1 that would be taken for one of an equal type made before."""
    domain, dims, kind, bound = items(data, f"`{op}`: a type", 4)
    if _of_type(domain, str, "a domain") not in _DOMAINS or _of_type(kind, str, "a kind of number") not in _KINDS:
        raise ProgramError(f"`{op}`: there are no values for each {shown(domain)}, or no numbers of kind {shown(kind)}")
    made = []
    for pair in items(dims, f"`{op}`: dims"):
        name, size = items(pair, f"`{op}`: a dim", 2)
        _of_type(name, str, f"a name of a dim of `{op}`")
        made.append(Dim(name, _of_type(size, int, f"the size of `{name}`")))
    if bound is not None:
        _of_type(bound, int, f"the bound of `{op}`")
    return Type(_DOMAINS[domain], tuple(made), _KINDS[kind], bound)


_DOMAINS = {d.value: d for d in Domain}
_KINDS = {k.value: k for k in Kind}

"""Programs as data, for what outlives the process: a program inside an exported model, say.

Data only: reading it makes nodes, and runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gdsl.ir import node as ir
from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Kind, Type

# Names of values and dims, as the compiler writes them: ``h``, ``lin.weight``, ``2*in_channels'``, ``K[1]``. They are
# shown in generated code, and text from a file must bring nothing else there.
_NAME = re.compile(r"[A-Za-z0-9_(][A-Za-z0-9_.,'*+/@ ()\[\]-]*")


def to_data(program: Program) -> dict[str, Any]:
    """Lists, numbers and strings that :func:`from_data` makes the same program of."""
    places: dict[Node, int] = {}
    rows: list[list[Any]] = []
    for node in _all_nodes(program.nodes):
        places[node] = len(rows)
        attrs = {k: {"node": places[v]} if isinstance(v, Node) else v for k, v in node.attrs}
        rows.append([node.op, [places[i] for i in node.inputs], _type_data(node.type), attrs])
    return {
        "name": program.name,
        "nodes": rows,
        "outputs": [[name, places[node]] for name, node in program.outputs],
        "names": {str(places[node]): name for node, name in program.names.items() if node in places},
    }


def from_data(data: Mapping[str, Any]) -> Program:
    """The program that :func:`to_data` wrote.

    Raises ValueError for what it cannot have written.
    """
    for text in _texts(data):
        if not _NAME.fullmatch(text):
            raise ValueError(f"{text!r} is no name of a value, dim or operation")
    nodes: list[Node] = []
    for op, inputs, type, attrs in data["nodes"]:
        if any(not 0 <= i < len(nodes) for i in inputs):
            raise ValueError(f"an operand of {op!r} does not come before it")
        found = {k: nodes[v["node"]] if isinstance(v, dict) else _frozen(v) for k, v in attrs.items()}
        nodes.append(ir.make(op, [nodes[i] for i in inputs], _type_of(type), found))
    outputs = tuple((name, nodes[place]) for name, place in data["outputs"])
    return Program(data["name"], outputs, {nodes[int(k)]: name for k, name in data["names"].items()})


def _all_nodes(outputs: Iterable[Node]) -> list[Node]:
    """Every node, those in attributes too, after what it is made of."""
    found: dict[Node, None] = {}
    for node in ir.walk(outputs):
        for _, value in node.attrs:
            if isinstance(value, Node):
                found |= dict.fromkeys(_all_nodes([value]))
        found[node] = None
    return list(found)


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        yield from (text for pair in data.items() for part in pair for text in _texts(part))
    elif isinstance(data, list):
        yield from (text for part in data for text in _texts(part))


def _type_data(type: Type) -> list[Any]:
    return [type.domain.value, [[d.name, d.size] for d in type.dims], type.kind.value, type.bound]


def _type_of(data: Sequence[Any]) -> Type:
    domain, dims, kind, bound = data
    return Type(Domain(domain), tuple(Dim(name, size) for name, size in dims), Kind(kind), bound)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value

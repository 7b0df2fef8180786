"""A program of the IR: named outputs over loads. What every pass takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gdsl.html import page, table
from gdsl.ir.node import Node, walk


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True)
class Program:
    """Outputs with names, and the names that the user gave to values on the way.

    name:    for generated code and messages
    outputs: (name, node) in the order of the results
    names:   names of nodes, for readable code; passes carry them along
    """

    name: str
    outputs: tuple[tuple[str, Node], ...]
    names: Mapping[Node, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Program {self.name}: {_few([name for name, _ in self.outputs])}>"

    def _repr_html_(self) -> str:
        ends = [("input", node.attrs.name, node.type) for node in self.inputs]
        ends += [("output", name, node.type) for name, node in self.outputs]
        return page(f"program {self.name}", table(("", "name", "type"), ends))

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(node for _, node in self.outputs)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The loads, in a stable order."""
        return tuple(node for node in walk(self.nodes) if node.op == "load")

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the loads, in the same order."""
        return tuple(node.attrs.name for node in self.inputs)

    def mapped(self, mapping: Mapping[Node, Node]) -> Program:
        """The program of the nodes that take the place of its own, which pass on their names."""
        names = dict(self.names)
        for old, new in mapping.items():
            if old in self.names:
                names.setdefault(new, self.names[old])
        return Program(self.name, tuple((name, mapping[node]) for name, node in self.outputs), names)

"""Nodes as text: each op's printed form, with parentheses where they are needed."""

from __future__ import annotations

from collections.abc import Mapping

from gdsl.ir.node import Node
from gdsl.ir.ops.op import ATOM, OPS, Text

# Operations in one line of text.
MAX_PARTS = 400


def expression(node: Node, names: Mapping[Node, str], *, root: bool = True) -> str:
    """The node as an expression over named nodes. What is more than ``MAX_PARTS`` operations away is left out as
    ``...``: without names a value that is used twice is written twice, and so is all below it."""
    return _TextWriter(names).write(node, root)[0]


class _TextWriter:
    def __init__(self, names: Mapping[Node, str]):
        self.names = names
        self.left = MAX_PARTS

    def write(self, node: Node, root: bool) -> Text:
        if not root and node in self.names:
            return self.names[node], ATOM
        self.left -= 1
        if self.left < 0:
            return "...", ATOM
        op = OPS[node.op]
        first, rest = op.levels(node)
        return op.text(node, [self.operand(x, rest if k else first) for k, x in enumerate(node.inputs)])

    def operand(self, node: Node, level: int) -> str:
        text, own = self.write(node, False)
        return f"({text})" if own < level else text

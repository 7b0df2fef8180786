"""Nodes as text: each op's printed form, with parentheses where they are needed."""

from __future__ import annotations

from collections.abc import Mapping

from gdsl.ir.node import Node
from gdsl.ir.ops.op import ATOM, OPS, Text

# Operations in one line of text, and how deep they stand in each other: a level takes three of Python's calls, of which
# it allows a thousand.
MAX_PARTS, MAX_DEPTH = 400, 100


def expression(node: Node, names: Mapping[Node, str], *, root: bool = True) -> str:
    """The node as an expression over named nodes. What is more than ``MAX_PARTS`` operations away, or below
    ``MAX_DEPTH`` others, is left out as ``...``: without names a value that is used twice is written twice, and so is
    all below it."""
    return _TextWriter(names).write(node, root)[0]


class _TextWriter:
    def __init__(self, names: Mapping[Node, str]):
        self.names = names
        self.left = MAX_PARTS
        self.depth = 0

    def write(self, node: Node, root: bool) -> Text:
        if not root and node in self.names:
            return self.names[node], ATOM
        self.left -= 1
        if self.left < 0 or self.depth == MAX_DEPTH:
            return "...", ATOM
        op = OPS[node.op]
        first, rest = op.levels(node)
        self.depth += 1
        operands = [self.operand(x, rest if k else first) for k, x in enumerate(node.inputs)]
        self.depth -= 1
        return op.text(node, operands)

    def operand(self, node: Node, level: int) -> str:
        text, own = self.write(node, False)
        return f"({text})" if own < level else text

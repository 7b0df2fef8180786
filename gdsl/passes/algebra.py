"""Sums of multiples: equal terms are collected and constant factors multiplied.

What is done here, and no more, holds for every floating-point number up to rounding: no term that could be infinite or
NaN disappears, so x - x and 0 * x stay, and nothing is divided out. ``tests/passes`` has sympy prove each case.
"""

from __future__ import annotations

from gdsl.ir import build
from gdsl.ir.node import Node
from gdsl.ir.types import Kind, Type
from gdsl.passes.rewrite import Rule
from gdsl.passes.simplify import constant_value


def like_terms(node: Node) -> Node | None:
    """x + x --> x * 2;  (x * 2) * 3 --> x * 6;  x * 3 - (y + x) --> x * 2 - y"""
    if node.op not in ("add", "sub", "neg", "mul") or node.kind is not Kind.FLOAT:
        return None
    terms: dict[Node, float] = {}
    count = _collect(node, 1.0, node.type, terms)
    if terms.keys() == {node} or 0.0 in terms.values():
        return None
    value, operations = _rebuilt(terms)
    return value if operations < count and value.type == node.type else None


def _collect(node: Node, factor: float, type: Type, terms: dict[Node, float]) -> int:
    """Add ``factor * node`` to the terms; gives the number of operations that wrote it."""
    if node.type == type:
        if node.op == "neg":
            return 1 + _collect(node.inputs[0], -factor, type, terms)
        if node.op in ("add", "sub") and all(i.type == type for i in node.inputs):
            first = _collect(node.inputs[0], factor, type, terms)
            return 1 + first + _collect(node.inputs[1], -factor if node.op == "sub" else factor, type, terms)
        if node.op == "mul":
            for inner, other in (node.inputs, node.inputs[::-1]):
                constant = constant_value(other)
                if constant is not None and inner.type == type:
                    return 1 + _collect(inner, factor * constant, type, terms)
    terms[node] = terms.get(node, 0.0) + factor
    return 0


def _rebuilt(terms: dict[Node, float]) -> tuple[Node, int]:
    """The sum of multiples, and how many operations it takes. Terms that are added come first."""
    ordered = sorted(terms.items(), key=lambda t: t[1] < 0)
    operations = len(ordered) - 1
    value: Node | None = None
    for leaf, factor in ordered:
        size = abs(factor)
        operations += size != 1.0
        part = leaf if size == 1.0 else leaf * build.const(size)
        if value is None:
            value = part if factor > 0 else -part
            operations += factor < 0
        else:
            value = value + part if factor > 0 else value - part
    assert value is not None
    return value, operations


RULES: list[Rule] = [like_terms]

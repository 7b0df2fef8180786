"""Sums of multiples: equal terms are collected and constant factors multiplied; a product is the same in both orders.

What is done here, and no more, holds for every floating-point number but those within a small factor of the largest and
smallest, up to rounding: no term that could be infinite or NaN disappears, so x - x and 0 * x stay; nothing is divided
out, and no difference is opened to be multiplied. ``tests/passes`` has sympy prove each case.
"""

from __future__ import annotations

import math
from collections import Counter

from gdsl.ir import build
from gdsl.ir.node import Node, substitute
from gdsl.ir.program import Program
from gdsl.ir.types import Kind, Type
from gdsl.passes.rewrite import Fired, Rule
from gdsl.passes.simplify import constant_value

# Factors beyond these are not multiplied with each other: the product of two could be 0 or infinite in float32.
_SMALLEST, _LARGEST = 2.0**-60, 2.0**60


def like_terms(node: Node) -> Node | None:
    """x + x + x --> x * 3;  (x * 2) * 3 --> x * 6;  x * 3 - (y + x) --> x * 2 - y"""
    if node.op not in ("add", "sub", "neg", "mul") or node.kind is not Kind.FLOAT:
        return None
    read, terms = Counter[Node](), dict[Node, float]()
    _count(node, node.type, read)
    count = _collect(node, 1.0, node.type, terms, read)
    if terms.keys() == {node} or not all(_SMALLEST <= abs(factor) <= _LARGEST for factor in terms.values()):
        return None
    value, operations = _rebuilt(terms)
    return value if operations < count and value.type == node.type else None


def _count(node: Node, type: Type, read: Counter[Node]) -> None:
    """How often each part of a sum is read in it."""
    read[node] += 1
    if read[node] == 1 and node.type == type and node.op in ("add", "sub", "neg", "mul"):
        for operand in node.inputs:
            _count(operand, type, read)


def _collect(node: Node, factor: float, type: Type, terms: dict[Node, float], read: Counter[Node]) -> int:
    """Add ``factor * node`` to the terms; gives the number of operations that wrote it.

    A multiple of a sum, and a sum that is read twice, are terms as they are: (x - y) * 3 is not x * 3 - y * 3, whose
    rounding errors may be larger than the difference.
    """
    if node.type == type:
        if node.op == "neg":
            return 1 + _collect(node.inputs[0], -factor, type, terms, read)
        summed = node.op in ("add", "sub") and all(i.type == type for i in node.inputs)
        if summed and abs(factor) == 1.0 and read[node] == 1:
            first = _collect(node.inputs[0], factor, type, terms, read)
            second = -factor if node.op == "sub" else factor
            return 1 + first + _collect(node.inputs[1], second, type, terms, read)
        if node.op == "mul":
            for inner, other in (node.inputs, node.inputs[::-1]):
                constant = constant_value(other)
                if constant is not None and inner.type == type and _SMALLEST <= abs(constant) <= _LARGEST:
                    return 1 + _collect(inner, factor * constant, type, terms, read)
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


def divided_twice(node: Node) -> Node | None:
    """x / 2 / 3 --> x / 6"""
    if node.op != "div" or node.inputs[0].op != "div":
        return None
    (x, first), second = node.inputs[0].inputs, node.inputs[1]
    divisors = [v for v in map(constant_value, (first, second)) if v is not None]
    if len(divisors) < 2 or not all(_SMALLEST <= abs(d) <= _LARGEST for d in (*divisors, math.prod(divisors))):
        return None
    value = x / build.const(math.prod(divisors))
    return value if value.type == node.type else None


RULES: list[Rule] = [like_terms, divided_twice]


def one_order(program: Program, log: list[Fired] | None = None) -> Program:
    """b * a --> a * b, where a * b is computed too; likewise sums of two, and products summed over dims"""
    first: dict[tuple[object, ...], Node] = {}
    fired: list[Fired] = []

    def change(node: Node) -> Node | None:
        if node.op not in ("add", "mul", "contract"):
            return None
        key = (node.op, frozenset(Counter(node.inputs).items()), node.type, node.attrs)
        same = first.setdefault(key, node)
        if same is node:
            return None
        fired.append(Fired("one_order", node, same))
        return same

    mapping = substitute(program.nodes, change)
    if log is not None:
        log.extend(fired)
    return program.with_outputs([mapping[n] for n in program.nodes], mapping) if fired else program

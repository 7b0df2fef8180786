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
from gdsl.ir.ops import of
from gdsl.ir.program import Program
from gdsl.ir.types import Kind, Type
from gdsl.passes.rewrite import Fired, Rule, on
from gdsl.passes.simplify import constant_value

# Factors beyond these are not multiplied with each other: the product of two could be 0 or infinite in float32.
_SMALLEST, _LARGEST = 2.0**-60, 2.0**60

# Parts of a sum that are looked at. Every part of a sum is a sum, so that without a bound the time is quadratic.
MAX_PARTS = 64


@on("add", "sub", "neg", "mul")
def like_terms(node: Node) -> Node | None:
    """x + x + x --> x * 3;  (x * 2) * 3 --> x * 6;  x * 3 - (y + x) --> x * 2 - y"""
    if node.kind is not Kind.FLOAT:
        return None
    terms, count = _terms(node, _read_counts(node))
    if terms.keys() == {node} or not all(_SMALLEST <= abs(factor) <= _LARGEST for factor in terms.values()):
        return None
    if _operations(terms) >= count:
        return None
    value = _rebuilt(terms)
    return value if value.type == node.type else None


def _read_counts(node: Node) -> Counter[Node]:
    """How often each part of a sum is read in it."""
    read, left = Counter[Node](), [node]
    while left and len(read) < MAX_PARTS:
        part = left.pop()
        read[part] += 1
        if read[part] == 1 and part.type == node.type and part.op in ("add", "sub", "neg", "mul"):
            left.extend(part.inputs)
    return read


def _terms(node: Node, read: Counter[Node]) -> tuple[dict[Node, float], int]:
    """The terms of a sum with their factors, and the number of operations that wrote it."""
    terms: dict[Node, float] = {}
    operations, left = 0, [(node, 1.0)]
    while left:
        part, factor = left.pop()
        opened = _opened(part, factor, node.type, read) if operations < MAX_PARTS else None
        if opened is None:
            terms[part] = terms.get(part, 0.0) + factor
        else:
            operations += 1
            left.extend(reversed(opened))
    return terms, operations


def _opened(node: Node, factor: float, type: Type, read: Counter[Node]) -> list[tuple[Node, float]] | None:
    """``factor * node`` as a sum of multiples of its inputs; None where it is a term as it is.

    A multiple of a sum, and a sum that is read twice, are terms as they are: (x - y) * 3 is not x * 3 - y * 3, whose
    rounding errors may be larger than the difference.
    """
    if node.type != type:
        return None
    if node.op == "neg":
        return [(node.inputs[0], -factor)]
    summed = node.op in ("add", "sub") and all(i.type == type for i in node.inputs)
    if summed and abs(factor) == 1.0 and read[node] == 1:
        return [(node.inputs[0], factor), (node.inputs[1], -factor if node.op == "sub" else factor)]
    if node.op == "mul":
        for inner, other in (node.inputs, node.inputs[::-1]):
            constant = constant_value(other)
            if constant is not None and inner.type == type and _SMALLEST <= abs(constant) <= _LARGEST:
                return [(inner, factor * constant)]
    return None


def _operations(terms: dict[Node, float]) -> int:
    """How many operations ``_rebuilt`` takes: between the terms, for each factor, and for a sign before all of them."""
    scaled = sum(abs(factor) != 1.0 for factor in terms.values())
    return len(terms) - 1 + scaled + all(factor < 0 for factor in terms.values())


def _rebuilt(terms: dict[Node, float]) -> Node:
    """The sum of multiples. Terms that are added come first."""
    value: Node | None = None
    for leaf, factor in sorted(terms.items(), key=lambda t: t[1] < 0):
        size = abs(factor)
        part = leaf if size == 1.0 else leaf * build.const(size)
        if value is None:
            value = part if factor > 0 else -part
        else:
            value = value + part if factor > 0 else value - part
    assert value is not None
    return value


@on("div")
def divided_twice(node: Node) -> Node | None:
    """x / 2 / 3 --> x / 6"""
    if node.inputs[0].op != "div":
        return None
    (x, first), second = node.inputs[0].inputs, node.inputs[1]
    divisors = [v for v in map(constant_value, (first, second)) if v is not None]
    if len(divisors) < 2 or not all(_SMALLEST <= abs(d) <= _LARGEST for d in (*divisors, math.prod(divisors))):
        return None
    value = x / build.const(math.prod(divisors))
    return value if value.type == node.type else None


RULES: list[Rule] = [like_terms, divided_twice]


def one_order(program: Program, log: list[Fired] | None = None) -> Program:
    """b * a --> a * b, where a * b is computed too; likewise of all that may swap its operands"""
    first: dict[tuple[object, ...], Node] = {}
    fired: list[Fired] = []

    def change(node: Node) -> Node | None:
        if not of(node).commutes:
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
    return program.mapped(mapping) if fired else program

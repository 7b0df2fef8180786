"""Numbers of an expression as inputs: what changes from call to call is not compiled in.

An expression without its numbers is its *skeleton*. Where one skeleton comes again with other numbers, those that
differ become inputs, as torch's compiler does it with sizes and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from gdsl.ir import build
from gdsl.ir.node import Node, rebuild, walk
from gdsl.ir.types import Domain, Kind, Type


def load(k: int) -> Node:
    """The k-th number of an expression as an input."""
    return build.load(f"number.{k}", Type(Domain.GLOBAL), "param")


def skeleton(node: Node) -> tuple[Node, tuple[float, ...]]:
    """The expression with an input for each use of a number, and these numbers.

    Each use is one of its own: numbers that are equal now may differ in the next call.
    """
    found: list[float] = []
    new: dict[Node, Node] = {}
    for n in walk([node]):
        inputs = []
        for operand in n.inputs:
            if _is_number(operand):
                inputs.append(load(len(found)))
                found.append(operand.attr("value"))
            else:
                inputs.append(new[operand])
        new[n] = rebuild(n, tuple(inputs))
    return new[node], tuple(found)


def filled(skeleton: Node, numbers: Sequence[float], inputs: Collection[int]) -> Node:
    """A skeleton with its numbers in it again, but for those that stay inputs."""
    constants = {load(k): build.const(value) for k, value in enumerate(numbers) if k not in inputs}
    new: dict[Node, Node] = {}
    for n in walk([skeleton]):
        new[n] = constants.get(n) or rebuild(n, tuple(new[i] for i in n.inputs))
    return new[skeleton]


def _is_number(node: Node) -> bool:
    if node.op != "const" or node.kind is not Kind.FLOAT or node.dims:
        return False
    value: float = node.attr("value")
    return math.isfinite(value)

"""Numbers of a program as inputs: what changes from call to call is not compiled in.

A program without its numbers is its *skeleton*. Where one skeleton comes again with other numbers, those that
differ become inputs, as torch's compiler does it with sizes and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from gdsl.ir import build
from gdsl.ir.node import Node, rebuild, substitute, walk
from gdsl.ir.types import Domain, Kind, Type

# Half precision has no smaller number, and no larger one, that is as exact as others: what guards a division stays.
SMALLEST, LARGEST = 2.0**-14, 65504.0


def load(k: int) -> Node:
    """The k-th number of a program as an input. No name of a user's has a colon."""
    return build.load(f"number:{k}", Type(Domain.GLOBAL), "param")


def skeleton(nodes: Sequence[Node]) -> tuple[dict[Node, Node], tuple[float, ...]]:
    """Nodes and all below them, each with an input for each use of a number, and these numbers.

    Each use is one of its own: numbers that are equal now may differ in the next call.
    """
    found: list[float] = []
    new: dict[Node, Node] = {}
    for n in walk(nodes):
        inputs = []
        for operand in n.inputs:
            if _is_number(operand):
                inputs.append(load(len(found)))
                found.append(operand.attrs.value)
            else:
                inputs.append(new[operand])
        new[n] = rebuild(n, tuple(inputs))
    return new, tuple(found)


def filled(bones: Sequence[Node], numbers: Sequence[float], inputs: Collection[int]) -> dict[Node, Node]:
    """Nodes of a skeleton and all below them with their numbers in them again, but for those that stay inputs."""
    constants = {load(k): build.const(value) for k, value in enumerate(numbers) if k not in inputs}
    return substitute(bones, constants)


def can_be_input(number: float) -> bool:
    """Whether a number is as exact as an input as it is as a constant, up to the precision of the call."""
    return number == 0 or SMALLEST <= abs(number) <= LARGEST


def _is_number(node: Node) -> bool:
    if node.op != "const" or node.kind is not Kind.FLOAT or node.dims:
        return False
    value: float = node.attrs.value
    return math.isfinite(value)

"""Reverse-mode differentiation, from IR to IR: the backward is a program that can be differentiated again.

Each op's definition has its pull-back. ``gather`` and ``segment`` are each other's adjoint, ``index`` and ``scatter``
too, so the set of ops is closed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from gdsl.ir.node import Node, walk
from gdsl.ir.ops.leaves import const
from gdsl.ir.ops.op import NotDifferentiable, no_gradient, of
from gdsl.ir.ops.products import spread_to
from gdsl.ir.types import Kind


def gradients(
    outputs: Mapping[Node, Node], wrt: Sequence[Node], found: dict[Node, Node] | None = None, ties: str = "split"
) -> list[Node | None]:
    """For each node of ``wrt`` the gradient of the outputs, whose own gradients are given; None where they do not
    depend on it. Behind a step function, such as ``sign``, the gradient is 0.

    found: when given, receives the gradient of every node on the way
    ties:  whether equal maxima (minima) of a segment or dim "split" the gradient evenly, or the "first" gets it all
    """
    order = list(walk(outputs))
    active = depends_on(order, wrt)
    found = {} if found is None else found
    for node, g in outputs.items():
        if node in active:
            found[node] = g
    flat: set[Node] = set()  # nodes that outputs depend on by steps
    for node in reversed(order):
        gradient = found.get(node)
        if node in flat and gradient is None:
            flat.update(n for n in node.inputs if n in active)
        if gradient is None or node not in active or not node.inputs:
            continue
        pull = of(node).pull
        if pull is None:
            raise NotDifferentiable(f"`{node.op}` has no derivative rule")
        for operand, part in zip(node.inputs, pull(node, gradient, ties), strict=True):
            if operand not in active:
                continue
            if part is None:
                flat.add(operand)
            else:
                found[operand] = part if operand not in found else found[operand] + part
    zeros = {node: spread_to(const(0.0), node.type) for node in wrt if node in flat and node not in found}
    return [zeros.get(node, found.get(node)) for node in wrt]


def depends_on(order: Iterable[Node], wrt: Collection[Node]) -> set[Node]:
    """The nodes that have a derivative by some node of ``wrt``; ``order`` has operands before users."""
    active = set(wrt)
    for node in order:
        constant = node.kind is not Kind.FLOAT or of(node).pull is no_gradient
        if not constant and any(i in active for i in node.inputs):
            active.add(node)
    return active

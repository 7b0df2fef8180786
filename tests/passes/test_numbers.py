"""Numbers of an expression as inputs."""

from __future__ import annotations

import math

from gdsl.ir import build, library
from gdsl.ir.node import Node, walk
from gdsl.ir.types import Dim, Domain, Type
from gdsl.passes import numbers

X = build.gather(build.load("x", Type(Domain.NODE, (Dim("d", 3),)), "input"), "j")


def expression(slope: float, shift: float) -> Node:
    message = library.op("leaky_relu", X * 2.0 + shift, slope)
    return library.segment_sum(message, "i", Domain.NODE)


def bones_of(node: Node) -> tuple[Node, tuple[float, ...]]:
    new, found = numbers.skeleton([node])
    return new[node], found


def again(bones: Node, found: tuple[float, ...], inputs: tuple[int, ...]) -> Node:
    return numbers.filled([bones], found, inputs)[bones]


def test_a_skeleton_is_the_same_for_all_numbers() -> None:
    bones, found = bones_of(expression(0.2, 1.0))
    assert bones_of(expression(0.3, -4.0))[0] is bones
    assert sorted(found) == [0.2, 1.0, 2.0]
    assert not [n for n in walk([bones]) if n.op == "const"]


def test_equal_numbers_are_told_apart_by_their_use() -> None:
    bones, found = bones_of(expression(2.0, 2.0))
    assert found == (2.0, 2.0, 2.0)
    assert bones is bones_of(expression(0.1, 0.5))[0]


def test_a_skeleton_is_filled_again() -> None:
    node = expression(0.2, 1.0)
    bones, found = bones_of(node)
    assert again(bones, found, ()) is node
    half = again(bones, found, (0,))
    assert [n.attrs.name for n in walk([half]) if n.op == "load"].count("number:0") == 1
    assert again(bones, found, (0, 1, 2)) is bones


def test_what_decides_the_form_stays() -> None:
    """Infinite numbers and those with dims are no settings that change; whole numbers are places."""
    node = library.clamp(X, 0.0, math.inf) + build.const(1.0, X.dims)
    bones, found = bones_of(node)
    assert math.inf not in found
    assert len([n for n in walk([bones]) if n.op == "const"]) == 2

"""Open uniform B-splines: Fey et al., "SplineCNN", CVPR 2018, section 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from gdsl.ir.attributes import Attrs, IRError, need, number
from gdsl.ir.node import Node, make
from gdsl.ir.ops.elementwise import to_float
from gdsl.ir.ops.op import Gradients, Op, Run, define, full, no_gradient
from gdsl.ir.ops.products import contract, sum_to
from gdsl.ir.ops.views import rename
from gdsl.ir.types import Dim, Kind, Type

if TYPE_CHECKING:
    from torch import Tensor

KERNEL_SIZE, DEGREE = number(1, 2**16), number(1, 3)
MOST_COORDINATES = 16


class Spline(Attrs):
    kernel_size: Annotated[int, KERNEL_SIZE]
    degree: Annotated[int, DEGREE]
    order: Annotated[int, number(0, MOST_COORDINATES)] = 0


class SplineIndex(Attrs):
    kernel_size: Annotated[int, KERNEL_SIZE]
    degree: Annotated[int, DEGREE]


def bspline(x: Node, kernel_size: int, degree: int, name: str) -> Node:
    """The (degree + 1)^d products of open B-spline bases at x in [0, 1]^d.

    One value for each control point that x touches, in the order of :func:`bspline_index`.
    """
    dim = Dim(name, _points(x, kernel_size, degree))
    return _bspline(x, Type(x.domain, (*x.dims[:-1], dim)), Spline(kernel_size, degree))


def _bspline(x: Node, type: Type, attrs: Spline) -> Node:
    """All partial derivatives of an order: before the control points, for each order, a dim of the coordinates."""
    return make("bspline", (to_float(x),), type, attrs)


def bspline_index(x: Node, kernel_size: int, degree: int, name: str) -> Node:
    """The control points that x touches, below kernel_size^d; the first coordinate varies fastest."""
    dim = Dim(name, _points(x, kernel_size, degree))
    type = Type(x.domain, (*x.dims[:-1], dim), Kind.INT, kernel_size ** x.dims[-1].size)
    return make("bspline_index", (to_float(x),), type, SplineIndex(kernel_size, degree))


def _points(x: Node, kernel_size: int, degree: int) -> int:
    if not x.dims:
        raise IRError(f"a B-spline needs a dim of coordinates, and {x.type} has none")
    if degree not in (1, 2, 3):
        raise IRError(f"a B-spline has degree 1, 2 or 3, not {degree}")
    if kernel_size <= degree:
        raise IRError(f"an open B-spline of degree {degree} needs a kernel size above {degree}, not {kernel_size}")
    return (degree + 1) ** x.dims[-1].size


def _rule(node: Node) -> Node:
    (x,), degree, kernel = node.inputs, node.attrs.degree, node.attrs.kernel_size
    order = node.attrs.order if isinstance(node.attrs, Spline) else 0
    need(bool(x.dims), f"it needs a dim of coordinates, and {x.type} has none")
    *rows, width = x.type.shape
    need(width <= MOST_COORDINATES, f"it has at most {MOST_COORDINATES} coordinates, not {width}")
    need(kernel > degree, f"an open B-spline of degree {degree} has a kernel above it, not of {kernel}")
    shape = (*rows, *[width] * order, (degree + 1) ** width)
    need(node.type.shape == shape and node.dims[: len(rows)] == x.dims[:-1], f"its shape is {shape}, not {node.type}")
    if isinstance(node.attrs, Spline):
        return _bspline(x, Type(x.domain, node.dims), node.attrs)
    return bspline_index(x, kernel, degree, node.dims[-1].name)


def _value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    from gdsl.ir import bspline as forms

    form = forms.places if node.op == "bspline_index" else forms.values
    return form(full(args[0], node.inputs[0].type, run), **dict(node.attrs.items()))


def _pull(node: Node, g: Node, ties: str) -> Gradients:
    """The partial derivatives of order n are differentiated to those of order n + 1, on one more dim."""
    x, order = node.inputs[0], node.attrs.order + 1
    coordinate = x.dims[-1]
    new = Dim(f"{coordinate.name}@{order}", coordinate.size)
    dims = (*node.dims[:-1], new, node.dims[-1])
    slope = _bspline(x, Type(node.domain, dims), Spline(node.attrs.kernel_size, node.attrs.degree, order))
    summed = [d.name for d in node.dims[len(x.dims) - 1 :]]
    return [sum_to(rename(contract([g, slope], summed), {new.name: coordinate.name}), x.type)]


define(Op(name="bspline", operands=(1, 1), attrs=Spline, rule=_rule, value=_value, pull=_pull, whole=True))
define(Op(
    name="bspline_index", operands=(1, 1), attrs=SplineIndex, rule=_rule, value=_value, pull=no_gradient, whole=True,
))  # fmt: skip

"""Places of a dim, moved round in a circle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from gdsl.ir.attributes import MOST, NAME, Attrs, IRError, need, number
from gdsl.ir.node import Node, make
from gdsl.ir.ops.op import ATOM, Op, Run, define, dim_of, full
from gdsl.ir.types import Type

if TYPE_CHECKING:
    from torch import Tensor


class Roll(Attrs):
    dim: Annotated[str, NAME]
    shift: Annotated[int, number(1, MOST)]


def roll(x: Node, shift: int, dim: str) -> Node:
    """``y[k] = x[k - shift]`` along a dim, places counted in a circle: ``torch.roll``."""
    size = x.type.dim(dim).size
    shift = shift % size if size else 0
    return make("roll", (x,), Type(x.domain, x.dims, x.kind, x.type.bound), Roll(dim, shift)) if shift else x


def roll_last(x: Node, shift: Node | float) -> Node:
    """Along the last dim, by a number that is known when the program is made."""
    known = shift.attrs.value if isinstance(shift, Node) and shift.op == "const" else shift
    if isinstance(known, Node) or known != int(known):
        raise IRError("`roll` moves by a whole number that is known when the layer is made", "write roll(x, 1)")
    if not x.dims:
        raise IRError(f"`roll` moves the places of the last dim, and {x.type} has none")
    return roll(x, int(known), x.dims[-1].name)


def _rule(node: Node) -> Node:
    dim = dim_of(node.inputs[0], node.attrs.dim)
    need(node.attrs.shift < dim.size, f"it moves by less than the {dim.size} places of `{dim.name}`")
    return roll(node.inputs[0], node.attrs.shift, dim.name)


def _value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    place = node.type.names.index(node.attrs.dim) - len(node.dims)
    return full(args[0], node.type, run).roll(node.attrs.shift, place)


define(Op(
    name="roll", operands=(1, 1), attrs=Roll, rule=_rule, value=_value,
    pull=lambda n, g, ties: [roll(g, -n.attrs.shift, n.attrs.dim)],
    text=lambda n, args: (f"roll({args[0]}, {n.attrs.shift}; {n.attrs.dim})", ATOM), word="rolled",
    arranges=True, look=True, exact=True, rowwise=True, linear=True,
))  # fmt: skip

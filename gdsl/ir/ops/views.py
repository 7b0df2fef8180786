"""The same numbers under other dims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gdsl.ir.attributes import IRError, need
from gdsl.ir.node import Node, make
from gdsl.ir.ops.op import ATOM, Op, Run, align, check_dims, define, full, no_gradient
from gdsl.ir.types import Dim, Type

if TYPE_CHECKING:
    from torch import Tensor

# ------------------------------------------------------------------------------------- transpose


def transpose(x: Node, order: Sequence[str]) -> Node:
    """The same value with its dims in another order."""
    if tuple(order) == x.type.names:
        return x
    dims = tuple(x.type.dim(name) for name in order)
    return make("transpose", (x,), Type(x.domain, dims, x.kind, x.type.bound))


def _transpose_rule(node: Node) -> Node:
    (x,) = node.inputs
    need(set(x.dims) == set(node.dims), f"it has the dims of {x.type}, and not {node.type}")
    return transpose(x, node.type.names)


define(Op(
    name="transpose", operands=(1, 1), rule=_transpose_rule,
    value=lambda n, args, run: align(args[0], n.inputs[0].type, n.type),
    pull=lambda n, g, ties: [transpose(g, n.inputs[0].type.names)],
    text=lambda n, args: (f"transpose({args[0]}; {', '.join(n.type.names)})", ATOM),
    view=True, arranges=True, look=True, exact=True, rowwise=True, maps=True, linear=True,
))  # fmt: skip

# --------------------------------------------------------------------------------------- reshape


def reshape_like(x: Node, type: Type) -> Node:
    """The same numbers, row by row, under the dims of another type."""
    return _reshape_to(x, type.dims)


def rename(x: Node, names: Mapping[str, str]) -> Node:
    """Give dims other names; sizes stay."""
    for old in names:
        if old not in x.type.names:
            raise IRError(f"no dim `{old}` in {x.type}")
    dims = tuple(Dim(names.get(d.name, d.name), d.size) for d in x.dims)
    return _reshape_to(x, dims)


def reshape(x: Node, groups: Sequence[Sequence[str]], new: Sequence[Dim]) -> Node:
    """Merge each group of dims into the new dim of the same rank; a group of size-1 dims without one just goes.

    Merged dims must stand together and in this order; :func:`transpose` brings them there.
    """
    out: list[Dim] = []
    position = {g[0]: k for k, g in enumerate(groups)}
    inside = {name for g in groups for name in g}
    for d in x.dims:
        if d.name in position:
            k = position[d.name]
            if k < len(new):
                out.append(new[k])
        elif d.name not in inside:
            out.append(d)
    return _reshape_to(x, tuple(out))


def merge(x: Node, names: Sequence[str], new: str) -> Node:
    """Flatten dims into one named ``new``, in the order given."""
    for name in names:
        if name not in x.type.names:
            raise IRError(f"no dim `{name}` in {x.type}")
    if len(set(names)) != len(names):
        raise IRError("merge names a dim twice")
    first = min(x.type.names.index(n) for n in names)
    kept = [d.name for d in x.dims if d.name not in names]
    before = len([n for n in x.type.names[:first] if n not in names])
    x = transpose(x, [*kept[:before], *names, *kept[before:]])
    return reshape(x, [tuple(names)], [Dim(new, math.prod(x.type.dim(name).size for name in names))])


def split(x: Node, name: str, parts: Sequence[Dim]) -> Node:
    """The inverse of :func:`merge`."""
    dims: list[Dim] = []
    for d in x.dims:
        dims.extend(parts if d.name == name else (d,))
    return _reshape_to(x, tuple(dims))


def _reshape_to(x: Node, dims: tuple[Dim, ...]) -> Node:
    check_dims(dims)
    type = Type(x.domain, dims, x.kind, x.type.bound)
    if type.numel != x.type.numel:
        raise IRError(f"{x.type} has {x.type.numel} numbers a row and {type} has {type.numel}")
    return x if type == x.type else make("reshape", (x,), type)


def _reshape_value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    value = full(args[0], node.inputs[0].type, run)
    return value.reshape((*value.shape[: len(value.shape) - len(node.inputs[0].dims)], *node.type.shape))


define(Op(
    name="reshape", operands=(1, 1), rule=lambda n: reshape_like(n.inputs[0], n.type), value=_reshape_value,
    pull=lambda n, g, ties: [reshape_like(g, n.inputs[0].type)],
    text=lambda n, args: (f"reshape({args[0]}; {', '.join(n.type.names)})", ATOM),
    view=True, arranges=True, look=True, exact=True, rowwise=True, maps=True, linear=True,
))  # fmt: skip

# --------------------------------------------------------------------------------- stop_gradient


def stop_gradient(x: Node) -> Node:
    """The value, as a constant for the derivative."""
    return make("stop_gradient", (x,), x.type)


define(Op(
    name="stop_gradient", operands=(1, 1), rule=lambda n: stop_gradient(n.inputs[0]),
    value=lambda n, args, run: args[0].detach(), pull=no_gradient, exact=True, pointwise=True,
))  # fmt: skip

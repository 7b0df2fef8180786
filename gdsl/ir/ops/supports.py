"""Which edges a sparsemax leaves above 0: what has to be known of all edges of a node, in the order of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from gdsl.ir.attributes import Attrs, need
from gdsl.ir.node import Node, make
from gdsl.ir.ops.edges import END
from gdsl.ir.ops.elementwise import to_float
from gdsl.ir.ops.op import ATOM, Op, Run, define, full, no_gradient
from gdsl.ir.types import Domain, Kind, Type, element_domain

if TYPE_CHECKING:
    from torch import Tensor


class Support(Attrs):
    end: Annotated[str, END]


def support(e: Node, end: str) -> Node:
    """Whether an edge is among those of its node that a sparsemax gives more than 0: Martins and Astudillo 2016.

    With the values in falling order it is the k-th of them if the first k exceed it by less than 1 together. None at
    -inf is; of a node with a value that is NaN or inf, those are that a NaN comes of.
    """
    return make("support", (to_float(e),), Type(e.domain, e.dims, Kind.BOOL), Support(end))


def _rule(node: Node) -> Node:
    x, end = node.inputs[0], node.attrs.end
    need(x.domain is element_domain(end, Domain.NODE), f"{x.type} has no values at the end {end}")
    return support(x, end)


def _value(node: Node, args: Sequence[Tensor], run: Run) -> Tensor:
    import torch

    dims = node.type.numel
    value = full(args[0], node.inputs[0].type, run).reshape(-1, dims)
    if not value.numel():
        return torch.zeros(len(value), *node.type.shape, dtype=torch.bool, device=run.device)
    ends = run.ends(node.attrs.end)
    top = value.new_zeros(int(ends.max()) + 1, dims)
    top = top.scatter_reduce(0, ends[:, None].expand_as(value), value, "amax", include_self=False)
    below = (value - top[ends]).double()
    # What is 1 below the first or more is not in the support, so that few are sorted, and sums are of small numbers.
    (near,) = (below > -1).flatten().nonzero(as_tuple=True)
    row, falling = ends[near // dims] * dims + near % dims, below.flatten()[near]
    order = falling.sort(descending=True, stable=True).indices
    order = order[row[order].sort(stable=True).indices]
    row, falling = row[order], falling[order]
    count = torch.bincount(row, minlength=1)
    first = (count.cumsum(0) - count)[row]
    before = torch.cat([falling.new_zeros(1), falling.cumsum(0)])
    place = torch.arange(1, len(row) + 1, device=run.device)
    excess = before[1:] - before[first] - (place - first) * falling
    # Where the first is NaN or inf, all are, or it is: NaN comes of them.
    inside = (below.isnan() & (value > -torch.inf) | value.isnan()).flatten()
    return inside.index_fill(0, near[order[excess < 1]], True).reshape(-1, *node.type.shape)


define(Op(
    name="support", operands=(1, 1), attrs=Support, rule=_rule, value=_value, pull=no_gradient,
    text=lambda n, args: (f"support@{n.attrs.end}({args[0]})", ATOM), whole=True, aggregates=True,
))  # fmt: skip

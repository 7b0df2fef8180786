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

    value = full(args[0], node.inputs[0].type, run).reshape(run.rows(node.domain), node.type.numel).double()
    ends = run.ends(node.attrs.end)
    if not value.numel():
        return torch.zeros(len(value), *node.type.shape, dtype=torch.bool, device=run.device)
    degree = torch.bincount(ends)
    owner = ends[:, None].expand_as(value)
    top = value.new_zeros(len(degree), value.shape[1]).scatter_reduce(0, owner, value, "amax", include_self=False)
    # What is 1 below the first or more is not in the support: so sums are of small numbers.
    below = (value - top[ends]).clamp(min=-1)
    order = below.sort(dim=0, descending=True, stable=True).indices
    order = order.gather(0, ends[order].sort(dim=0, stable=True).indices)
    row = torch.repeat_interleave(degree)
    first = (degree.cumsum(0) - degree)[row]
    falling = below.gather(0, order).nan_to_num(0.0)
    before = torch.cat([falling.new_zeros(1, value.shape[1]), falling.cumsum(0)])
    place = torch.arange(1, len(row) + 1, device=run.device)
    excess = before[1:] - before[first] - (place - first)[:, None] * falling
    inside = torch.empty_like(value, dtype=torch.bool).scatter_(0, order, excess < 1)
    return ((inside | below.isnan()) & (value > -torch.inf) | value.isnan()).reshape(-1, *node.type.shape)


define(Op(
    name="support", operands=(1, 1), attrs=Support, rule=_rule, value=_value, pull=no_gradient,
    text=lambda n, args: (f"support@{n.attrs.end}({args[0]})", ATOM), whole=True, aggregates=True,
))  # fmt: skip

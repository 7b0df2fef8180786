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


ROWS = {"i": Domain.TARGET, "j": Domain.SOURCE, "g": Domain.GRAPH}


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

    end, dims = node.attrs.end, node.type.numel
    ends, rows = run.ends(end), run.rows(ROWS[end])
    value = full(args[0], node.inputs[0].type, run).reshape(len(ends), dims)
    top = value.new_zeros(rows, dims)
    top = top.scatter_reduce(0, ends[:, None].expand_as(value), value, "amax", include_self=False)
    below = (value - top[ends]).double()  # sums of small numbers
    near = _near(below.flatten())
    row, falling = ends[near // max(dims, 1)] * dims + near % max(dims, 1), below.flatten()[near]
    falling = falling.clamp(min=-1).nan_to_num(0.0)
    order = falling.sort(descending=True, stable=True).indices
    order = order[row[order].sort(stable=True).indices]
    row, falling = row[order], falling[order]
    count = row.new_zeros(rows * dims).index_add(0, row, torch.ones_like(row))
    first = (count.cumsum(0) - count)[row]
    before = torch.cat([falling.new_zeros(1), falling.cumsum(0)])
    place = torch.arange(1, len(row) + 1, device=run.device)
    excess = before[1:] - before[first] - (place - first) * falling
    found = torch.zeros(value.numel(), dtype=torch.bool, device=run.device).index_copy(0, near[order], excess < 1)
    # A first that is NaN or inf makes NaN of all, or of itself.
    return ((found.view_as(below) | below.isnan()) & (value != -torch.inf)).reshape(-1, *node.type.shape)


def _near(below: Tensor) -> Tensor:
    """What may be in the support: less than 1 below the first. A GPU takes all, since it would wait to count them."""
    import torch

    return torch.arange(len(below), device=below.device) if below.is_cuda else (below > -1).nonzero().squeeze(1)


define(Op(
    name="support", operands=(1, 1), attrs=Support, rule=_rule, value=_value, pull=no_gradient,
    text=lambda n, args: (f"support@{n.attrs.end}({args[0]})", ATOM), whole=True, aggregates=True,
))  # fmt: skip

"""A layer whose nodes attend to all that they were in the layers before."""

from __future__ import annotations

import math

from torch import Tensor

from gdsl.nn.conv.inputs import Adjacency, parameter
from gdsl.nn.conv.programmed import InitVar, Weighted
from gdsl.nn.declared import Module, declared, redraw
from gdsl.nn.inits import kaiming_uniform, uniform
from gdsl.runtime.tracers import check_proxy


@declared(shows="groups")
class GroupedLinear(Module):
    """A linear map of each of some groups of features, [groups, in_channels / groups, out_channels / groups].

    Raises AssertionError for sizes that are no multiples of ``groups``.
    """

    in_channels: int
    out_channels: int
    groups: int = 1
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        i, o, groups = self.in_channels, self.out_channels, self.groups
        assert i % groups == 0 and o % groups == 0, "sizes are multiples of 'groups'"
        self.weight = parameter(groups, i // groups, o // groups)
        self.bias = parameter(o) if self.bias else None

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        kaiming_uniform(self.weight, fan=self.weight.size(1), a=math.sqrt(5))
        uniform(self.weight.size(1), self.bias)

    def forward(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias, for a program. They come from a call, so that hooks are called: pruning computes in one."""
        return self.weight, self.bias


@declared(shows="heads groups dropout bias")
class MultiHead(Module):
    """The parameters of :class:`DNAConv`: maps to queries, keys and values.

    Raises AssertionError for sizes that are no multiples of ``heads`` and ``groups``, and where the larger of the two
    is no multiple of the other.
    """

    in_channels: int
    out_channels: int
    heads: int
    groups: int
    dropout: float
    bias: bool

    def _setup(self) -> None:
        sizes, heads, groups = (self.in_channels, self.out_channels), self.heads, self.groups
        assert all(size % heads == 0 for size in sizes), "sizes are multiples of 'heads'"
        assert all(size % groups == 0 for size in sizes), "sizes are multiples of 'groups'"
        assert max(groups, heads) % min(groups, heads) == 0, "'heads' and 'groups' divide one another"
        self.lin_q = GroupedLinear(*sizes, groups, self.bias)
        self.lin_k = GroupedLinear(*sizes, groups, self.bias)
        self.lin_v = GroupedLinear(*sizes, groups, self.bias)

    reset_parameters = redraw


class DNAConv(Weighted, program="dna", parts=False, fixed="node_dim=0"):
    """Each node's last layer attends to all layers so far of each neighbour, with the weights of GCN on the edges.

    Fey, "Just Jump: Dynamic Neighborhood Aggregation in Graph Neural Networks", 2019, equations 2 to 4.

    channels:       size of inputs and outputs
    heads:          number of heads
    groups:         number of groups of features that the linear maps keep apart
    dropout:        of the attention, in training
    cached:         keep the graph and weights of the first call for all others
    normalize:      whether to divide by the degrees
    add_self_loops: whether to add them, where the layer normalises
    bias:           whether the linear maps have one
    **kwargs:       of :class:`Conv`

    Raises AssertionError for channels that are no multiple of ``heads`` and ``groups``.
    """

    channels: InitVar[int]
    heads: InitVar[int] = 1
    groups: InitVar[int] = 1
    dropout: InitVar[float] = 0.0
    cached: bool = False
    normalize: bool = True
    add_self_loops: bool = True
    bias: bool = True

    def _setup(self) -> None:
        self.multi_head = MultiHead(self.channels, self.channels, self.heads, self.groups, self.dropout, self.bias)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        self.multi_head.reset_parameters()

    def forward(self, x: Tensor, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[N, layers, channels] and weights [E] to [N, channels].

        Raises ValueError for features of another shape.
        """
        check_proxy(x)
        if x.dim() != 3:
            raise ValueError("Feature shape must be [num_nodes, num_layers, channels].")
        graph, weight = self._weights(x[:, 0], edge_index, edge_weight)
        parts = self.multi_head
        inside = {
            f"{role}_{name}": value
            for role, lin in (("q", parts.lin_q), ("k", parts.lin_k), ("v", parts.lin_v))
            for name, value in zip(("weight", "bias"), lin(), strict=True)
        }
        y: Tensor = self.run_with(
            inside,
            graph,
            {"x": x, "w": weight},
            channels=parts.in_channels,
            heads=parts.heads,
            size=parts.in_channels // parts.heads,
            groups=parts.groups,
            width=parts.in_channels // parts.groups,
            p=float(parts.dropout),
            normalize=self.normalize,
            loops=self.add_self_loops,
            with_bias=self.bias,
        )
        return y

    def __repr__(self) -> str:
        parts = self.multi_head
        return f"{type(self).__name__}({parts.in_channels}, heads={parts.heads}, groups={parts.groups})"

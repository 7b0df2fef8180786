"""Layers with attention over the edges into a node."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gdsl.module.repeated import repeatable
from gdsl.nn.conv.base import Adjacency, Channels, Conv, Features, Result, Size, edge_features, parameter, see
from gdsl.nn.inits import glorot, zeros
from gdsl.nn.linear import Linear
from gdsl.runtime.tracers import check_proxy


class GATConv(Conv):
    """Each node's weights on its neighbours are a softmax of scores. Velickovic et al., ICLR 2018, equations 3 to 6.

    in_channels:    size of the inputs, or of those of sources and targets; -1 takes it from the first call
    out_channels:   size of the outputs of each head
    heads:          number of heads
    concat:         whether the heads are joined, or averaged
    negative_slope: of the leaky relu on the scores
    dropout:        of the weights, in training
    add_self_loops: whether to add them
    edge_dim:       size of the edge features, if there are any
    fill_value:     edge features of self-loops: a number, or the name of an aggregation of the edges into the node
    bias:           whether to add one
    residual:       whether to add a linear map of the target's features
    **kwargs:       of :class:`Conv`
    """

    program_name = "gat"

    def __init__(
        self,
        in_channels: Channels,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: float | str = "mean",
        bias: bool = True,
        residual: bool = False,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(node_dim=0, **kwargs)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.dropout = dropout
        self.add_self_loops = add_self_loops
        self.edge_dim = edge_dim
        self.fill_value = fill_value
        self.residual = residual

        def linear(size: int, to: int = heads * out_channels) -> Linear:
            return Linear(size, to, bias=False, weight_initializer="glorot")

        self.lin = self.lin_src = self.lin_dst = self.lin_edge = self.res = None
        if isinstance(in_channels, int):
            self.lin = linear(in_channels)
        else:
            self.lin_src, self.lin_dst = linear(in_channels[0]), linear(in_channels[1])
        self.att_src = parameter(1, heads, out_channels)
        self.att_dst = parameter(1, heads, out_channels)
        self.att_edge = None
        if edge_dim is not None:
            self.lin_edge = linear(edge_dim)
            self.att_edge = parameter(1, heads, out_channels)
        total = out_channels * (heads if concat else 1)
        if residual:
            self.res = linear(in_channels if isinstance(in_channels, int) else in_channels[1], total)
        self.bias = parameter(total) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for lin in (self.lin, self.lin_src, self.lin_dst, self.lin_edge, self.res):
            if lin is not None:
                lin.reset_parameters()
        glorot(self.att_src)
        glorot(self.att_dst)
        glorot(self.att_edge)
        zeros(self.bias)

    @repeatable
    def forward(
        self,
        x: Features,
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        size: Size = None,
        return_attention_weights: bool | None = None,
    ) -> Result:
        """[N, in_channels], or a pair of sources and targets (or None), to [N, heads * out_channels].

        edge_attr: [E, edge_dim]
        return_attention_weights: anything but None asks for ``(result, (edge_index, weights))`` with the weights
                   [E', heads] on the edges with self-loops
        """
        check_proxy(x)
        bipartite = not isinstance(x, Tensor)
        source, target = (x, x) if isinstance(x, Tensor) else x
        assert source.dim() == 2, f"Static graphs not supported in '{type(self).__name__}'"
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target), size)
        edge_attr = edge_features(edge_attr, values, edge_index)
        for lin, value in (
            (self.lin, source),
            (self.lin_src, source),
            (self.lin_dst, target),
            (self.lin_edge, edge_attr),
            (self.res, target),
        ):
            if lin is not None and value is not None:
                see((lin, value))
        y, alpha = self.run(
            graph,
            {"x": source, "z": target, "e": edge_attr if self.edge_dim is not None else None},
            out_channels=self.out_channels,
            heads=self.heads,
            bipartite=bipartite,
            concat=self.concat,
            slope=float(self.negative_slope),
            p=float(self.dropout),
            loops=self.add_self_loops,
            fill=self.fill_value,
            with_bias=self.bias is not None,
        )
        if return_attention_weights is None:
            return y
        return y, self.attended(edge_index, graph, alpha, self.add_self_loops)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"

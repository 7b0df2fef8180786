"""Layers with attention over the edges into a node."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gdsl.module.repeated import repeatable
from gdsl.nn.conv.inputs import Adjacency, Channels, Features, Result, Size, edge_features
from gdsl.nn.conv.programmed import InitVar, Summed
from gdsl.runtime.tracers import check_proxy


class GATConv(Summed, program="gat", fixed="node_dim=0", shows="heads"):
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

    in_channels: Channels
    out_channels: int
    heads: int = 1
    concat: bool = True
    negative_slope: float = 0.2
    dropout: float = 0.0
    add_self_loops: bool = True
    edge_dim: int | None = None
    fill_value: float | str = "mean"
    bias: InitVar[bool] = True
    residual: bool = False

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        one, edges = isinstance(self.in_channels, int), self.edge_dim is not None
        return {
            "lin": one, "lin_src": not one, "lin_dst": not one, "lin_edge": edges, "att_edge": edges,
            "res": self.residual,
        }  # fmt: skip

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
        return_attention_weights: True asks for ``(result, (edge_index, weights))`` with the weights [E', heads] on the
                   edges with self-loops
        """
        check_proxy(x)
        source, target = (x, x) if isinstance(x, Tensor) else x
        assert source.dim() == 2, f"Static graphs not supported in '{type(self).__name__}'"
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target), size)
        edge_attr = None if self.edge_dim is None else edge_features(edge_attr, values, edge_index)
        inputs = {"x": source, "z": target, "e": edge_attr}
        asked = bool(return_attention_weights)
        found = self._compute(graph, inputs, bipartite=not isinstance(x, Tensor), attended=asked)
        return self._answer(found, asked, edge_index, graph, self.add_self_loops)

"""A layer on hypergraphs: its edges are the incidences of nodes and hyperedges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gdsl.errors import GraphError
from gdsl.nn.conv.inputs import parameter
from gdsl.nn.conv.programmed import InitVar, Summed
from gdsl.nn.grouped import count_in
from gdsl.runtime.tracers import check_proxy


class HypergraphConv(Summed, program="hypergraph", fixed='flow="source_to_target", node_dim=0'):
    """X' = D^-1 H W B^-1 H^T X Theta for the incidence matrix H of nodes and hyperedges.

    Bai et al., "Hypergraph Convolution and Hypergraph Attention", 2019, equations 7 and 14.

    in_channels:    size of the inputs; -1 takes it from the first call
    out_channels:   size of the outputs of each head
    use_attention:  whether H has learned weights, from the features of nodes and hyperedges
    attention_mode: "node": weights of the nodes of a hyperedge add up to 1; "edge": those of the hyperedges of a node
    heads, concat, negative_slope, dropout: of the attention, as in :class:`GATv2Conv`
    bias:           whether to add one
    **kwargs:       of :class:`Conv`, without ``flow``

    Raises AssertionError for another mode.
    """

    in_channels: int
    out_channels: int
    use_attention: bool = False
    attention_mode: str = "node"
    heads: int = 1
    concat: bool = True
    negative_slope: float = 0.2
    dropout: float = 0
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        assert self.attention_mode in ("node", "edge"), f"there is no mode '{self.attention_mode}'"

    def _make(self) -> set[str]:
        total = self.out_channels * (self.heads if self.concat else 1)
        self.heads = self.heads if self.use_attention else 1
        self.concat = self.concat or not self.use_attention
        made = super()._make()
        if self.bias is not None:  # as torch_geometric has it, for all heads, also without attention
            self.bias = parameter(total)
        return made

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"attention": self._attention()}

    def _attention(self) -> str:
        return self.attention_mode if self.use_attention else "none"

    def forward(
        self,
        x: Tensor,
        hyperedge_index: Tensor,
        hyperedge_weight: Tensor | None = None,
        hyperedge_attr: Tensor | None = None,
        num_edges: int | None = None,
    ) -> Tensor:
        """[N, in_channels] to [N, heads * out_channels].

        hyperedge_index:  [2, I] nodes, and a hyperedge that each of them is in
        hyperedge_weight: [M]
        hyperedge_attr:   [M, in_channels], for the attention
        num_edges:        the number M of hyperedges; without it the largest index plus one

        Raises AssertionError for attention without ``hyperedge_attr``, and :class:`gdsl.GraphError` for a graph, which
        is between nodes.
        """
        check_proxy(x)
        if not isinstance(hyperedge_index, Tensor) or hyperedge_index.layout is not torch.strided:
            kind = "sparse tensor" if isinstance(hyperedge_index, Tensor) else type(hyperedge_index).__name__
            raise GraphError(
                f"'hyperedge_index' must be an integer tensor [2, I] of nodes and of the hyperedges that they are in, "
                f"not a {kind}"
            )
        assert hyperedge_attr is not None or not self.use_attention, "attention needs 'hyperedge_attr'"
        given = [len(t) for t in (hyperedge_weight, hyperedge_attr) if t is not None]
        if num_edges is None:
            num_edges = count_in(hyperedge_index[1])
        # Hyperedges without nodes change nothing, so that there may be more weights than hyperedges.
        graph, _ = self.graph(hyperedge_index, len(x), max([num_edges, *given]))
        inputs = {"x": x, "w": hyperedge_weight, "f": hyperedge_attr}
        return self._compute(graph, inputs, attention=self._attention())

"""A U-Net on graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.module.meeting import check_own_rows, excused, meeting, must_meet
from gdsl.nn.activations import activation
from gdsl.nn.conv.gcn import GCNConv
from gdsl.nn.declared import InitVar, Module, declared, redraw
from gdsl.nn.pool import TopKPooling
from gdsl.nn.sparse import coalesce, product, refuse_graph
from gdsl.runtime.everywhere import two_steps
from gdsl.runtime.local import LocalGraph


@declared
class GraphUNet(Module):
    """Layers :class:`GCNConv` between poolings, and back. Gao and Ji, "Graph U-Nets", ICML 2019, sections 3.3 and 3.4.

    in_channels, hidden_channels, out_channels: sizes
    depth:       number of poolings, :class:`TopKPooling`
    pool_ratios: the part of the nodes that each keeps, or one for all
    sum_res:     whether features from the way down are added on the way up, and not joined
    act:         the name of a class of torch.nn, or a function

    Raises AssertionError for a depth below 1.
    """

    in_channels: int
    hidden_channels: int
    out_channels: int
    depth: int
    pool_ratios: InitVar[float | list[float]] = 0.5
    sum_res: bool = True
    act: InitVar[str | Callable[[Tensor], Tensor]] = "relu"

    reset_parameters = redraw

    def _setup(self) -> None:
        assert self.depth >= 1, f"a U-Net has a depth of at least 1, not {self.depth}"
        # The last ratio of a list that is too short stands for all others.
        ratios = [*self.pool_ratios] if isinstance(self.pool_ratios, list | tuple) else [self.pool_ratios]
        self.pool_ratios = (ratios + ratios[-1:] * self.depth)[: self.depth]
        self.act: Any = activation(self.act)
        self.down_convs = nn.ModuleList([GCNConv(self.in_channels, self.hidden_channels, improved=True)])
        self.pools = nn.ModuleList()
        for ratio in self.pool_ratios:
            self.pools.append(TopKPooling(self.hidden_channels, ratio))
            self.down_convs.append(GCNConv(self.hidden_channels, self.hidden_channels, improved=True))
        met = self.hidden_channels if self.sum_res else 2 * self.hidden_channels
        sizes = [self.hidden_channels] * (self.depth - 1) + [self.out_channels]
        self.up_convs = nn.ModuleList(GCNConv(met, size, improved=True) for size in sizes)

    @excused
    def forward(
        self, x: Tensor, edge_index: Any, batch: Tensor | None = None, edge_weight: Tensor | None = None
    ) -> Tensor:
        """[N, in_channels] to [N, out_channels].

        batch:       [N] the graph of each node
        edge_weight: [E]; ones without it

        Raises AssertionError for weights of another shape.
        """
        if must_meet(self, edge_index):
            check_own_rows("edge_weight", edge_weight, edge_index.num_edges, "edges")
            with meeting(self, edge_index, x, batch, edge_weight=edge_weight):
                return self.forward(x, edge_index, batch, edge_weight)
        part = isinstance(edge_index, LocalGraph)
        if not part:
            refuse_graph(self, edge_index)
        batch = torch.zeros(x.size(0), dtype=torch.long, device=edge_index.device) if batch is None else batch
        edges = edge_index.num_edges if part else edge_index.size(1)
        weight = x.new_ones(edges) if edge_weight is None else edge_weight
        assert weight.shape == (edges,), f"weights have shape [E], not {list(weight.shape)}"
        x = self.act(self.down_convs[0](x, edge_index, weight))
        levels = []
        for pool, conv in zip(self.pools, self.down_convs[1:], strict=True):
            before = (x, edge_index, weight)
            edge_index, weight = self.augment_adj(edge_index, weight, x.size(0))
            x, edge_index, weight, batch, nodes, _ = pool(x, edge_index, weight, batch)
            x = self.act(conv(x, edge_index, weight))
            levels.append((*before, nodes))
        for k, conv in enumerate(self.up_convs):
            kept, edge_index, weight, nodes = levels.pop()
            up = torch.zeros_like(kept).index_put((nodes,), x)
            x = conv(kept + up if self.sum_res else torch.cat([kept, up], dim=-1), edge_index, weight)
            x = self.act(x) if k < self.depth - 1 else x
        return x

    def augment_adj(self, edge_index: Any, edge_weight: Tensor, num_nodes: int) -> tuple[Any, Tensor]:
        """Edges between nodes that are at most two steps apart, (A + I)² without the loops, with its values."""
        if isinstance(edge_index, LocalGraph):
            return two_steps(edge_index, edge_weight)
        loops = torch.arange(num_nodes, device=edge_index.device).expand(2, -1)
        kept = edge_index[0] != edge_index[1]
        edges = torch.cat([edge_index[:, kept], loops], dim=1)
        edges, values = coalesce(edges, torch.cat([edge_weight[kept], edge_weight.new_ones(num_nodes)]), num_nodes)
        edges, values = product(edges, values, edges, values, num_nodes)
        kept = edges[0] != edges[1]
        return edges[:, kept], values[kept]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.hidden_channels}, {self.out_channels}, "
            f"depth={self.depth}, pool_ratios={self.pool_ratios})"
        )

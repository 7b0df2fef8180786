"""A layer on all paths of up to so many steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gdsl.nn.conv.base import Adjacency, Conv, parameter, see
from gdsl.nn.linear import Linear
from gdsl.nn.sparse import coalesce, product
from gdsl.runtime.graph import Graph


class PANConv(Conv):
    """X' = M X W with M = Z^-1/2 sum_n w_0 ... w_n A^n Z^-1/2. Ma et al., NeurIPS 2020.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    filter_size: the largest number of steps
    **kwargs:    of :class:`Conv`

    Raises ValueError for another aggregation than "add". Z counts the nodes within so many steps, a number of the
    pattern without a derivative: it is found in torch, as is M, which comes with the result, a sparse matrix of torch
    where torch_geometric gives one of torch_sparse.
    """

    program_name = "pan"

    def __init__(self, in_channels: int, out_channels: int, filter_size: int, **kwargs: Any):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        if self.aggr not in ("add", "sum"):
            raise ValueError(f"PANConv sums over paths, and has no aggregation '{self.aggr}'")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.filter_size = filter_size
        self.lin = Linear(in_channels, out_channels)
        self.weight = parameter(filter_size + 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the linear map anew, and set the weights to 0.5."""
        super().reset_parameters()
        self.lin.reset_parameters()
        torch.nn.init.constant_(self.weight, 0.5)

    def forward(self, x: Tensor, edge_index: Adjacency) -> tuple[Tensor, Tensor]:
        """[N, in_channels] to [N, out_channels], and M, a sparse matrix [N, N] whose rows are targets.

        Raises ValueError for messages against the edges.
        """
        if self.flow == "target_to_source":
            raise ValueError("PANConv sends messages along the edges; pass in the transposed graph")
        graph, _ = self.square(x, edge_index)
        see((self.lin, x))
        places, worth = self.transition(graph, x.dtype)
        reach = torch.bincount(places[0], minlength=graph.num_nodes).to(x.dtype)
        y: Tensor = self.run(
            graph, {"x": x, "reach": reach}, out_channels=self.out_channels, filter_size=self.filter_size
        )
        scale, shape = reach.rsqrt(), (graph.num_nodes, graph.num_nodes)
        values = scale[places[0]] * worth * scale[places[1]]
        return y, torch.sparse_coo_tensor(places, values, shape, is_coalesced=True, check_invariants=False)

    def transition(self, graph: Graph, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """sum_n w_0 ... w_n A^n: every place that a path leads to, and its value."""
        nodes = graph.num_nodes
        ones = torch.ones(graph.num_edges, device=graph.device)
        step, counts = coalesce(graph.edge_index.flip(0), ones, nodes)
        power, paths = torch.arange(nodes, device=graph.device).repeat(2, 1), ones.new_ones(nodes)
        places, values = [power], [paths]
        for _ in range(self.filter_size):
            power, paths = product(power, paths, step, counts, nodes)
            places.append(power)
            values.append(paths)
        worth = self.weight.to(dtype).cumprod(0)
        each = [w * paths.to(dtype) for w, paths in zip(worth, values, strict=True)]
        return coalesce(torch.cat(places, dim=1), torch.cat(each), nodes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, filter_size={self.filter_size})"

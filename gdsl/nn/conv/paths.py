"""A layer on all paths of up to so many steps."""

from __future__ import annotations

import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.nn.conv.inputs import Adjacency
from gdsl.nn.conv.programmed import Summed
from gdsl.nn.sparse import coalesce, product, refuse_part
from gdsl.runtime.graph import Graph


class PANConv(Summed, program="pan", shows="filter_size"):
    """X' = M X W with M = Z^-1/2 sum_n w_0 ... w_n A^n Z^-1/2. Ma et al., NeurIPS 2020.

    in_channels, out_channels: sizes; -1 takes the first from the first call
    filter_size: the largest number of steps
    **kwargs:    of :class:`Conv`

    Raises ValueError for another aggregation than "add". Z counts the nodes within so many steps, a number of the
    pattern without a derivative: it is found in torch, as is M, which comes with the result, a sparse matrix of torch
    where torch_geometric gives one of torch_sparse. As there, the messages that masks and hooks meet are those of M.
    """

    in_channels: int
    out_channels: int
    filter_size: int

    def _setup(self) -> None:
        if self.aggr not in ("add", "sum"):
            raise ValueError(f"PANConv sums over paths, and has no aggregation '{self.aggr}'")

    def forward(self, x: Tensor, edge_index: Adjacency) -> tuple[Tensor, Tensor]:
        """[N, in_channels] to [N, out_channels], and M, a sparse matrix [N, N] whose rows are targets.

        Raises ValueError for messages against the edges, and for a mask of another number than M's entries.
        """
        if self.flow == "target_to_source":
            raise ValueError("PANConv sends messages along the edges; pass in the transposed graph")
        refuse_part(self, edge_index)
        graph, _ = self.square(x, edge_index)
        places, worth = self.transition(graph, x.dtype)
        reach = torch.bincount(places[0], minlength=graph.num_nodes).to(x.dtype)
        scale, shape = reach.rsqrt(), (graph.num_nodes, graph.num_nodes)
        values = scale[places[0]] * worth * scale[places[1]]
        if self._watched and self._is_watched():
            y: Tensor = self._compute(self._entries(graph, places), {"x": x, "w": values}, entries=True)
        else:
            y = self._compute(graph, {"x": x, "reach": reach})
        return y, torch.sparse_coo_tensor(places, values, shape, is_coalesced=True, check_invariants=False)

    def _entries(self, graph: Graph, places: Tensor) -> Graph:
        """The graph whose edges are the entries of M, which a mask has a number for each of."""
        found = Graph(places.flip(0), graph.num_nodes)
        if self._explaining and graph.num_edges == found.num_edges and not graph.edge_index.equal(found.edge_index):
            raise InputError(
                f"a mask of {graph.num_edges} numbers may be of the edges or of the entries of M, which are as many: "
                "give PANConv the edges in the order of M, or set `explain = False` on it to leave it out"
            )
        return found

    def _mask_of(self, mask: Tensor, edges: int, dim_size: int | None) -> Tensor:
        return mask  # M has all loops

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

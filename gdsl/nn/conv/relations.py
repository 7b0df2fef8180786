"""Layers on edges of several kinds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.conv.base import Programmed
from gdsl.nn.conv.inputs import Adjacency, Channels, Features, edge_types, pair_of
from gdsl.nn.conv.programmed import Declared, InitVar
from gdsl.nn.inits import reset
from gdsl.nn.linear import Linear
from gdsl.runtime.graph import Graph
from gdsl.runtime.local import LocalGraph, read_by_edges

# The aggregations that the language has by relation.
BY_RELATION = {"add": "sum", "sum": "sum", "mean": "mean", "max": "max", "min": "min"}


def by_relation(aggr: Any) -> str:
    """The reducer of an aggregation by relation. Raises ValueError for one that there is not."""
    if not isinstance(aggr, str) or aggr not in BY_RELATION:
        raise ValueError(f"'{aggr}' is no aggregation by relation; there are {', '.join(BY_RELATION)}")
    return BY_RELATION[aggr]


class _ByRelation(Programmed):
    """Values of edges, aggregated for each relation and added."""

    program_name = "rgcn_lookup"

    def forward(self, messages: Tensor, graph: Graph, relation: Tensor, num_relations: int, how: str) -> Tensor:
        """[E, channels] and relations [E] to [N, channels]."""
        bipartite = graph.is_bipartite
        inputs = {"m": messages, "rel": relation, "t": messages.new_zeros(graph.num_targets) if bipartite else None}
        return self.run(graph, inputs, num_relations=num_relations, how=how, bipartite=bipartite)


class RGCNConv(Declared, program="rgcn", fixed="node_dim=0", shows="num_relations"):
    """W_0 x_i + sum_r W_r mean_{j of r} x_j. Schlichtkrull et al., ESWC 2018, equations 2 to 4.

    in_channels:   size of the inputs, or of those of sources and targets; the number of nodes where they have none
    out_channels:  size of the outputs
    num_relations: number of kinds of edges
    num_bases:     makes each weight a mix of so many
    num_blocks:    makes each weight block-diagonal
    aggr:          of the edges of one relation: "mean", "add", "max" or "min"
    root_weight:   whether to add the node's own features
    is_sorted:     accepted for torch_geometric's sake
    bias:          whether to add one
    **kwargs:      of :class:`Conv`

    Raises ValueError for bases and blocks at once, and for another aggregation. Where nodes have numbers and no
    features, an edge's row of the weights is looked up in torch.
    """

    in_channels: Channels
    out_channels: int
    num_relations: int
    num_bases: int | None = None
    num_blocks: int | None = None
    aggr: str = "mean"
    root_weight: InitVar[bool] = True
    is_sorted: bool = False
    bias: InitVar[bool] = True

    def _setup(self) -> None:
        if self.num_bases is not None and self.num_blocks is not None:
            raise ValueError(
                "Can not apply both basis-decomposition and block-diagonal-decomposition at the same time."
            )
        self.comp = None
        self.how = by_relation(self.aggr)
        self.lookup = _ByRelation(backend=self.backend)
        self.in_channels_l, _ = pair_of(self.in_channels)
        for size, what in ((self.in_channels_l, "input"), (self.out_channels, "output")):
            of_blocks = self.num_blocks is None or size % self.num_blocks == 0
            assert of_blocks, f"{size} {what} channels are no multiple of 'num_blocks'"

    def _sizes(self, given: dict[str, Any]) -> dict[str, Any]:
        blocks, root = self.num_blocks or 1, given.get("root_weight", False)
        sizes = {"in_block": self.in_channels_l // blocks, "out_block": self.out_channels // blocks}
        return {**sizes, "root": root}

    def forward(
        self, x: Tensor | tuple[Tensor | None, Tensor] | None, edge_index: Adjacency, edge_type: Tensor | None = None
    ) -> Tensor:
        """Features [N, in_channels], numbers [N] of nodes, or None for all in order, or a pair, to [N, out_channels].

        edge_type: [E] the relation of each edge

        Raises AssertionError without relations, ValueError for blocks of nodes without features.
        """
        sizes = pair_of(self.in_channels)
        source = x[0] if isinstance(x, tuple) else x
        if source is None:
            source = torch.arange(self.in_channels_l, device=self.weight.device)
            if isinstance(edge_index, LocalGraph):
                edge_index.need_nodes(self.in_channels_l)
                source = edge_index.halo.own_ids
        target = x[1] if isinstance(x, tuple) else source
        graph, values = self.graph(edge_index, source.shape[0], target.shape[0])
        relation = edge_types(edge_type, values)
        assert relation is not None, "the edges need types: 'edge_type', or the values of a sparse matrix"
        if not source.is_floating_point() or not target.is_floating_point():
            if not (self._watched and self._is_watched()):
                return self._look_up(source, target, graph, relation)
            source, target = (self._as_features(x, c) for x, c in zip((source, target), sizes, strict=True))
        blocks = self.num_blocks or 1
        return self._compute(
            graph,
            {"x": source, "z": target, "rel": relation},
            in_target=sizes[1],
            in_block=self.in_channels_l // blocks,
            out_block=self.out_channels // blocks,
            how=self.how,
            bipartite=isinstance(x, tuple),
        )

    def _as_features(self, numbers: Tensor, size: int) -> Tensor:
        """The features of which a linear map looks the rows of its weight up."""
        if numbers.is_floating_point():
            return numbers
        return torch.nn.functional.one_hot(numbers, size).to(self.weight.dtype)

    def _look_up(self, source: Tensor, target: Tensor, graph: Graph, relation: Tensor) -> Tensor:
        """For nodes that are numbers."""
        if self.num_blocks is not None:
            raise ValueError("Block-diagonal decomposition not supported for non-continuous input features.")
        weight: Tensor = self.weight
        if self.comp is not None:
            weight = torch.einsum("rb,bio->rio", self.comp, weight)
        messages = weight[relation, read_by_edges(graph, source)[graph.local_edge_index[0]]]
        y: Tensor = self.lookup(messages, graph, relation, self.num_relations, self.how)
        if self.root is not None:
            y = y + (target @ self.root if target.is_floating_point() else self.root[target])
        return y if self.bias is None else y + self.bias


class FastRGCNConv(RGCNConv):
    """:class:`RGCNConv`, which is fast already. Arguments as there.

    Raises AssertionError for an aggregation other than a sum or a mean.
    """

    def forward(
        self, x: Tensor | tuple[Tensor | None, Tensor] | None, edge_index: Adjacency, edge_type: Tensor | None = None
    ) -> Tensor:
        """As in :class:`RGCNConv`."""
        assert self.aggr in ("add", "sum", "mean"), (
            f"'{type(self).__name__}' sums or averages, and does not {self.aggr}"
        )
        return super().forward(x, edge_index, edge_type)


class FiLMConv(Declared, program="film", parts=False, shows="num_relations"):
    """Each relation's messages, scaled and shifted by what they come to. Brockschmidt, ICML 2020, equation 5.

    in_channels, out_channels: sizes, or a pair for the first; -1 takes it from the first call
    num_relations: number of kinds of edges
    nn:            a module, [N, in_channels] to [N, 2 * out_channels]: shift and scale; a linear map by default
    act:           the function of the messages: a module, a function, or None
    aggr:          of the edges of one relation; with several, "mean", "add", "max" or "min"
    **kwargs:      of :class:`Conv`

    Raises ValueError for another aggregation by relation.
    """

    in_channels: Channels
    out_channels: int
    num_relations: int = 1
    nn: InitVar[nn.Module | None] = None
    act: Callable[[Tensor], Tensor] | None = torch.nn.ReLU()
    aggr: Any = "mean"

    def _setup(self) -> None:
        sources, targets = pair_of(self.in_channels)
        self.lins, self.films = torch.nn.ModuleList(), torch.nn.ModuleList()

        def film(bias: bool) -> torch.nn.Module:
            return Linear(targets, 2 * self.out_channels, bias=bias) if self.nn is None else copy.deepcopy(self.nn)

        for _ in range(self.num_relations):
            self.lins.append(Linear(sources, self.out_channels, bias=False))
            self.films.append(film(True))
        self.num_relations = max(self.num_relations, 1)
        self.how = by_relation(self.aggr) if self.num_relations > 1 else ""
        self.lin_skip = Linear(targets, self.out_channels, bias=False)
        self.film_skip = film(False)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        super().reset_parameters()
        for pair in zip((*self.lins, self.lin_skip), (*self.films, self.film_skip), strict=True):
            for module in pair:
                reset(module)

    def forward(self, x: Features, edge_index: Adjacency, edge_type: Tensor | None = None) -> Tensor:
        """[N, in_channels], or a pair of sources and targets, and relations [E], to [N, out_channels].

        Raises AssertionError where there are several relations and none is given.
        """
        source, target, bipartite, graph, values = self._between(x, edge_index)
        several = self.num_relations > 1
        relation = edge_types(edge_type, values) if several else None
        if several:
            assert relation is not None, "the edges need types: 'edge_type', or the values of a sparse matrix"
        inputs = {"x": source, "z": target, "rel": relation}
        return self._compute(graph, inputs, how=self.how, bipartite=bipartite)

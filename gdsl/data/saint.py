"""Batches of nodes that are drawn by chance, with all edges between them. As torch_geometric's ``GraphSAINT``.

Zeng, Zhou, Srivastava, Kannan, Prasanna: GraphSAINT: Graph Sampling Based Inductive Learning Method, ICLR 2020.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.batch import Batch
from gdsl.data.epochs import ahead, mixed
from gdsl.data.neighbors import Subgraphs
from gdsl.data.sampler import walks
from gdsl.data.stored import stored
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU

# What a node and an edge count for that no sample met, and the most that an edge counts for, as in torch_geometric.
NEVER, MOST = 0.1, 1e4


class GraphSAINTSampler(Subgraphs):
    """What the samplers below share: each batch has the nodes that were drawn, and all edges between them.

    data:       a torch_geometric ``Data``, or a ``NodeData``
    batch_size: how many draws make a batch; its nodes are fewer where some come twice
    num_steps:  batches of an epoch
    sample_coverage: how often, on average, a node is drawn to count how often nodes and edges come; 0 for no norms
    save_dir:   a folder where the norms are kept for the next run

    Batches have ``n_id`` and ``e_id``, the numbers of their nodes and edges, which come sorted by target, and with
    ``sample_coverage``, of n samples of which C held a node or an edge:

    node_norm  n / (C(v) N): a sum of losses weighted by it has the mean over all nodes for its expectation
    edge_norm  C(v) / C(u, v), v the target, as the paper has it: a sum of messages weighted by it has the sum over all
               edges into v. torch_geometric 2.8 takes C(u)

    ``log`` is not needed, and taken for the sake of programs that have it. The others are those of
    :class:`gdsl.data.epochs.Epochs`; a seed gives the same batches and norms for any number of threads.

    Raises ``InputError`` and ``GraphError`` before anything is sampled.
    """

    def __init__(
        self,
        data: Any,
        batch_size: int,
        num_steps: int = 1,
        sample_coverage: int = 0,
        save_dir: Any = None,
        log: bool = True,
        **settings: Any,
    ):
        super().__init__(data, **settings)
        self.draws = given.count("batch_size", batch_size, 1)
        self.num_steps = given.count("num_steps", num_steps, 1)
        self.sample_coverage = given.count("sample_coverage", sample_coverage, 0)
        taken = [name for name in ("node_norm", "edge_norm") if name in self.source.values[""]]
        if taken:
            raise InputError(f"the data have an attribute `{taken[0]}` of their own: give it another name")
        if not (self.num_nodes and self._can_draw()):
            raise InputError("the graph has no nodes or edges that could be drawn")
        self.node_norm: Tensor | None = None
        self.edge_norm: Tensor | None = None
        if self.sample_coverage:
            name = f"{type(self).__name__.lower()}_{self.sample_coverage}.pt"
            norms = stored(save_dir, name, self.graph, self._settings(), self._norms)
            self.node_norm, self.edge_norm = norms["node_norm"], norms["edge_norm"]

    def _can_draw(self) -> bool:
        return self.graph.num_edges > 0

    def _settings(self) -> dict[str, Any]:
        """All that the norms depend on besides the graph."""
        return {"batch_size": self.draws, "sample_coverage": self.sample_coverage}

    def _drawn(self, key: int) -> Tensor:
        """Nodes; ``key`` as of :class:`gdsl.data.sampler.Sampler`."""
        raise NotImplementedError

    def _items(self) -> int:
        return self.num_steps

    def _make(self, items: Tensor, key: int) -> Batch:
        batch = self.between(self._drawn(key).unique())
        if self.node_norm is not None and self.edge_norm is not None:
            batch.node_norm, batch.edge_norm = self.node_norm[batch.n_id], self.edge_norm[batch.e_id]
        return batch

    def _norms(self) -> dict[str, Tensor]:
        nodes, edges = torch.zeros(self.num_nodes, device=CPU), torch.zeros(self.graph.num_edges, device=CPU)
        met = samples = 0

        def sample(number: int) -> tuple[Tensor, Tensor]:
            key = mixed(self.seed, ~number)
            found = self.sampler({0: self._drawn(key).unique()}, key)
            return found.nodes[0], found.edges[0]

        while met < self.num_nodes * self.sample_coverage:
            numbers = range(samples, samples + self.num_steps)
            for ids, between in ahead(sample, numbers, self.num_workers, max(self.prefetch, self.num_workers)):
                nodes[ids] += 1
                edges[between] += 1
                met += len(ids)
            samples += self.num_steps
        # Where an edge was never met, and its target neither, the quotient is no number.
        edge_norm = (nodes[self.graph.edge_index[1]] / edges).clamp(max=MOST).nan_to_num(NEVER)
        nodes[nodes == 0] = NEVER
        return {"node_norm": samples / nodes / self.num_nodes, "edge_norm": edge_norm}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_steps:,} batches of {self.draws:,} draws)"


class GraphSAINTNodeSampler(GraphSAINTSampler):
    """Nodes at the beginning of edges that are drawn: a node with edges out of it by their number.

    See :class:`GraphSAINTSampler`.
    """

    def _drawn(self, key: int) -> Tensor:
        random = torch.Generator().manual_seed(key >> 1)
        return self.graph.edge_index[0, torch.randint(self.graph.num_edges, (self.draws,), generator=random)]


class GraphSAINTEdgeSampler(GraphSAINTSampler):
    """Both ends of edges that are drawn, each edge once at most: with chances by 1 / deg(u) + 1 / deg(v), as the paper
    has it, of the edges out of its source and into its target.

    See :class:`GraphSAINTSampler`. torch_geometric takes deg(u) + deg(v).
    """

    @cached_property
    def _weight(self) -> Tensor:
        source, target = self.graph.edge_index
        out, into = (order.rowptr.diff().double() for order in (self.graph.out_edges, self.graph.in_edges))
        return 1 / out[source] + 1 / into[target]

    @cached_property
    def _upto(self) -> Tensor:
        return self._weight.cumsum(0)

    def _drawn(self, key: int) -> Tensor:
        random = torch.Generator().manual_seed(key >> 1)
        count, edges = self.graph.num_edges, torch.empty(0, dtype=torch.int64, device=CPU)
        if 4 * self.draws >= count:
            # The smallest -log(u) / weight: drawn one after the other (Efraimidis and Spirakis, 2006).
            keys = -torch.rand(count, generator=random, dtype=torch.float64).neg().log1p() / self._weight
            edges = keys.topk(min(self.draws, count), largest=False).indices
        while len(edges) < min(self.draws, count):
            # The same, since what comes again does not count: time by the draws and not by the edges.
            at = torch.rand(2 * (self.draws - len(edges)) + 16, generator=random, dtype=torch.float64)
            drawn = torch.searchsorted(self._upto, at * self._upto[-1], right=True).clamp(max=count - 1)
            edges = _first_of_each(torch.cat([edges, drawn]))
        return self.graph.edge_index[:, edges[: self.draws]].flatten()


class GraphSAINTRandomWalkSampler(GraphSAINTSampler):
    """The nodes of ``batch_size`` random walks of ``walk_length`` steps over the edges out of each node.

    A walk begins at any node with the same chance, and stays where no edge leads on. See :class:`GraphSAINTSampler`.
    """

    def __init__(
        self,
        data: Any,
        batch_size: int,
        walk_length: int,
        num_steps: int = 1,
        sample_coverage: int = 0,
        save_dir: Any = None,
        log: bool = True,
        **settings: Any,
    ):
        self.walk_length = given.count("walk_length", walk_length, 0)
        super().__init__(data, batch_size, num_steps, sample_coverage, save_dir, log, **settings)

    def _can_draw(self) -> bool:
        return True

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"walk_length": self.walk_length}

    def _drawn(self, key: int) -> Tensor:
        return walks(self.graph.out_edges, self.draws, self.walk_length, key).flatten()


def _first_of_each(values: Tensor) -> Tensor:
    """Without what comes again."""
    _, place = values.unique(return_inverse=True)
    number = torch.arange(len(values), device=CPU)
    first = torch.full((int(place.max()) + 1,), len(values), device=CPU).scatter_reduce(0, place, number, "amin")
    return values[first.sort().values]

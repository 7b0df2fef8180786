"""A graph in parts of which each has few edges to the others, and batches of parts. Interface of torch_geometric's
``ClusterData`` and ``ClusterLoader``.

Chiang, Liu, Si, Li, Bengio, Hsieh: Cluster-GCN, KDD 2019. Parts are found by METIS, which is the package ``pymetis``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.batch import Batch
from gdsl.data.neighbors import Subgraphs, part_of
from gdsl.data.source import source_of
from gdsl.data.stored import stored
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.graph import Graph


@dataclass(frozen=True)
class Partition:
    """node_perm [N] the nodes, part by part, each part in their order; partptr [parts + 1] where each part begins."""

    node_perm: Tensor
    partptr: Tensor


class ClusterData:
    """A graph in parts. ``len(parts)`` of them; ``parts[3]`` is a batch of one.

    data:      a torch_geometric ``Data``, or a ``NodeData``
    num_parts: how many
    recursive: by METIS's recursive bisection; else k ways at once
    save_dir, filename: where the parts are kept for the next run, as ``part_<n>/metis.pt``
    keep_inter_cluster_edges: ``parts[3]`` has also the edges from its nodes to others, or into them where
               ``sparse_format`` is "csc"; the others are counted as in ``partition.node_perm``, for no layer
    cluster:   [N] the part of each node, where METIS need not find it

    ``cluster`` and ``partition`` tell which nodes are where. METIS reads the graph as one without directions, each edge
    once. ``log`` is taken for the sake of programs that have it.

    Raises ``InputError`` and ``GraphError`` for data that cannot be divided, and where ``pymetis`` is asked for and not
    installed.
    """

    def __init__(
        self,
        data: Any,
        num_parts: int,
        recursive: bool = False,
        save_dir: Any = None,
        filename: str | None = None,
        log: bool = True,
        keep_inter_cluster_edges: bool = False,
        sparse_format: str = "csr",
        *,
        cluster: Any = None,
    ):
        if sparse_format not in ("csr", "csc"):
            raise InputError(f"sparse_format is 'csr' or 'csc', not {sparse_format!r}")
        self.keep_inter_cluster_edges, self.sparse_format = keep_inter_cluster_edges, sparse_format
        self.data, self.source = data, source_of(data)
        if self.source.is_hetero:
            raise InputError("ClusterData takes a graph with nodes and edges of one type")
        nodes, self.num_parts = self.source.num_nodes[""], given.count("num_parts", num_parts, 1)
        if self.num_parts > max(nodes, 1):
            raise InputError(f"{nodes} nodes cannot be divided into {self.num_parts} parts")
        graph = self.source.graphs[""]
        if cluster is None:
            name = f"part_{self.num_parts}{'_recursive' if recursive else ''}/{filename or 'metis.pt'}"
            settings = {"parts": self.num_parts, "recursive": bool(recursive)}

            def find() -> dict[str, Tensor]:
                return {"cluster": metis(graph, self.num_parts, recursive)}

            cluster = stored(save_dir, name, graph, settings, find)["cluster"]
        self.cluster = given.integers("cluster", cluster, (nodes,))
        if nodes and not 0 <= int(self.cluster.min()) <= int(self.cluster.max()) < self.num_parts:
            raise InputError(f"cluster must hold numbers of {self.num_parts} parts, from 0 on")
        sizes = torch.bincount(self.cluster, minlength=self.num_parts)
        starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        self.partition = Partition(self.cluster.sort(stable=True).indices, starts)
        self._loader: ClusterLoader | None = None

    def __len__(self) -> int:
        return self.num_parts

    def __getitem__(self, number: int) -> Batch:
        """A part; without edges to others, unless they are kept."""
        found = given.integer("the number of a part", number)
        if not -len(self) <= found < len(self):
            raise IndexError(f"there is no part {found}: there are {len(self)}")
        if self._loader is None:
            self._loader = ClusterLoader(self, num_workers=0)
        batch = self._loader.joined(torch.tensor([found % len(self)], device=CPU))
        return self._with_edges_to_others(batch, found % len(self)) if self.keep_inter_cluster_edges else batch

    def _with_edges_to_others(self, batch: Batch, part: int) -> Batch:
        place = torch.empty_like(self.cluster)
        place[self.partition.node_perm] = torch.arange(len(place), device=CPU)
        row = 0 if self.sparse_format == "csr" else 1
        ends = self.source.graphs[""].edge_index
        ids = (self.cluster[ends[row]] == part).nonzero().squeeze(1)
        places = place[ends[:, ids]]
        order = (places[row] * len(place) + places[1 - row]).argsort(stable=True)
        batch.edge_index, batch.e_id = places[:, order], ids[order]
        batch.edge_index[row] -= self.partition.partptr[part]
        for name, value in part_of(self.source, "", "edges", batch.e_id).items():
            batch[name] = value
        return batch

    def __repr__(self) -> str:
        return f"ClusterData({self.num_parts})"


class ClusterLoader(Subgraphs):
    """Batches of parts of a graph as one graph, with all edges within and between them, sorted by target.

    cluster_data: a :class:`ClusterData`
    batch_size:   parts of a batch

    The others are those of :class:`gdsl.data.epochs.Epochs`. Batches have ``n_id`` and ``e_id``, the numbers of their
    nodes and edges; nodes come part by part.
    """

    def __init__(
        self,
        cluster_data: ClusterData,
        batch_size: int = 1,
        shuffle: bool = False,
        **settings: Any,
    ):
        if not isinstance(cluster_data, ClusterData):
            raise InputError(f"a gdsl.data.ClusterData is needed, not {given.shown(cluster_data)}")
        super().__init__(cluster_data.source, batch_size=batch_size, shuffle=shuffle, **settings)
        self.cluster_data = cluster_data

    def joined(self, parts: Tensor) -> Batch:
        """Some parts as one graph."""
        partition = self.cluster_data.partition
        bounds = zip(partition.partptr[parts].tolist(), partition.partptr[parts + 1].tolist(), strict=True)
        return self.between(torch.cat([partition.node_perm[first:last] for first, last in bounds]))

    def _items(self) -> int:
        return len(self.cluster_data)

    def _make(self, items: Tensor, key: int) -> Batch:
        return self.joined(items)

    def __repr__(self) -> str:
        return f"ClusterLoader({len(self.cluster_data):,} parts, batch_size={self.batch_size})"


def metis(graph: Graph, parts: int, recursive: bool = False) -> Tensor:
    """[N] int64 the part of each node, such that few edges lead from one part to another; by METIS, the same each time.

    Raises ``InputError`` where ``pymetis`` is not installed.
    """
    return divided(graph.edge_index, graph.num_targets, parts, "the part of each node as cluster=", recursive)


def _room(mean: float) -> int:
    """By how many thousandths a part may have more nodes than the mean: METIS's own 30, or one node. Where 30 are less
    than a node, and no whole number is allowed, twice as many edges are cut (findings/parts-without-room.sh)."""
    return max(30, math.ceil(1000 * ((math.ceil(mean) + 1) / mean - 1)) + 1)


def divided(
    ends: Tensor, nodes: int, parts: int, instead: str, recursive: bool = False, weights: Tensor | None = None
) -> Tensor:
    """[N] int64 the part of each node by METIS, from edges [2, E] between ``nodes`` nodes.

    instead: what a user may give where METIS is not there
    weights: [N] of which each part gets about as much; None for as many nodes

    Raises ``InputError`` where ``pymetis`` is not installed.
    """
    if parts == 1 or not nodes:
        return torch.zeros(nodes, dtype=torch.int64, device=CPU)
    try:
        import pymetis
    except ImportError:
        raise InputError(
            f"METIS is the package pymetis, which is not installed: pip install 'gdsl[metis]', or give {instead}"
        ) from None
    source, target = ends[:, ends[0] != ends[1]]
    both = torch.cat([source * nodes + target, target * nodes + source]).unique()
    starts = torch.searchsorted(both, torch.arange(nodes + 1, device=CPU) * nodes)
    adjacency = pymetis.CSRAdjacency(starts.numpy(), (both % nodes).numpy())
    found = pymetis.part_graph(
        parts,
        adjacency,
        recursive=bool(recursive),
        options=pymetis.Options(seed=0) if recursive else pymetis.Options(seed=0, ufactor=_room(nodes / parts)),
        vweights=None if weights is None else weights.numpy(),
    )
    return torch.as_tensor(found.vertex_part, device=CPU).long()

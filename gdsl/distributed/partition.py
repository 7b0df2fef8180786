"""A graph in parts, one for each process: who owns each node, and what each process needs of the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gdsl.data import given
from gdsl.data.batch import Type
from gdsl.data.source import Source, source_of
from gdsl.distributed.assignment import assigned
from gdsl.distributed.part import GraphPart, PartEdges
from gdsl.distributed.processes import agreeing
from gdsl.distributed.wire import broadcast_rows
from gdsl.errors import InputError
from gdsl.runtime.answers import place
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.given import Size
from gdsl.runtime.graph import Graph


class Reads(NamedTuple):
    """Which rows are read by other processes than their owners, each pair once: [K] int64 each, by reader, owner and
    node."""

    reader: Tensor
    owner: Tensor
    node: Tensor


@dataclass(frozen=True, eq=False)
class Division:
    """A graph of which each node has an owner; an edge belongs to the owner of its target. Made by :func:`divide`.

    source  the graph, and ``graph`` what tells it from others
    owner   of each type of nodes, "" where there is one, [N] int64
    parts   how many there are

    Nothing here speaks to other processes.
    """

    source: Source
    owner: Mapping[str, Tensor]
    parts: int
    graph: str

    @cached_property
    def fingerprint(self) -> str:
        """What tells this graph, before the colon, and its parts from others."""
        return f"{self.graph}:{digest(self.parts, self.owner)}"

    @cached_property
    def reads(self) -> dict[Type, Reads]:
        """Of each type of edges."""
        return {type: self._reads(type) for type in self.source.graphs}

    def _reads(self, type: Type, rank: int | None = None) -> Reads:
        """Those of all processes, or those that one of them has a share in."""
        sources, targets = (self.owner[end] for end in self.source.ends(type))
        source, target = self.source.graphs[type].edge_index
        reader, owner, nodes = targets[target], sources[source], max(len(sources), 1)
        cut = reader != owner
        if rank is not None:
            cut &= (reader == rank) | (owner == rank)
        pairs = (reader[cut] * nodes + source[cut]).unique()
        reader, node = pairs // nodes, pairs % nodes
        owner = sources[node]
        order = (reader * self.parts + owner).argsort(stable=True)
        return Reads(reader[order], owner[order], node[order])

    # -- how good it is --------------------------------------------------------------------------

    @cached_property
    def cut(self) -> float:
        """The share of edges between two parts."""
        cut = edges = 0
        for type, graph in self.source.graphs.items():
            sources, targets = (self.owner[end] for end in self.source.ends(type))
            cut += int((sources[graph.edge_index[0]] != targets[graph.edge_index[1]]).sum())
            edges += graph.num_edges
        return cut / max(edges, 1)

    @cached_property
    def edge_counts(self) -> Tensor:
        """[parts] int64: the edges of each."""
        graphs = self.source.graphs.items()
        return self._counted(self.owner[self.source.ends(type)[1]][graph.edge_index[1]] for type, graph in graphs)

    @cached_property
    def node_counts(self) -> Tensor:
        """[parts] int64: the nodes of each."""
        return self._counted(self.owner.values())

    @cached_property
    def halo_counts(self) -> Tensor:
        """[parts] int64: the rows of others that each reads."""
        return self._counted(reads.reader for reads in self.reads.values())

    def _counted(self, ranks: Iterable[Tensor]) -> Tensor:
        found = torch.zeros(self.parts, dtype=torch.int64, device=CPU)
        for each in ranks:
            found += torch.bincount(each, minlength=self.parts)
        return found

    @property
    def balance(self) -> float:
        """The edges of the busiest part, by those of the mean one."""
        return float(self.edge_counts.max()) * self.parts / max(int(self.edge_counts.sum()), 1)

    # -- parts -----------------------------------------------------------------------------------

    def part(self, rank: int, group: ProcessGroup | None = None) -> GraphPart:
        """The part of one process. Raises ``InputError`` for a number out of range."""
        found = given.integer("the number of a part", rank)
        if not 0 <= found < self.parts:
            raise InputError(f"there is no part {found}: there are {self.parts}, numbered from 0")
        own = {type: (owner == found).nonzero().squeeze(1) for type, owner in self.owner.items()}
        counts = {type: _counts(owner, self.parts) for type, owner in self.owner.items()}
        edges = {type: self._edges(type, found, own) for type in self.source.graphs}
        return GraphPart(found, self.parts, self.fingerprint, counts, own, edges, group)

    def _edges(self, type: Type, rank: int, own: Mapping[str, Tensor]) -> PartEdges:
        source_type, target_type = self.source.ends(type)
        graph = self.source.graphs[type]
        reads = self.reads[type] if "reads" in self.__dict__ else self._reads(type, rank)
        ids = (self.owner[target_type][graph.edge_index[1]] == rank).nonzero().squeeze(1)
        read, sent = reads.reader == rank, reads.owner == rank
        halo, mine = reads.node[read], own[source_type]
        place = torch.empty(len(self.owner[source_type]), dtype=torch.int64, device=CPU)
        place[torch.cat([mine, halo])] = torch.arange(len(mine) + len(halo), device=CPU)
        source, target = graph.edge_index[:, ids]
        return PartEdges(
            source_type,
            target_type,
            graph.num_edges,
            torch.stack([place[source], torch.searchsorted(own[target_type], target)]),
            ids,
            torch.searchsorted(mine, reads.node[sent]),
            _counts(reads.reader[sent], self.parts),
            _counts(reads.owner[read], self.parts),
            halo,
        )

    def __repr__(self) -> str:
        nodes, halo = self.node_counts.double().mean(), self.halo_counts.double()
        return (
            f"Division({self.parts} parts, {self.cut:.0%} of the edges cut, busiest {self.balance:.2f} of the mean, "
            f"halo {float(halo.mean() / nodes.clamp(min=1)):.2f} of the own nodes, at most {int(halo.max()):,})"
        )


def _counts(ranks: Tensor, parts: int) -> tuple[int, ...]:
    return tuple(torch.bincount(ranks, minlength=parts).tolist())


def divide(graph: Any, parts: int, how: Any = "metis", num_nodes: Size = None) -> Division:
    """A graph in parts, without other processes.

    graph:     a ``gdsl.Graph``, an ``edge_index`` [2, E], a torch_geometric ``Data`` or ``HeteroData``, a ``NodeData``;
               the nodes of a bipartite graph are of the types "source" and "target"
    how:       "metis" (``pip install 'gdsl[metis]'``), "hash", or the owner of each node, [N] integers; of several
               types by type
    num_nodes: as in ``gdsl.Graph``, of an ``edge_index``

    METIS balances edges, for nodes weigh by those into them, and is the same each time. Parts may be empty.

    Raises ``InputError`` and ``GraphError`` for what cannot be divided, and where ``pymetis`` is not installed.
    """
    count = given.count("parts", parts, 1)
    source = _source(graph, num_nodes)
    return Division(source, assigned(source, count, how), count, graph_digest(source))


def _source(graph: Any, num_nodes: Size) -> Source:
    if isinstance(graph, Tensor) or num_nodes is not None:
        graph = Graph.from_any(graph, num_nodes)
    if not isinstance(graph, Graph):
        return source_of(graph)
    if graph.halo is not None:
        raise InputError("this graph is a part already: divide the whole one")
    graph = graph.to("cpu")
    if graph.is_bipartite:
        sizes = {"source": graph.num_sources, "target": graph.num_targets}
        return Source({}, sizes, {BIPARTITE: graph})
    return Source({}, {"": graph.num_targets}, {"": graph})


# The type of the edges of a graph whose sources and targets differ.
BIPARTITE = ("source", "to", "target")


def partition(
    graph: Any,
    parts: int | None = None,
    how: Any = "metis",
    num_nodes: Size = None,
    group: ProcessGroup | None = None,
) -> GraphPart:
    """This process's part of a graph that every process has; all of them must call it.

    parts: as many as there are processes
    group: the processes; None for all

    The others are those of :func:`divide`. Process 0 finds the owners.

    Raises ``InputError`` on every process where one of them has another graph, or where the number of parts is not that
    of processes.
    """
    rank, size = place(group)
    with agreeing("the graph and how it is divided", group) as found:
        asked = given.count("parts", size if parts is None else parts, 1)
        if asked != size:
            raise InputError(f"there are {size} processes, and {asked} parts are asked for: each has one part")
        source = _source(graph, num_nodes)
        owner = None if isinstance(how, str) and rank else assigned(source, size, how)
        given_so = how if isinstance(how, str) or owner is None else digest(size, owner)
        own = graph_digest(source)
        edges = {type: g.num_edges for type, g in source.graphs.items()}
        found["value"] = (source.num_nodes, edges, own, given_so)
    if owner is None or isinstance(how, str):
        empty = torch.empty(0, dtype=torch.int64, device=CPU)
        owner = {
            type: broadcast_rows(empty if owner is None else owner[type], 0, count, group)
            for type, count in source.num_nodes.items()
        }
    return Division(source, owner, size, own).part(rank, group)


def graph_digest(source: Source) -> str:
    """What tells a graph from others."""
    return digest(source.num_nodes, {type: graph.edge_index for type, graph in source.graphs.items()})


def digest(about: Any, tensors: Mapping[Any, Tensor]) -> str:
    """What tells tensors from others."""
    found = hashlib.sha256(repr(about).encode())
    for name, tensor in tensors.items():
        found.update(repr(name).encode())
        found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()[:16]

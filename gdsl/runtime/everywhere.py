"""Nodes anywhere in a distributed graph: who owns each, rows of any of them, and graphs of other edges between them."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import torch
from torch import Tensor

from gdsl.errors import GraphError, InputError
from gdsl.ir.types import Domain
from gdsl.runtime.answers import place
from gdsl.runtime.dtypes import short
from gdsl.runtime.given import is_integer
from gdsl.runtime.halo import agree_on, asked_of_others, exchange, gather, numbers
from gdsl.runtime.local import LocalGraph, ReadRows, need_forward
from gdsl.runtime.spans import row_numbers
from gdsl.runtime.together import gathered


class Owners(NamedTuple):
    """Who owns each node of a distributed graph, which all processes know: a whole number for each node.

    ids:    [N] int64 the numbers of all nodes, process by process
    counts: of each process, how many it owns
    """

    ids: Tensor
    counts: tuple[int, ...]

    @property
    def of_each(self) -> Tensor:
        """[N] int64 the process of each node, by its number."""
        each = row_numbers(torch.tensor(self.counts, device=self.ids.device), len(self.ids))
        return torch.empty_like(each).index_copy_(0, self.ids, each)


def owners(graph: LocalGraph) -> Owners:
    """All processes ask for it together; told once.

    Raises ``GraphError`` for a part that is bipartite or turned round, and, on every process alike, where nodes are not
    numbered from 0 on.
    """
    need_forward(graph)
    _ = graph.num_nodes  # a bipartite graph has none
    found: Owners = graph._make("_owners", _owners, graph)
    return found


def _owners(graph: LocalGraph) -> Owners:
    halo = graph.halo
    ids = gather(halo, halo.own_ids)
    if not torch.equal(ids.sort().values, torch.arange(len(ids), device=ids.device)):
        raise GraphError("the nodes of this distributed graph are not numbered from 0 on, each owned by one process")
    return Owners(ids, tuple(count for (count,) in numbers(halo, [halo.own])))


def all_rows(graph: LocalGraph, x: Tensor) -> Tensor:
    """[N, ...] the rows of all nodes in the order of their numbers, on every process, from those of own nodes.
    Differentiable: gradients are summed over all processes. All of them call it together."""
    ids = owners(graph).ids
    row = torch.empty_like(ids).index_copy_(0, ids, torch.arange(len(ids), device=ids.device))
    return gathered(x, graph.halo).index_select(0, row)


def rows_at(graph: LocalGraph, x: Tensor, ids: Tensor) -> Tensor:
    """[*ids.shape, ...] the rows of nodes with these numbers in the whole graph, from those [n, ...] of own nodes on
    each process; each row is sent once. Differentiable: gradients go back to the owners. All processes call it
    together, each with its own numbers.

    Raises ``InputError`` for what are no numbers, and ``GraphError`` for those that the graph does not have.
    """
    known = owners(graph)
    if not isinstance(ids, Tensor) or not is_integer(ids):
        raise InputError("nodes are asked for by a tensor of whole numbers")
    ids = ids.long()
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(known.ids):
        raise GraphError(
            f"the graph has nodes 0 to {len(known.ids) - 1} on all processes, and nodes {int(ids.min())} to "
            f"{int(ids.max())} are asked for"
        )
    agree_on(graph.halo, f"rows of any nodes, {short(x.dtype)} {list(x.shape[1:])}")
    halo, row = asked_of_others(known.of_each, graph.halo.own_ids, ids.flatten(), graph.halo.group)
    return ReadRows.apply(x, halo).index_select(0, row).view(*ids.shape, *x.shape[1:])


def part_of(first: LocalGraph, known: Owners, source: Tensor, target: Tensor) -> LocalGraph:
    """The part with other edges, and a halo of what these read. All processes make it together.

    first:  the part that it is made from, with as many rows of others at a time
    known:  who owns its nodes
    source: [E] the numbers of the nodes that the edges come from, in the whole graph
    target: [E] own rows, in the order in which ``known`` has own nodes
    """
    group, rank = first.halo.group, place(first.halo.group)[0]
    own_ids = known.ids.split(known.counts)[rank]
    halo, row = asked_of_others(known.of_each, own_ids, source, group)
    graph = LocalGraph(torch.stack([row, target]), halo, chunk=first.chunk)
    graph.__dict__["_owners"] = known
    return graph


class KeptNodes(NamedTuple):
    """A part of a distributed graph that has some of the nodes alone.

    graph: with the edges between these, which are numbered in their new order
    nodes: [k] the rows of own nodes that are kept, in that order
    edges: [e] the numbers of own edges that are
    chosen: [k] the places of these nodes among all that are kept
    """

    graph: LocalGraph
    nodes: Tensor
    edges: Tensor
    chosen: Tensor


def keep_nodes(graph: LocalGraph, nodes: Tensor) -> KeptNodes:
    """The graph of some nodes, whose edges are those between them; all processes make it together.

    nodes: [K] their numbers in the whole graph, the same on all processes: what is first is node 0

    Raises ``GraphError``, on every process alike, where they keep others.
    """
    digest = zlib.crc32(nodes.cpu().numpy().tobytes())
    agree_on(graph.halo, f"a graph of {len(nodes)} nodes that are kept", digest)
    known, every = owners(graph), torch.arange(len(nodes), device=nodes.device)
    new = torch.full_like(known.ids, -1).index_copy_(0, nodes, every)
    owner = known.of_each.index_select(0, nodes)
    counts = torch.bincount(owner, minlength=len(known.counts)).tolist()
    after = Owners(owner.argsort(stable=True), tuple(counts))
    of_rows = new[graph.row_ids(Domain.SOURCE)]
    chosen, rows = of_rows[: graph.halo.own].sort()
    chosen, rows = chosen[chosen >= 0], rows[chosen >= 0]
    ends = of_rows[graph.local_edge_index]
    edges = (ends >= 0).all(dim=0).nonzero().flatten()
    source, target = ends[:, edges]
    made = part_of(graph, after, source, torch.searchsorted(chosen, target))
    made._before = (graph, edges, False)
    return KeptNodes(made, rows, edges, chosen)


def two_steps(graph: LocalGraph, weight: Tensor) -> tuple[LocalGraph, Tensor]:
    """The edges between nodes that are at most two steps apart, (A + I)² without the loops, and its values.
    Differentiable in these. All processes make it together.

    weight: [E] the values of A, of own edges; of loops they do not count
    """
    known = owners(graph)
    rewired = graph.add_self_loops()
    looped = rewired.graph
    assert isinstance(looped, LocalGraph)
    values = torch.cat([weight if rewired.kept is None else weight[rewired.kept], weight.new_ones(graph.num_targets)])
    pairs = looped.pairs
    first, second = pairs.ends
    source, target = looped.local_edge_index
    start = exchange(pairs.halo, [looped.row_ids(Domain.SOURCE)[source]], [None])[0]()[first]
    own_ids, end = graph.halo.own_ids, target[second]
    products = ReadRows.apply(values, pairs.halo)[first] * values[second]
    apart = start != own_ids[end]
    key, place = (start * graph.num_targets + end)[apart].unique(return_inverse=True)
    made = part_of(graph, known, key // graph.num_targets, key % graph.num_targets)
    return made, values.new_zeros(len(key)).index_add(0, place, products[apart])

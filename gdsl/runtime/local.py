"""The part of a graph that one process of several has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from gdsl.errors import GraphError
from gdsl.ir.types import Domain
from gdsl.passes.options import GraphShape
from gdsl.runtime import prepare
from gdsl.runtime.dtypes import short
from gdsl.runtime.edge_halo import LocalPairs, Reverses, reverses
from gdsl.runtime.formats import plain_tensor
from gdsl.runtime.given import check_edge_index, check_size
from gdsl.runtime.graph import Graph, Rewired
from gdsl.runtime.halo import Halo, HaloRows, agree_on, agreed, all_reduce, collect, exchange, gather
from gdsl.runtime.order import EdgeEnds, Order
from gdsl.runtime.transforms import concrete, ordinary


class WalkedPart(NamedTuple):
    """Some edges of a part of a graph: those that read the rows ``start`` to ``stop``.

    graph: they alone, from these rows to all targets
    edges: their numbers among those of the process
    rows:  of others' rows, which of the halo they are; None for the own ones
    """

    graph: Graph
    start: int
    stop: int
    edges: Tensor
    rows: HaloRows | None


class LocalGraph(Graph):
    """The edges of a distributed graph whose targets are owned by this process, and the nodes that it owns.

    Layers take it as any other graph: they get the rows of own nodes, and give those. What their edges read of nodes of
    other processes is exchanged, so that every process must make the same calls in the same order.

    local_edge_index  [2, E] int64: sources are own rows [0, own), then rows of the halo; targets are own rows
    halo              which rows of others are read here, and which of ours by others
    num_sources, num_targets, num_nodes  of this process

    edge_index:  what ``local_edge_index`` shall be
    num_targets: of a bipartite graph; None where sources and targets are the same nodes
    chunk:       how many rows of one other process are here at a time, on their way or read; None for all

    Raises ``GraphError`` as ``Graph(...)`` does, for indices beyond the own rows and the halo, and where something is
    asked that one part of a graph cannot tell, such as ``edge_index``.
    """

    halo: Halo

    def __init__(self, edge_index: Tensor, halo: Halo, num_targets: int | None = None, chunk: int | None = None):
        if chunk is not None and check_size(chunk, "chunk") < 1:
            raise GraphError(f"a chunk has at least one row, and not {chunk}")
        check_edge_index(edge_index)
        plain = plain_tensor(concrete(edge_index, "edge_index"))
        targets = halo.own if num_targets is None else num_targets
        edges, sizes = ordinary(prepare.take, plain, (halo.own + halo.rows, targets))
        if halo.edge_ids is not None and len(halo.edge_ids) != edges.num_edges:
            raise GraphError(f"`edge_ids` has {len(halo.edge_ids)} entries, and there are {edges.num_edges} edges")
        self._setup_local(edges, sizes, halo, num_targets is not None, chunk)

    def _setup_local(
        self,
        edges: EdgeEnds,
        sizes: tuple[int, int],
        halo: Halo,
        bipartite: bool,
        chunk: int | None,
        weight: Tensor | None = None,
    ) -> None:
        self._setup(edges, sizes, weight)
        self.chunk = chunk
        self.halo, self._two_sets = halo, bipartite
        self.num_sources, self.num_readable = halo.own, sizes[0]
        # The number that all processes have for the graph, once they know that their parts are of one.
        self.tag = 0
        # What was exchanged of the graph alone, by the nodes of programs and dtypes.
        self.constants: dict[Any, Tensor] = {}
        # What it was made from by other loops: that graph, which of its edges were kept, and whether loops were added.
        self._before: tuple[LocalGraph, Tensor | None, bool] | None = None

    @classmethod
    def _of(cls, edges: EdgeEnds, sizes: tuple[int, int], weight: Tensor | None = None) -> NoReturn:
        raise GraphError("a part of a distributed graph is made by LocalGraph(edge_index, halo)")

    @property
    def shape(self) -> GraphShape:
        """The sizes that the cost model sees, the same on all processes: the largest of each.

        All processes ask for it together the first time. Raises ``GraphError``, on every process alike, where their
        parts are not of one graph.
        """
        return self._make("_shape", self._agreed_shape)

    def _agreed_shape(self) -> GraphShape:
        most = max(self.halo.receive_counts, default=0)
        pieces = 0 if self.chunk is None else max(1, -(-most // self.chunk))
        counts = (self.num_readable, self.num_targets, self.num_edges, pieces)
        # Whether it has sources and targets apart, and whether its loops are others than those of the edges given.
        kind = self._two_sets + 2 * (0 if self._before is None else 1 + self._before[2])
        (sources, targets, edges, self._pieces), self.tag = agreed(self.halo, kind, counts)
        shape = GraphShape.of(sources, targets, edges, self.device.type)
        return replace(shape, processes=self.halo.world, chunks=self._pieces > 0)

    @property
    def parts(self) -> tuple[WalkedPart, ...]:
        """The edges between own nodes, then those that read rows of others: all, or some after the other where these
        come in chunks."""
        return self._make("_parts", self._cut)

    def _cut(self) -> tuple[WalkedPart, ...]:
        halo, own = self.halo, self.halo.own
        chunked = self.shape.chunks
        rows = list(halo.chunks(self._pieces)) if chunked else [halo.all_rows]
        spans = [(0, own), *((own + some.start, own + some.start + some.rows) for some in rows)]
        listed = self._list.listed
        # The part of each row, then of each edge.
        of_row = torch.empty(self.num_readable, dtype=torch.int32, device=self.device)
        for k, (start, stop) in enumerate(spans):
            of_row[start:stop] = k
        of_edge = of_row.index_select(0, listed[0])
        counts = torch.bincount(of_edge, minlength=len(spans)).tolist()
        numbers = of_edge.argsort(stable=True).to(self.index_dtype).split(counts)
        found = []
        for (start, stop), edges, some in zip(spans, numbers, [None, *rows], strict=True):
            ends = listed.index_select(1, edges)
            ends[0] -= start
            found.append(WalkedPart(_alone(ends, (stop - start, self.num_targets)), start, stop, edges, some))
        return tuple(found)

    @property
    def is_bipartite(self) -> bool:
        """Whether sources and targets are different nodes, also where there are as many."""
        return self._two_sets

    @property
    def local_edge_index(self) -> Tensor:
        return self._make("_local_edge_index", lambda graph: graph._list.listed.long(), self)

    @property
    def edge_index(self) -> Tensor:
        self._refuse("edge_index", "; its own edges, with the halo's rows after the own ones, are `local_edge_index`")

    def _refuse(self, what: str, remedy: str = "; run this layer on the whole graph, in one process") -> NoReturn:
        raise GraphError(f"`{what}` asks for all nodes and edges, and this graph is the part of one process{remedy}")

    @property
    def pairs(self) -> Any:
        """Those of which the second edge is here. All processes ask for it together."""
        if self.is_bipartite:
            raise GraphError("no edge of a bipartite graph begins where another ends: all go from sources to targets")
        return self._make("_pairs", LocalPairs, self, self._backtracking)

    @property
    def reverses(self) -> Reverses:
        """Which edges go the other way, here and elsewhere. All processes ask for it together."""
        if self.is_bipartite:
            raise GraphError("the edges of a bipartite graph have no reverse: they all go from sources to targets")
        return self._make("_reverses", reverses, self)

    @property
    def alone(self) -> Tensor:
        """[E] whether there is no edge the other way. All processes ask for it together."""
        return self.reverses.alone

    @property
    def reversed_edges(self) -> Tensor:
        self._refuse("reversed_edges")

    @property
    def out_degree(self) -> Tensor:
        self._refuse("out_degree")

    def _without_returns(self) -> Rewired:
        graph = LocalGraph.__new__(LocalGraph)
        graph._setup_local(self._list, self._sizes, self.halo, self._two_sets, self.chunk, self.edge_weight)
        graph._backtracking, graph._before = False, self._before
        return Rewired(graph, False)

    def with_more_loops(self) -> LocalGraph:
        """With a loop at each node, after the edges that there are."""
        loops = torch.arange(self.num_nodes, device=self.device).expand(2, -1)
        edges, halo = torch.cat([self.local_edge_index, loops], dim=1), replace(self.halo, edge_ids=None)
        graph = LocalGraph(edges, halo, chunk=self.chunk)
        graph._before = (self, None, True)
        return graph

    def with_edges(self, edge_index: Tensor) -> Graph:
        self._refuse("with_edges")

    def reverse(self) -> LocalGraph:
        """The part with every edge turned round, in the same order: its edges are those out of own nodes."""
        found: LocalGraph = self._make("_turned", ReversedPart._of_part, self)
        return found

    @property
    def walked(self) -> LocalGraph:
        """What programs walk: this one."""
        return self

    def repeat(self, times: int) -> Graph:
        self._refuse("repeat")

    def _rewire(self, loops: bool, remaining: bool = False) -> Rewired:
        if self.is_bipartite:
            raise GraphError(
                "a loop of a bipartite graph joins a source and a target of one number, which one process of several "
                "does not know; add them before the graph is cut into parts, and pass add_self_loops=False"
            )
        rewired = super()._rewire(loops, remaining)
        assert isinstance(rewired.graph, LocalGraph)
        rewired.graph._before = (self, rewired.kept, loops)
        return rewired

    def _between(self, edges: EdgeEnds) -> LocalGraph:
        graph = LocalGraph.__new__(LocalGraph)
        graph._setup_local(edges, self._sizes, replace(self.halo, edge_ids=None), self._two_sets, self.chunk)
        return graph

    def row_ids(self, domain: Domain) -> Tensor:
        """The number of each row of a domain among those of all processes, int64. All ask for those of edges together.

        Raises ``GraphError`` for edges where the parts do not tell.
        """
        halo = self.halo
        if domain is Domain.EDGE:
            return self._make("_edge_ids", self._edge_ids)
        if domain is Domain.SOURCE:
            return torch.cat([halo.own_ids, halo.halo_ids])
        return halo.target_ids if domain is Domain.TARGET and halo.target_ids is not None else halo.own_ids

    def _edge_ids(self) -> Tensor:
        """Of a graph with other loops, those of the edges that were kept, in order, then of the loops, node by node."""
        if self.halo.edge_ids is not None:
            return self.halo.edge_ids
        if self._before is None:
            raise GraphError("random numbers are drawn for edges, whose numbers the parts of the graph do not tell")
        graph, kept, loops = self._before
        ids = graph.row_ids(Domain.EDGE)
        (total,) = all_reduce(self.halo, torch.tensor([len(ids)], device=ids.device), "sum").tolist()
        left = ids if kept is None else ids[kept]
        gone = gather(self.halo, ids[~torch.isin(ids, left)]).sort().values
        found = left - torch.searchsorted(gone, left)
        return torch.cat([found, total - len(gone) + self.halo.own_ids]) if loops else found

    def need_nodes(self, count: int) -> None:
        """All processes ask for it together. Raises ``GraphError``, on every process alike, where the graph has not so
        many nodes."""
        if self.total != count:
            raise GraphError(f"the graph has {self.total} nodes on all processes, and {count} are needed")

    @property
    def total(self) -> int:
        """How many nodes there are on all processes, which ask for it together."""
        own = self.halo.own_ids.new_tensor(self.halo.own)
        return self._make("_total", lambda: int(all_reduce(self.halo, own, "sum")))

    def to(self, device: torch.device | str | int) -> LocalGraph:
        """The same graph on another device; itself if it is there."""
        moved = self._edges.listed.to(device)
        if moved is self._edges.listed:
            return self
        weight = None if self.edge_weight is None else self.edge_weight.to(device)
        graph = LocalGraph.__new__(LocalGraph)
        edges = self._edges._replace(listed=moved)
        graph._setup_local(edges, self._sizes, self.halo.to(device), self._two_sets, self.chunk, weight)
        graph._backtracking = self._backtracking
        if self._before is not None:
            first, kept, loops = self._before
            graph._before = first.to(device), None if kept is None else kept.to(device), loops
        return graph

    def __copy__(self) -> LocalGraph:
        return self

    def __deepcopy__(self, known: Any) -> LocalGraph:
        """Itself, which nothing changes: copies of a model that holds it are on one graph."""
        return self

    def __reduce__(self) -> Any:
        raise GraphError("a part of a distributed graph belongs to its process, and cannot be pickled")

    def __repr__(self) -> str:
        sizes = f"num_nodes={self.num_targets}"
        if self.is_bipartite:
            sizes = f"num_sources={self.num_sources}, num_targets={self.num_targets}"
        halo = f"halo={self.halo.rows}, processes={self.halo.world}"
        return f"LocalGraph({sizes}, num_edges={self.num_edges}, {halo})"


def joined(
    graphs: Sequence[LocalGraph], kinds: Sequence[int], starts: Sequence[int], rows: Sequence[int], targets: int
) -> LocalGraph:
    """Parts of graphs between several types of nodes as the part of one bipartite graph: its sources are the nodes of
    all types, one type after the other, and its edges those of one graph after the other.

    kinds:   of each graph, the number of the type of its sources
    starts:  of each graph, its first target among all ``targets``
    rows:    of each type, how many nodes are owned here

    A row of another process that edges of several graphs read is sent once.
    """
    first, device = [0, *accumulate(rows)], graphs[0].device
    # A number for a node of any type, which all processes know.
    ids = torch.zeros(first[-1], dtype=torch.int64, device=device)
    numbers, send, receive = [], [], []
    for graph, kind in zip(graphs, kinds, strict=True):
        halo = graph.halo
        ids[first[kind] : first[kind + 1]] = halo.own_ids * len(rows) + kind
        numbers.append(halo.halo_ids * len(rows) + kind)
        send.append((halo.send + first[kind]).split(halo.send_counts))
        receive.append(numbers[-1].split(halo.receive_counts))
    sent = [torch.cat(rows_).unique() for rows_ in zip(*send, strict=True)]
    sent = [own[ids[own].argsort()] for own in sent]
    received = [torch.cat(numbers_).unique() for numbers_ in zip(*receive, strict=True)]
    halo_ids, order = torch.cat(received).sort()
    ends = []
    for graph, kind, start, ids_ in zip(graphs, kinds, starts, numbers, strict=True):
        own = torch.arange(first[kind], first[kind + 1], device=device)
        row = torch.cat([own, first[-1] + order[torch.searchsorted(halo_ids, ids_)]])
        source, target = graph.local_edge_index
        ends.append(torch.stack([row[source], target + start]))
    halo = Halo(
        first[-1], torch.cat(sent), tuple(map(len, sent)), tuple(map(len, received)), ids, torch.cat(received),
        graphs[0].halo.group,
    )  # fmt: skip
    chunk = next((graph.chunk for graph in graphs if graph.chunk is not None), None)
    return LocalGraph(torch.cat(ends, dim=1), halo, targets, chunk)


def _alone(ends: Tensor, sizes: tuple[int, int]) -> Graph:
    return Graph._of(*ordinary(prepare.take, ends, sizes))


class ReversedPart(LocalGraph):
    """A part with every edge turned round. It has the edges of the other; programs on it run there, with their ends
    swapped: see :mod:`gdsl.passes.reversed`.
    """

    first: LocalGraph

    @classmethod
    def _of_part(cls, first: LocalGraph) -> ReversedPart:
        graph = cls.__new__(cls)
        graph._setup_local(first._edges, first._sizes, first.halo, first._two_sets, first.chunk, first.edge_weight)
        graph.first = first
        graph.num_sources, graph.num_targets = first.num_targets, first.num_sources
        return graph

    @property
    def walked(self) -> LocalGraph:
        return self.first

    @property
    def shape(self) -> GraphShape:
        shape = replace(self.first.shape, reversed=True)
        self.tag = self.first.tag
        return shape

    @property
    def local_edge_index(self) -> Tensor:
        return self.first.local_edge_index.flip(0)

    @property
    def parts(self) -> tuple[WalkedPart, ...]:
        return self.first.parts

    @property
    def in_edges(self) -> Order:
        self._refuse("in_edges of a graph that is turned round")

    @property
    def out_edges(self) -> Order:
        self._refuse("out_edges of a graph that is turned round")

    @property
    def in_degree(self) -> Tensor:
        self._refuse("in_degree of a graph that is turned round")

    def reverse(self) -> LocalGraph:
        return self.first

    def with_more_loops(self) -> LocalGraph:
        return self.first.with_more_loops().reverse()

    @property
    def reverses(self) -> Reverses:
        return self.first.reverses

    def row_ids(self, domain: Domain) -> Tensor:
        swapped = {Domain.SOURCE: Domain.TARGET, Domain.TARGET: Domain.SOURCE}
        return self.first.row_ids(swapped.get(domain, domain))

    def _rewire(self, loops: bool, remaining: bool = False) -> Rewired:
        rewired = self.first._rewire(loops, remaining)
        assert isinstance(rewired.graph, LocalGraph)
        return _ReversedRewired(rewired.graph.reverse(), remaining)

    def to(self, device: torch.device | str | int) -> LocalGraph:
        return self.first.to(device).reverse()


class _ReversedRewired(Rewired):
    """Other loops of a part that is turned round, whose targets have edges elsewhere, too."""

    @property
    def target(self) -> Tensor:
        raise GraphError(
            "what comes into a node of a graph that is turned round lies on several processes, and no self-loop is "
            "made of it: give a number for it"
        )


class ReadRows(torch.autograd.Function):
    """The rows that edges read; gradients go back to the owners."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, halo: Halo) -> Tensor:
        ctx.halo = halo
        return exchange(halo, [rows.detach().contiguous()], [None])[0]()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _GiveRows.apply(grad, ctx.halo), None


class _GiveRows(torch.autograd.Function):
    """What edges have for the rows that they read, added up by the owners: the adjoint of the other."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, halo: Halo) -> Tensor:
        ctx.halo = halo
        return collect(halo, [grad.detach()], ["sum"], [None])[0]()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return ReadRows.apply(grad, ctx.halo), None


def read_by_edges(graph: Graph, x: Tensor, turned: bool = False) -> Tensor:
    """The rows [num_readable, ...] of values [num_sources, ...] of any dtype that the edges of a graph read, for what
    runs in torch; all processes call it together.

    turned: whether the edges may be turned round

    Raises ``GraphError``, on every process alike, where they give rows of other shapes or dtypes, and where edges are
    turned round that must not be.
    """
    if not isinstance(graph, LocalGraph):
        return x
    need_forward(graph, turned)
    if len(x) != graph.num_sources:
        raise GraphError(f"{graph.num_sources} nodes are owned here, and there are {len(x)} rows")
    agree_on(graph.halo, f"rows of {short(x.dtype)} {list(x.shape[1:])}")
    if x.is_complex():
        return torch.view_as_complex(ReadRows.apply(torch.view_as_real(x), graph.halo))
    return ReadRows.apply(x, graph.halo)


def need_forward(graph: LocalGraph, turned: bool = False) -> None:
    """Raise ``GraphError`` for a part that is turned round, unless it may be."""
    if isinstance(graph, ReversedPart) and not turned:
        raise GraphError(
            'this layer is not distributed with flow="target_to_source": run it on the whole graph, in one process'
        )


def added_by_owners(graph: Graph, value: Tensor) -> Tensor:
    """The rows [num_sources, ...] of what edges have for the rows [num_readable, ...] that they read, floats, added up
    over all processes."""
    return _GiveRows.apply(value, graph.halo) if isinstance(graph, LocalGraph) else value


def of_own_nodes(graph: Any, weight: Tensor) -> Tensor:
    """Of a weight with a row for each node those of own nodes, [n, ...]; itself where it has no others. All processes
    call it together.

    Raises ``GraphError`` where the graph has another number of nodes.
    """
    if not isinstance(graph, LocalGraph) or len(weight) == graph.halo.own != graph.total:
        return weight
    graph.need_nodes(len(weight))
    return weight.index_select(0, graph.halo.own_ids)

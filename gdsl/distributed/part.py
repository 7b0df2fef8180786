"""What one process has of a graph, and how values of all nodes and of all edges come to it and go back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gdsl.data import given
from gdsl.data.batch import Type
from gdsl.distributed import wire
from gdsl.distributed.processes import agreeing
from gdsl.errors import InputError
from gdsl.runtime.answers import from_all
from gdsl.runtime.graph import Graph
from gdsl.runtime.halo import Halo
from gdsl.runtime.local import LocalGraph
from gdsl.runtime.together import mean, total


@dataclass(frozen=True, eq=False)
class PartEdges:
    """The edges of one type whose targets are owned here.

    source, target   the types of nodes
    total            how many edges there are in all parts
    edge_index       [2, E] own rows of targets; of sources own rows, then those of the halo
    edge_ids         [E] int64 the numbers of these edges in the whole graph, rising
    send, send_counts, receive_counts, halo_ids  as in :class:`gdsl.distributed.Halo`
    """

    source: str
    target: str
    total: int
    edge_index: Tensor
    edge_ids: Tensor
    send: Tensor
    send_counts: tuple[int, ...]
    receive_counts: tuple[int, ...]
    halo_ids: Tensor


@dataclass(frozen=True, eq=False)
class GraphPart:
    """One process's part of a graph: some nodes, and all edges into them. Made by ``partition`` or ``load_part``.

    rank, parts  its number, and how many there are
    fingerprint  of the whole graph, before the colon, and of how it is divided
    counts       of each type of nodes, "" where there is one, how many each process owns
    own          of each type of nodes [n] int64 the numbers in the whole graph of those owned here, rising
    edges        of each type of edges, "" where there is one
    group        the processes; None for all
    nodes, edge_values  values that were saved with it, by name and type: rows of own nodes, and of edges here

    What a method gives of all nodes, every process must ask for.
    """

    rank: int
    parts: int
    fingerprint: str
    counts: Mapping[str, tuple[int, ...]]
    own: Mapping[str, Tensor]
    edges: Mapping[Type, PartEdges]
    group: ProcessGroup | None = None
    nodes: Mapping[str, Any] = field(default_factory=dict)
    edge_values: Mapping[str, Any] = field(default_factory=dict)

    def local(self, chunk: int | None = None) -> Any:
        """The ``LocalGraph`` that layers take; of several types of edges a dictionary of them.

        chunk: how many rows of one other process are here at a time, the same on all processes: fewer take less memory,
               and more messages; None for all rows of all others at once

        Raises ``GraphError`` for a chunk without a row.
        """
        graphs = self._graphs
        if chunk not in graphs:
            graphs[chunk] = {type: self._graph(edges, chunk) for type, edges in self.edges.items()}
        return graphs[chunk] if len(self.edges) > 1 else next(iter(graphs[chunk].values()))

    @cached_property
    def _graphs(self) -> dict[int | None, dict[Type, Graph]]:
        return {}

    def _graph(self, edges: PartEdges, chunk: int | None) -> Graph:
        own, targets = self.own[edges.source], self.own[edges.target]
        two = edges.source != edges.target
        halo = Halo(
            len(own), edges.send, edges.send_counts, edges.receive_counts, own, edges.halo_ids, self.group,
            edges.edge_ids, targets if two else None,
        )  # fmt: skip
        return LocalGraph(edges.edge_index, halo, len(targets) if two else None, chunk)

    # -- numbers ---------------------------------------------------------------------------------

    def node_ids(self, type: str | None = None) -> Tensor:
        """[n] int64 the numbers in the whole graph of the nodes that are owned here, of a type where there are
        several."""
        return self.own[self._node_type(type)]

    def edge_ids(self, type: Type | None = None) -> Tensor:
        """[e] int64 the numbers in the whole graph of the edges here."""
        return self.edges[self._edge_type(type)].edge_ids

    def num_nodes(self, type: str | None = None) -> int:
        """Of all processes."""
        return sum(self.counts[self._node_type(type)])

    def num_edges(self, type: Type | None = None) -> int:
        """Of all processes."""
        return self.edges[self._edge_type(type)].total

    # -- values ----------------------------------------------------------------------------------

    def scatter(self, x: Any, type: str | None = None) -> Tensor:
        """[n, ...] the rows of own nodes, of values [N, ...] of all nodes.

        x: on every process, or on one, where the others give None: a tensor, an array, one that is mapped (of which own
           rows alone are read), or the path of a ``.npy`` file

        Raises ``InputError`` on every process for values of another length, or that are not alike everywhere.
        """
        type = self._node_type(type)
        return self._scattered(x, self.own[type], self.counts[type], "nodes", type)

    def scatter_edges(self, x: Any, type: Type | None = None) -> Tensor:
        """[e, ...] the rows of edges here, of values [E, ...] of all edges; else as ``scatter``."""
        type = self._edge_type(type)
        return self._scattered(x, self.edges[type].edge_ids, self._edge_counts[type], "edges", type)

    def gather(self, y: Tensor, type: str | None = None) -> Tensor:
        """[N, ...] on every process, from the rows [n, ...] of own nodes on each.

        It is differentiable where every process makes the same of it: gradients are summed over all processes, which
        ``average_gradients`` and DDP then divide.

        Raises ``InputError`` on every process for rows of another number, or that are not alike everywhere.
        """
        type = self._node_type(type)
        return self._gathered(y, self.counts[type], lambda: self._all_nodes[type], "nodes", type)

    def gather_edges(self, y: Tensor, type: Type | None = None) -> Tensor:
        """[E, ...] on every process, from the rows [e, ...] of edges on each; else as ``gather``."""
        type = self._edge_type(type)
        return self._gathered(y, self._edge_counts[type], lambda: self._all_edges[type], "edges", type)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, on each of them; differentiable as ``gather`` is."""
        return total(value, self.group)

    def mean(self, rows: Tensor) -> Tensor:
        """The mean of rows [n, ...] over all processes, such as the losses of nodes: what one process with all of them
        computes. Differentiable as ``gather`` is; 0 / 0 where no process has any."""
        return mean(rows, self.group)

    def _scattered(self, x: Any, ids: Tensor, counts: tuple[int, ...], what: str, type: Type) -> Tensor:
        of, size = _of(type), sum(counts)
        given_so: Any = None
        about: Any = None
        with agreeing("values", self.group):
            if x is not None:
                given_so = _array(x, f"values of {what}{of}")
                if given_so.ndim < 1 or given_so.shape[0] != size:
                    raise InputError(
                        f"values of {what}{of} must have {size} rows, and their shape is {list(given_so.shape)}"
                    )
                about = (tuple(given_so.shape[1:]), str(given_so.dtype))
        said = from_all(about, self.group)
        have = [k for k, found in enumerate(said) if found is not None]
        if not have:
            raise InputError(f"no process gives values of {what}{of}: one of them must, or all")
        if 1 < len(have) < len(said):
            raise InputError(f"values of {what}{of} are given by processes {have}: give them on one process, or on all")
        other = next((k for k in have if said[k] != said[have[0]]), None)
        if other is not None:
            raise InputError(
                f"values of {what}{of} differ: process {have[0]} has rows of {_row(said[have[0]])}, process {other} of "
                f"{_row(said[other])}"
            )
        if len(have) == len(said):
            return _rows(given_so, ids)
        return self._from_one(given_so, have[0], ids, counts, said[have[0]])

    def _from_one(self, x: Any, source: int, ids: Tensor, counts: tuple[int, ...], about: Any) -> Tensor:
        if self.rank != source:
            wire.send_rows(ids, source, self.group)
            return wire.receive_rows(len(ids), about[0], _dtype(about[1]), source, self.group)
        for k, count in enumerate(counts):
            if k != source:
                wire.send_rows(_rows(x, wire.receive_rows(count, (), torch.int64, k, self.group)), k, self.group)
        return _rows(x, ids)

    def _gathered(self, y: Any, counts: tuple[int, ...], ids: Any, what: str, type: Type) -> Tensor:
        with agreeing(f"rows of {what}{_of(type)}", self.group) as found:
            if not isinstance(y, Tensor) or not y.dim() or len(y) != counts[self.rank]:
                has = f"[{', '.join(map(str, y.shape))}]" if isinstance(y, Tensor) else given.shown(y)
                raise InputError(f"{counts[self.rank]} rows of {what}{_of(type)} are owned here, and {has} is given")
            found["value"] = f"rows of {_row((tuple(y.shape[1:]), str(y.dtype)))}"
        return _Gather.apply(y, self, counts, ids())

    # -- where rows of others are ----------------------------------------------------------------

    @cached_property
    def _all_nodes(self) -> dict[str, Tensor]:
        """[N] the numbers of all nodes, process by process."""
        return {type: self._of_all(self.own[type], self.counts[type]) for type in self.own}

    @cached_property
    def _all_edges(self) -> dict[Type, Tensor]:
        return {type: self._of_all(edges.edge_ids, self._edge_counts[type]) for type, edges in self.edges.items()}

    @cached_property
    def _edge_counts(self) -> dict[Type, tuple[int, ...]]:
        said = from_all({type: len(edges.edge_ids) for type, edges in self.edges.items()}, self.group)
        return {type: tuple(found[type] for found in said) for type in self.edges}

    def _of_all(self, rows: Tensor, counts: tuple[int, ...]) -> Tensor:
        """[sum of counts, ...] the rows of all processes, in the order of ranks."""
        empty = rows[:0]
        return torch.cat([
            wire.broadcast_rows(rows if k == self.rank else empty, k, n, self.group) for k, n in enumerate(counts)
        ])  # fmt: skip

    # -- arguments -------------------------------------------------------------------------------

    def _node_type(self, asked: str | None) -> str:
        return _chosen(asked, self.own, "nodes")

    def _edge_type(self, asked: Type | None) -> Type:
        return _chosen(asked, self.edges, "edges")

    def __repr__(self) -> str:
        nodes = sum(map(len, self.own.values()))
        edges, halo = (sum(len(getattr(e, n)) for e in self.edges.values()) for n in ("edge_ids", "halo_ids"))
        return f"GraphPart({self.rank} of {self.parts}, {nodes:,} own nodes, {edges:,} edges, halo {halo:,})"


class _Gather(torch.autograd.Function):
    """The rows of all processes in the order of the whole graph."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, part: GraphPart, counts: tuple[int, ...], ids: Tensor) -> Tensor:
        first = sum(counts[: part.rank])
        ctx.part, ctx.ids = part, ids[first : first + len(rows)]
        found = part._of_all(rows, counts)
        return torch.empty_like(found).index_copy_(0, ids.to(found.device), found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return total(grad, ctx.part.group).index_select(0, ctx.ids.to(grad.device)), None, None, None


def _array(x: Any, what: str) -> Any:
    """A tensor, or an array of NumPy that may lie in a file."""
    if isinstance(x, str | Path):
        path = given.path_to_read(x)
        try:
            x = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise InputError(f"{path} is no file of one array (.npy): {error}") from None
    if isinstance(x, Tensor):
        if x.layout is not torch.strided:
            raise InputError(f"{what} must be a dense tensor")
        return x.detach()
    if not isinstance(x, np.ndarray):
        return given.tensor(what, x)
    try:
        torch.from_numpy(np.empty(0, x.dtype))
    except TypeError:
        raise InputError(f"{what} hold {x.dtype}, which tensors do not") from None
    return x


def _rows(x: Any, ids: Tensor) -> Tensor:
    """Some rows, in memory of their own."""
    return x.index_select(0, ids.to(x.device)) if isinstance(x, Tensor) else torch.from_numpy(x[ids.numpy()])


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise InputError(f"tensors cannot hold {name}")
    return found


def _row(about: Any) -> str:
    return f"{about[1].removeprefix('torch.')} {list(about[0])}"


def _of(type: Type) -> str:
    return f" of type {type!r}" if type else ""


def _chosen(asked: Any, types: Mapping[Any, Any], what: str) -> Any:
    if asked is None and len(types) == 1:
        return next(iter(types))
    if asked not in types:
        names = ", ".join(map(repr, types))
        raise InputError(f"there are {what} of the types {names}: say of which values are meant, not {asked!r}")
    return asked

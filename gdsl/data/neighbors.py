"""Batches of sampled neighbourhoods. Interface of ``torch_geometric.loader.NeighborLoader``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.batch import Batch, EdgeType, Store, Type, ordinary
from gdsl.data.epochs import Epochs, mixed
from gdsl.data.sampled import DISJOINT, INDUCED, LAST, REPLACE, Sampled
from gdsl.data.sampler import Sampler, kind_of
from gdsl.data.source import Source, source_of
from gdsl.data.topology import counted
from gdsl.errors import InputError
from gdsl.runtime import prepare
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.graph import Graph
from gdsl.runtime.order import INT32_MAX, EdgeEnds, Facts

FanOuts = Sequence[int] | Mapping[EdgeType, Sequence[int]]

SUBGRAPHS = ("directional", "bidirectional", "induced")
STRATEGIES = ("uniform", "last")


class Neighborhoods(Epochs):
    """What loaders of sampled neighbourhoods share: see :class:`NeighborLoader`.

    ``for_training`` tells that batches go through a backward pass as well.
    """

    for_training = True

    def __init__(
        self,
        data: Any,
        num_neighbors: FanOuts,
        replace: bool = False,
        subgraph_type: str = "directional",
        disjoint: bool = False,
        temporal_strategy: str = "uniform",
        time_attr: str | None = None,
        weight_attr: str | None = None,
        transform: Callable[[Batch], Any] | None = None,
        directed: bool = True,
        **settings: Any,
    ):
        super().__init__(transform=transform, **settings)
        self.data = data
        self.source = source_of(data)
        asked = subgraph_type if given.flag("directed", directed) else "induced"
        self.subgraph_type = getattr(asked, "value", asked)
        if self.subgraph_type not in SUBGRAPHS:
            raise InputError(f"subgraph_type is one of {', '.join(SUBGRAPHS)}, not {subgraph_type!r}")
        if self.subgraph_type == "bidirectional" and self.source.is_hetero:
            raise InputError("subgraph_type='bidirectional' is for nodes of one type; of several take 'induced'")
        if temporal_strategy not in STRATEGIES:
            raise InputError(f"temporal_strategy is one of {', '.join(STRATEGIES)}, not {temporal_strategy!r}")
        for name, value in (("time_attr", time_attr), ("weight_attr", weight_attr)):
            if value is not None and not isinstance(value, str):
                raise InputError(f"{name} must be the name of an attribute, not {given.shown(value)}")
        if time_attr is not None and weight_attr is not None:
            raise InputError("edges are drawn by time or by weight, not by both: leave out time_attr or weight_attr")
        self.node_time, edge_time = _times(self.source, time_attr)
        for type, graph in self.source.graphs.items():
            if (time := self.node_time.get(self.source.ends(type)[0])) is not None:
                edge_time[type] = time[graph.edge_index[0]]
        self.temporal = time_attr is not None
        self.disjoint = given.flag("disjoint", disjoint) or self.temporal
        self.replace = given.flag("replace", replace)
        flags = (
            (REPLACE if self.replace else 0)
            | (DISJOINT if self.disjoint else 0)
            | (LAST if self.temporal and temporal_strategy == "last" else 0)
            | (INDUCED if self.subgraph_type == "induced" else 0)
        )
        self.sampler = _sampler(self.source, _fan_outs(self.source, num_neighbors), weight_attr, edge_time, flags)

    @ordinary
    def sampled(self, seeds: dict[str, Tensor], key: int, times: Tensor | None) -> Batch:
        """The batch of the neighbourhood of some nodes by their type, without what belongs to the seeds."""
        types = self.source.node_types
        found = self.sampler({types.index(type): nodes for type, nodes in seeds.items()}, key, times)
        stores: dict[Type, Store] = {}
        for k, type in enumerate(types):
            stores[type] = self._node_store(found, k, type)
        for k, edge_type in enumerate(self.source.edge_types):
            stores[edge_type] = self._edge_store(found, k, edge_type, stores.get(""))
        if not self.source.is_hetero:
            only = stores[""]
            return Batch(_attributes(only), only._graph)
        return Batch({name: v.value for name, v in self.source.values.get("", {}).items()}, stores=stores)

    def finished(self, batch: Batch) -> Batch:
        """With what a backward pass asks for, where this is a thread that has the time."""
        if self.num_workers and self.for_training:
            for store in (batch, *(batch[type] for type in batch.edge_types)):
                if "edge_index" in store and store.num_edges:
                    _ = store.graph.out_edges
        return batch

    def _node_store(self, found: Sampled, k: int, type: str) -> Store:
        nodes = found.nodes[k]
        parts = part_of(self.source, type, "nodes", nodes)
        parts.update(num_nodes=len(nodes), n_id=nodes)
        if found.trees is not None:
            parts["batch"] = found.trees[k]
        if self.subgraph_type == "directional":
            parts["num_sampled_nodes"] = found.num_nodes[k]
        return Store(parts)

    def _edge_store(self, found: Sampled, k: int, type: Type, nodes: Store | None) -> Store:
        ends, ids, rowptr = found.ends[k], found.edges[k], found.rowptr[k]
        kind = self.sampler.kinds[k]
        sizes = len(found.nodes[kind.source]), len(found.nodes[kind.target])
        if self.subgraph_type == "bidirectional":
            ends, ids = _both_ways(ends, ids, sizes[0])
            rows = torch.arange(sizes[1] + 1, dtype=torch.int32, device=CPU)
            rowptr = torch.searchsorted(ends[1], rows, out_int32=True)
        loops = int((ends[0] == ends[1]).sum())
        graph = Graph._of(EdgeEnds(ends, Facts(loops, False, True)), sizes)
        graph.__dict__["in_edges"] = prepare.given_order(rowptr, ends[0], counted(len(ids)))
        parts = {} if nodes is None else _attributes(nodes)
        parts.update(part_of(self.source, type, "edges", ids), e_id=ids)
        if self.subgraph_type == "directional":
            parts["num_sampled_edges"] = found.num_edges[k]
        return Store(parts, graph)


class Subgraphs(Neighborhoods):
    """What loaders share that give all edges between some nodes of a graph of one type."""

    def __init__(self, data: Any, **settings: Any):
        source = source_of(data)
        if source.is_hetero:
            raise InputError(f"{type(self).__name__} takes a graph with nodes and edges of one type")
        super().__init__(source, [], subgraph_type="induced", **settings)
        self.data = data

    @property
    def graph(self) -> Graph:
        """The whole one."""
        return self.source.graphs[""]

    @property
    def num_nodes(self) -> int:
        """Of the whole graph."""
        return self.source.num_nodes[""]

    def between(self, nodes: Tensor) -> Batch:
        """Some nodes, each of them once, and all edges between them."""
        return self.finished(self.sampled({"": nodes}, 0, None))


class NeighborLoader(Neighborhoods):
    """Batches of seeds with sampled neighbourhoods, ready for layers: edges come sorted by target.

    data:          a torch_geometric ``Data`` or ``HeteroData``, or a ``NodeData``
    num_neighbors: how many edges into each node are taken in each hop, -1 for all; of several types a list for all of
                   them, or one for each
    input_nodes:   the seeds: numbers or a mask; None for all. Of several types ``"paper"``, or ``("paper", mask)``
    input_time:    [seeds] their times, where they are others than those of the nodes
    replace:       draws with replacement
    subgraph_type: "directional" for the sampled edges, "bidirectional" for them both ways, "induced" for all edges
                   between the nodes that were met
    disjoint:      each seed has a neighbourhood of its own, told by ``batch``; so with times
    time_attr:     an attribute of nodes or of edges: no neighbour is taken that is later than the seed
    temporal_strategy: "uniform", or "last" for the latest ones
    weight_attr:   an attribute of edges: each is drawn by its weight; one of weight zero is not drawn

    Other arguments are those of :class:`gdsl.data.epochs.Epochs`; batches have torch_geometric's attributes: ``n_id``,
    ``e_id``, ``batch_size``, ``input_id``, ``num_sampled_nodes``, ``num_sampled_edges``, ``seed_time``. The first
    ``batch_size`` nodes are the seeds. ``is_sorted`` and ``filter_per_worker`` are not needed, and taken for the sake
    of programs that have them.

    A seed gives the same sample for any number of threads. Memory is that of the graph and of a few batches.

    Raises ``InputError`` and ``GraphError`` before anything is sampled.
    """

    def __init__(
        self,
        data: Any,
        num_neighbors: FanOuts,
        input_nodes: Any = None,
        input_time: Tensor | None = None,
        replace: bool = False,
        subgraph_type: str = "directional",
        disjoint: bool = False,
        temporal_strategy: str = "uniform",
        time_attr: str | None = None,
        weight_attr: str | None = None,
        transform: Callable[[Batch], Any] | None = None,
        is_sorted: bool = False,
        filter_per_worker: bool | None = None,
        directed: bool = True,
        **settings: Any,
    ):
        super().__init__(
            data, num_neighbors, replace, subgraph_type, disjoint, temporal_strategy, time_attr, weight_attr, transform,
            directed, **settings,
        )  # fmt: skip
        self.input_type, self.input_nodes, self.input_id = _inputs(self.source, input_nodes)
        self.input_time = _seed_times(self, input_time)

    def _items(self) -> int:
        return len(self.input_nodes)

    def _make(self, items: Tensor, key: int) -> Batch:
        seeds = self.input_nodes[items]
        times = None if self.input_time is None else self.input_time[items]
        batch = self.sampled({self.input_type: seeds}, key, times)
        own: Store = batch[self.input_type] if self.input_type else batch
        own.input_id = items if self.input_id is None else self.input_id[items]
        own.batch_size = len(items)
        if times is not None:
            own.seed_time = times
        return self.finished(batch)

    def __call__(self, index: Any) -> Batch:
        """The batch of some of the input nodes, by their place among these; of the coming epoch's draws."""
        items = given.tensor("the places of input nodes", index).reshape(-1)
        if items.numel() and not given.is_integral(items):
            raise InputError(f"the places of input nodes must be integers, not {items.dtype}")
        items = items.long()
        wrong = (items < 0) | (items >= len(self.input_nodes))
        if bool(wrong.any()):
            raise InputError(f"there is no input node {int(items[wrong][0])}: there are {len(self.input_nodes)}")
        return self.transformed(self._make(items, mixed(self.seed, self.epoch)))

    def __repr__(self) -> str:
        return f"NeighborLoader({len(self.input_nodes):,} seeds, batch_size={self.batch_size})"


# -- parts of batches ------------------------------------------------------------------------------


def _attributes(store: Store) -> dict[str, Any]:
    return {name: value for name, value in store.__dict__.items() if not name.startswith("_")}


def part_of(source: Source, type: Type, of: str, ids: Tensor) -> dict[str, Any]:
    """What belongs to some nodes or edges of a type, and what belongs to neither."""
    return {
        name: value.index_select(along, ids.to(value.device)) if owner else value
        for name, (value, owner, along) in source.values[type].items()
        if owner in (of, None)
    }


def _both_ways(ends: Tensor, ids: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Edges and their reverse ones, each once, by target; of several that are alike the first id is kept."""
    wide = torch.cat([ends, ends.flip(0)], dim=1).long()
    flat, place = torch.sort(wide[1] * nodes + wide[0], stable=True)
    first = torch.ones_like(flat, dtype=torch.bool)
    first[1:] = flat[1:] != flat[:-1]
    flat = flat[first]
    return torch.stack([flat % max(nodes, 1), flat // max(nodes, 1)]).int(), torch.cat([ids, ids])[place[first]]


# -- arguments -------------------------------------------------------------------------------------


def _fan_outs(source: Source, asked: Any) -> list[list[int]]:
    if isinstance(asked, Mapping):
        unknown = [t for t in asked if t not in source.edge_types]
        if unknown:
            raise InputError(f"num_neighbors names edges {unknown[0]!r}, and there are {source.edge_types}")
        missing = [t for t in source.edge_types if t not in asked]
        if missing:
            raise InputError(f"num_neighbors has nothing for edges {missing[0]!r}")
        lists = [asked[t] for t in source.edge_types]
    else:
        own = getattr(asked, "values", asked)  # of torch_geometric's ``NumNeighbors``; of a tensor, a method
        lists = [asked if callable(own) else own for _ in source.edge_types]
    found = []
    for fan_outs in lists:
        if isinstance(fan_outs, str) or not isinstance(fan_outs, Iterable) or getattr(fan_outs, "ndim", 1) != 1:
            raise InputError(f"num_neighbors must be a list, one fan-out for each hop, as [15, 10], not {fan_outs!r}")
        found.append([_fan_out(number) for number in fan_outs])
    if len({len(f) for f in found}) > 1:
        raise InputError("num_neighbors must have as many hops for each type of edges; write 0 where none is taken")
    return found


def _fan_out(number: Any) -> int:
    if not given.is_number(number) or int(number) < -1:
        raise InputError(f"a fan-out is a number of edges, or -1 for all of them, not {number!r}")
    return min(int(number), INT32_MAX)  # no node has more, and no sample


def _times(source: Source, name: str | None) -> tuple[dict[str, Tensor], dict[Type, Tensor]]:
    """The times of nodes and of edges, one of which is empty."""
    if name is None:
        return {}, {}
    nodes, edges = source.of_nodes(name), source.of_edges(name)
    if nodes and edges:
        raise InputError(f"`{name}` is a time of both nodes and edges: give one of them another name")
    if not nodes and not edges:
        raise InputError(f"`{name}` is neither an attribute [N] of nodes nor one [E] of edges")
    for value in (*nodes.values(), *edges.values()):
        if value.dim() != 1 or value.is_floating_point() or value.is_complex() or value.dtype is torch.bool:
            raise InputError(f"times must be integers [N], and `{name}` is {value.dtype} {list(value.shape)}")
    return {t: v.cpu().long() for t, v in nodes.items()}, {t: v.cpu().long() for t, v in edges.items()}


def _sampler(
    source: Source, fan_outs: list[list[int]], weight: str | None, edge_time: Mapping[Type, Tensor], flags: int
) -> Sampler:
    weights = {} if weight is None else source.weights(weight)
    if weight is not None and not weights:
        raise InputError(f"`{weight}` is no attribute [E] of edges")
    for value in weights.values():
        given.weights(f"the weights `{weight}`", value)
    types = source.node_types
    kinds = []
    for edge_type, graph in source.graphs.items():
        first, last = (types.index(t) for t in source.ends(edge_type))
        kinds.append(kind_of(graph.in_edges, first, last, weights.get(edge_type), edge_time.get(edge_type)))
    return Sampler(list(source.num_nodes.values()), kinds, fan_outs, flags)


def _inputs(source: Source, asked: Any) -> tuple[str, Tensor, Tensor | None]:
    """The type of the seeds, their numbers, and their ids where these are not their places."""
    type = ""
    if source.is_hetero:
        type, asked = (asked, None) if isinstance(asked, str) else asked if _is_pair(asked) else ("", asked)
        if type not in source.num_nodes:
            names = ", ".join(map(repr, source.node_types))
            raise InputError(f"of several types input_nodes is a type or a pair (type, nodes); there are {names}")
    elif isinstance(asked, str) or _is_pair(asked):
        raise InputError(f"all nodes are of one type, and input_nodes names {asked!r}: give numbers, a mask or None")
    count = source.num_nodes[type]
    if asked is None:
        return type, torch.arange(count, device=CPU), None
    nodes = given.tensor("input_nodes", asked)
    if nodes.dtype is torch.bool:
        if nodes.shape != (count,):
            raise InputError(f"a mask of input nodes must have shape [{count}], not {list(nodes.shape)}")
        nodes = nodes.nonzero().squeeze(1)
        return type, nodes, nodes
    if nodes.numel() == 0:
        nodes = nodes.long()
    if nodes.dim() != 1 or not given.is_integral(nodes):
        raise InputError(f"input_nodes must be integers [seeds] or a mask, not {nodes.dtype} {list(nodes.shape)}")
    nodes = nodes.long()
    wrong = (nodes < 0) | (nodes >= count)
    if bool(wrong.any()):
        raise InputError(f"input node {int(nodes[wrong][0])} is not there: there are {count}, numbered from 0")
    return type, nodes, None


def _is_pair(asked: Any) -> bool:
    return isinstance(asked, tuple | list) and len(asked) == 2 and isinstance(asked[0], str)


def _seed_times(loader: NeighborLoader, asked: Tensor | None) -> Tensor | None:
    if not loader.temporal:
        if asked is not None:
            raise InputError("input_time needs time_attr, which says what the times of neighbours are")
        return None
    if asked is None:
        times = loader.node_time.get(loader.input_type)
        if times is None:
            raise InputError("the seeds have no times of their own: give input_time")
        return times[loader.input_nodes].contiguous()
    return given.integers("input_time", asked, tuple(loader.input_nodes.shape))

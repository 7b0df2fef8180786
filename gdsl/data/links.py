"""Batches of edges to be told from pairs that are none. Interface of ``torch_geometric.loader.LinkNeighborLoader``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.batch import Batch, Type
from gdsl.data.epochs import mixed
from gdsl.data.neighbors import FanOuts, Neighborhoods
from gdsl.data.source import Source
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU


@dataclass(frozen=True)
class Negatives:
    """How pairs that are no edges are drawn, as torch_geometric's ``NegativeSampling`` says it.

    mode    "binary": pairs of any two nodes; "triplet": other targets of the sources of edges
    amount  of them for each edge
    src_weight, dst_weight  [nodes] the chances of the nodes; all the same where they are None
    """

    mode: str
    amount: float = 1
    src_weight: Tensor | None = None
    dst_weight: Tensor | None = None

    @classmethod
    def of(cls, asked: Any) -> Negatives | None:
        """From a mode, a tuple, a dictionary, or torch_geometric's own object. Raises ``InputError`` for others."""
        if asked is None:
            return None
        try:
            if isinstance(asked, Mapping):
                found = cls(**asked)
            elif isinstance(asked, str | tuple | list):
                found = cls(*([asked] if isinstance(asked, str) else asked))
            else:
                found = cls(asked.mode, asked.amount, asked.src_weight, asked.dst_weight)
        except (TypeError, AttributeError):
            raise InputError(
                f"neg_sampling must be 'binary', 'triplet', or one of them with an amount and weights, not {asked!r}"
            ) from None
        mode = getattr(found.mode, "value", found.mode)
        if mode not in ("binary", "triplet"):
            raise InputError(f"negatives are 'binary' or 'triplet', not {mode!r}")
        amount = given.positive("the amount of negatives", found.amount)
        if mode == "triplet" and amount != int(amount):
            raise InputError(f"the amount of negatives must be a whole number above zero, not {found.amount}")
        weights = (found.src_weight, found.dst_weight)
        return cls(mode, amount, *(None if w is None else given.tensor("a weight of nodes", w) for w in weights))


class LinkNeighborLoader(Neighborhoods):
    """Batches of edges, with pairs that are none, and the sampled neighbourhoods of their ends.

    data, num_neighbors and so on: see :class:`gdsl.data.NeighborLoader`
    edge_label_index: [2, links] the pairs of nodes; None for all edges. Of several types the type of an edge, or a pair
                      (type, pairs)
    edge_label:       [links] their labels; with binary negatives, which are zero, labels that begin at zero are raised
                      by one
    edge_label_time:  [links] their times, with ``time_attr`` and never without
    neg_sampling:     "binary", "triplet" or torch_geometric's ``NegativeSampling``. A pair that is drawn may be an edge
                      after all, as in torch_geometric
    neg_sampling_ratio: so many binary negatives for each edge

    Batches have ``edge_label_index``, ``edge_label``, ``edge_label_time`` and ``input_id``, with triplets
    ``src_index``, ``dst_pos_index``, ``dst_neg_index`` and ``seed_time``: places of nodes of the batch. Of several
    types they belong to the edges' type or to the nodes at its ends.

    Raises ``InputError`` and ``GraphError`` before anything is sampled.
    """

    def __init__(
        self,
        data: Any,
        num_neighbors: FanOuts,
        edge_label_index: Any = None,
        edge_label: Tensor | None = None,
        edge_label_time: Tensor | None = None,
        replace: bool = False,
        subgraph_type: str = "directional",
        disjoint: bool = False,
        temporal_strategy: str = "uniform",
        neg_sampling: Any = None,
        neg_sampling_ratio: float | None = None,
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
        self.input_type, self.links = _links(self.source, edge_label_index)
        self.ends = self.source.ends(self.input_type)
        self.negatives = _negatives(neg_sampling, neg_sampling_ratio)
        self.label = self._labels(edge_label)
        self.time = self._times(edge_label_time)
        self._check_negatives()

    def _labels(self, asked: Any) -> Tensor | None:
        if asked is None:
            return None
        label = given.tensor("edge_label", asked)
        if self.negatives is not None and self.negatives.mode == "triplet":
            raise InputError("triplets have no labels: leave out edge_label")
        if label.shape[:1] != self.links.shape[1:]:
            found = len(label) if label.dim() else "a number"
            raise InputError(f"edge_label must have one row for each of {self.links.shape[1]} links, not {found}")
        raised = self.negatives is not None and label.numel() > 0 and int(label.min()) == 0
        return label + 1 if raised else label

    def _times(self, asked: Any) -> Tensor | None:
        if (asked is None) == self.temporal:
            raise InputError("edge_label_time and time_attr go together: give both or none")
        return None if asked is None else given.integers("edge_label_time", asked, (self.links.shape[1],))

    def _check_negatives(self) -> None:
        if self.negatives is None:
            return
        for end, name in enumerate(("src_weight", "dst_weight")):
            weight, nodes = getattr(self.negatives, name), self.source.num_nodes[self.ends[end]]
            if weight is not None:
                given.weights(name, weight)
                if weight.shape != (nodes,) or not bool(weight.any()):
                    raise InputError(f"{name} must be [{nodes}], and not zero for all nodes")
            if weight is not None and self.temporal:
                raise InputError(f"negatives are drawn by time or by weight, not by both: leave out {name}")
            if not nodes:
                raise InputError(f"there is no node of type {self.ends[end]!r} that negatives could be drawn from")

    def _items(self) -> int:
        return self.links.shape[1]

    def _make(self, items: Tensor, key: int) -> Batch:
        source, target = self.links[:, items]
        time = None if self.time is None else self.time[items]
        count, triplet = len(items), self.negatives is not None and self.negatives.mode == "triplet"
        random = torch.Generator().manual_seed(mixed(key, 1) >> 1)
        # Of each pair, the link that it belongs to.
        groups = [torch.arange(count, device=CPU), torch.arange(count, device=CPU)]
        if self.negatives is not None:
            more = math.ceil(count * self.negatives.amount)
            group = torch.arange(more, device=CPU) % max(count, 1)
            if not triplet:
                source = torch.cat([source, self._drawn(0, group, time, random)])
                groups[0] = torch.cat([groups[0], group])
            target = torch.cat([target, self._drawn(1, group, time, random)])
            groups[1] = torch.cat([groups[1], group])
        batch, places = self._around((source, target), groups, time, key)
        one = batch[self.input_type] if self.input_type else batch
        one.input_id = items
        if not triplet:
            one.edge_label_index = torch.stack(places)
            one.edge_label = self._label_of(items, len(source))
            one.edge_label_time = None if time is None else torch.cat([time, time[groups[0][count:]]])
            return batch
        first, last = (batch[end] if end else batch for end in self.ends)
        first.src_index, last.dst_pos_index = places[0], places[1][:count]
        last.dst_neg_index = places[1][count:].view(-1, count).t().squeeze(1).contiguous()
        first.seed_time = last.seed_time = time
        return batch

    def _label_of(self, items: Tensor, pairs: int) -> Tensor | None:
        if self.negatives is None:
            return None if self.label is None else self.label[items]
        label = torch.ones(len(items), device=CPU) if self.label is None else self.label[items]
        return torch.cat([label, label.new_zeros((pairs - len(items), *label.shape[1:]))])

    def _drawn(self, end: int, group: Tensor, time: Tensor | None, random: torch.Generator) -> Tensor:
        """Nodes at one end of pairs that are no edges, none of them later than the link that it belongs to."""
        assert self.negatives is not None
        upto, by_time = self._upto[end], self._by_time[end]
        if upto is None and (time is None or by_time is None):
            return torch.randint(self.source.num_nodes[self.ends[end]], (len(group),), generator=random)
        drawn = torch.rand(len(group), generator=random, dtype=torch.float64)
        if upto is not None:
            return torch.searchsorted(upto, drawn * upto[-1], right=True)
        assert time is not None and by_time is not None
        # Where all nodes are later, the first one stands for none.
        allowed = torch.searchsorted(by_time[0], time[group], right=True).clamp(min=1)
        return by_time[1][torch.minimum((drawn * allowed).long(), allowed - 1)]

    @cached_property
    def _upto(self) -> list[Tensor | None]:
        """Of each end the sum of the weights of the nodes up to each, with it."""
        assert self.negatives is not None
        weights = (self.negatives.src_weight, self.negatives.dst_weight)
        return [None if weight is None else weight.double().cumsum(0) for weight in weights]

    @cached_property
    def _by_time(self) -> list[tuple[Tensor, Tensor] | None]:
        """Of each end the times of the nodes, rising, and which nodes have them."""
        times = [self.node_time.get(end) for end in self.ends]
        found = [None if time is None else time.sort(stable=True) for time in times]
        return [None if f is None else (f.values, f.indices) for f in found]

    def _around(
        self, ends: tuple[Tensor, Tensor], groups: list[Tensor], time: Tensor | None, key: int
    ) -> tuple[Batch, list[Tensor]]:
        """The batch around both ends of pairs, and the places of the ends in it."""
        same = self.ends[0] == self.ends[1]
        seeds = {self.ends[0]: torch.cat(ends)} if same else dict(zip(self.ends, ends, strict=True))
        places: dict[str, Tensor] = {}
        for type, nodes in seeds.items():
            if self.disjoint:
                places[type] = torch.arange(len(nodes), device=CPU)
            else:
                seeds[type], places[type] = nodes.unique(return_inverse=True)
        times = None if time is None else torch.cat([time[group] for group in groups])
        batch = self.sampled(seeds, key, times)
        if self.disjoint:
            # What belongs to one link, also the neighbourhoods of its other end and of its negatives, has its number.
            owner = torch.cat(groups)
            for store in (batch, *(batch[type] for type in batch.node_types)):
                if "batch" in store:
                    store.batch = owner[store.batch]
        if same:
            first = len(ends[0])
            return batch, [places[self.ends[0]][:first], places[self.ends[0]][first:]]
        return batch, [places[type] for type in self.ends]

    def __repr__(self) -> str:
        return f"LinkNeighborLoader({self.links.shape[1]:,} links, batch_size={self.batch_size})"


def _negatives(asked: Any, ratio: Any) -> Negatives | None:
    # As in torch_geometric, a ratio of zero says nothing, and any other is heard first.
    if ratio is None or ratio == 0:
        return Negatives.of(asked)
    return Negatives("binary", given.positive("neg_sampling_ratio", ratio))


def _links(source: Source, asked: Any) -> tuple[Type, Tensor]:
    type: Type = ""
    if source.is_hetero:
        if isinstance(asked, tuple) and asked and isinstance(asked[0], str):
            type, asked = asked, None
        elif isinstance(asked, tuple | list) and len(asked) == 2 and isinstance(asked[0], tuple | list):
            type, asked = tuple(asked[0]), asked[1]
        if type not in source.graphs:
            types = ", ".join(map(str, source.edge_types))
            raise InputError(f"of several types edge_label_index is a type of edges or a pair (type, pairs): {types}")
    if asked is None:
        return type, source.graphs[type].edge_index
    links = given.tensor("edge_label_index", asked)
    if links.dim() != 2 or links.shape[0] != 2 or (links.numel() and not given.is_integral(links)):
        raise InputError(f"edge_label_index must be integers [2, links], not {links.dtype} {list(links.shape)}")
    links = links.long()
    for end, nodes in enumerate(source.num_nodes[t] for t in source.ends(type)):
        wrong = (links[end] < 0) | (links[end] >= nodes)
        if bool(wrong.any()):
            link = int(wrong.nonzero()[0])
            raise InputError(f"link {link} has node {int(links[end, link])} in row {end}: there are {nodes}")
    return type, links

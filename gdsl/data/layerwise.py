"""All nodes of a large graph through a model, layer by layer: each layer on all nodes, some at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from gdsl.data import given
from gdsl.data.batch import Batch
from gdsl.data.neighbors import NeighborLoader
from gdsl.data.source import source_of
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU

# Of features of nodes, or of their types, and a batch: the next features of all nodes of the batch.
Layer = Callable[[Any, Batch], Any]

# Nodes by which it is seen whether a layer reads farther than it may.
SEEN = 4


class LayerwiseInference:
    """What a model gives for all nodes, with all of their neighbours, in memory for a batch besides the features.

    ``LayerwiseInference(data)([first, second])`` computes ``first`` for all nodes, then ``second`` from that: each node
    once a layer, where neighbourhoods of two hops would compute most of them many times.

    data:       a torch_geometric ``Data`` or ``HeteroData``, or a ``NodeData``
    batch_size: nodes that are computed at a time
    hops:       how far a layer reads. A layer that reads a property of the neighbours' own neighbours needs 2, such as
                ``GCNConv``, which divides by their degrees
    device:     where layers run; None for where the features lie
    num_workers: threads that make batches ahead
    check:      computes a few nodes also with one hop more first, and refuses a layer that then gives something else:
                one that reads farther than ``hops``, or mixes the nodes of a batch, as batch norm does in training

    Raises ``InputError`` and ``GraphError`` for bad data before anything is computed.
    """

    def __init__(
        self,
        data: Any,
        batch_size: int = 4096,
        hops: int = 1,
        *,
        device: torch.device | str | None = None,
        num_workers: int = 1,
        check: bool = True,
    ):
        self.hops, self.device, self.check = given.count("hops", hops, 1), device, check
        source = source_of(data)
        self._x = source.of_nodes("x") if source.is_hetero else source.of_nodes("x").get("")
        # Layers are given the features that belong to them; of a batch they read its edges.
        values = {t: {k: v for k, v in source.values.get(t, {}).items() if v.of == "edges"} for t in source.values}
        self._source = dataclasses.replace(source, values=values)
        self._loaders = {
            type: self._loader(type, self.hops, batch_size=batch_size, num_workers=num_workers)
            for type in source.node_types
        }

    def _loader(self, type: str, hops: int, nodes: Tensor | None = None, **settings: Any) -> NeighborLoader:
        seeds = (type, nodes) if self._source.is_hetero else nodes
        loader = NeighborLoader(self._source, [-1] * hops, seeds, **settings)
        loader.for_training = False
        return loader

    @torch.no_grad()
    def __call__(self, layers: Iterable[Layer], x: Any = None) -> Any:
        """[N, ...] what the last layer gives for each node; of several types a dictionary.

        layers: each is called with the features [n, ...] of the nodes of a batch and the batch, which has ``graph``,
                ``edge_index``, attributes of edges, ``n_id``; it gives the next features [n, ...] of these nodes. Of
                several types features are dictionaries, of which a layer may leave out types
        x:      [N, ...] the features; None for the ``x`` of the data

        Raises ``InputError`` for a layer that reads farther than it may, or that gives anything else than such rows.
        """
        layers = list(layers) if isinstance(layers, Iterable) else [None]
        if not all(map(callable, layers)):
            raise InputError("layers must be a list of functions of features and a batch")
        found = self._x if x is None else x
        if found is None or (isinstance(found, Mapping) and not found):
            raise InputError("the data have no x: give the features as x=")
        if isinstance(found, Mapping) != self._source.is_hetero:
            raise InputError("the features must be a tensor, or of several types a dictionary with one for each")
        features = dict(found) if isinstance(found, Mapping) else {"": found}
        for type, value in features.items():
            nodes = self._source.num_nodes.get(type)
            if not isinstance(value, Tensor) or value.shape[:1] != (nodes,):
                of = f" of {type!r}" if type else ""
                raise InputError(f"the features{of} must be a tensor [{nodes}, ...], not {given.shown(value)}")
        for number, layer in enumerate(layers):
            if self.check:
                self._see(number, layer, features)
            features = self._layer(number, layer, features)
        return features if self._source.is_hetero else features[""]

    def _layer(self, number: int, layer: Layer, features: dict[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for type, loader in self._loaders.items():
            for batch in loader:
                rows = self._rows(number, layer, features, batch, type)
                if rows is None:
                    break
                own = batch[type] if type else batch
                if type not in found:
                    home = features[type].device if type in features else rows.device
                    found[type] = rows.new_empty((self._source.num_nodes[type], *rows.shape[1:]), device=home)
                first = int(own.input_id[0])
                found[type][first : first + len(rows)] = rows.to(found[type].device)
        return found

    def _rows(self, number: int, layer: Layer, features: dict[str, Tensor], batch: Batch, type: str) -> Tensor | None:
        """[seeds, ...] of a layer; None where it leaves the type out."""
        device = next(iter(features.values())).device if self.device is None else torch.device(self.device)
        ids = {t: (batch[t] if t else batch).n_id for t in features}
        parts = {t: value[ids[t].to(value.device)].to(device) for t, value in features.items()}
        batch = batch if device.type == "cpu" else batch.to(device)
        found = layer(parts if self._source.is_hetero else parts[""], batch)
        if found is None or isinstance(found, Mapping) != self._source.is_hetero:
            raise InputError(f"layer {number} must give what it takes, features of nodes, not {given.shown(found)}")
        rows = found.get(type) if isinstance(found, Mapping) else found
        own = batch[type] if type else batch
        if rows is None:
            return None
        if not isinstance(rows, Tensor) or rows.shape[:1] != (own.num_nodes,):
            shape = list(rows.shape) if isinstance(rows, Tensor) else given.shown(rows)
            raise InputError(f"layer {number} must give one row for each of {own.num_nodes} nodes, not {shape}")
        return rows[: own.batch_size]

    def _see(self, number: int, layer: Layer, features: dict[str, Tensor]) -> None:
        for type, nodes in self._source.num_nodes.items():
            if not nodes:
                continue
            seeds = torch.arange(min(nodes, SEEN), device=CPU) * (nodes // min(nodes, SEEN))
            rows = []
            for hops in (self.hops, self.hops + 1):
                (batch,) = self._loader(type, hops, seeds, batch_size=SEEN, num_workers=0)
                rows.append(self._rows(number, layer, features, batch, type))
            if rows[0] is None or rows[1] is None:
                continue
            if not torch.allclose(rows[0].double(), rows[1].double(), rtol=1e-3, atol=1e-4, equal_nan=True):
                raise InputError(
                    f"layer {number} gives nodes something else with {self.hops + 1} hops of neighbours than with "
                    f"{self.hops}: it reads farther (then set hops={self.hops + 1}), or it is not in eval mode"
                )

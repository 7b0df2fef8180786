"""One large graph that batches are sampled from: its types, its graphs, and what belongs to nodes and edges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from gdsl.data import given
from gdsl.data.batch import Type, check_name
from gdsl.data.planetoid import NodeData
from gdsl.errors import GraphError, InputError
from gdsl.runtime.graph import Graph


class SourceValue(NamedTuple):
    """An attribute: of "nodes" or "edges", which lie along a dimension, or of neither."""

    value: Any
    of: str | None = None
    along: int = 0


@dataclass(frozen=True)
class Source:
    """A graph as it is sampled.

    Types of nodes and edges are empty where there is one of each.
    """

    values: dict[Type, dict[str, SourceValue]]
    num_nodes: dict[str, int]
    graphs: dict[Type, Graph]

    @cached_property
    def node_types(self) -> list[str]:
        return list(self.num_nodes)

    @cached_property
    def edge_types(self) -> list[Type]:
        return list(self.graphs)

    @property
    def is_hetero(self) -> bool:
        return "" not in self.num_nodes

    def ends(self, edge_type: Type) -> tuple[str, str]:
        """The types of the nodes at both ends."""
        return (edge_type[0], edge_type[2]) if isinstance(edge_type, tuple) else ("", "")

    def of_nodes(self, name: str) -> dict[str, Tensor]:
        """An attribute of nodes by their type."""
        return {t: self.values[t][name].value for t in self.node_types if self._is(t, name, "nodes")}

    def of_edges(self, name: str) -> dict[Type, Tensor]:
        """An attribute of edges by their type."""
        return {t: self.values[t][name].value for t in self.edge_types if self._is(t, name, "edges")}

    def weights(self, name: str) -> dict[Type, Tensor]:
        """An attribute by its length alone, whether torch_geometric takes it for one of nodes or of edges."""
        found = {t: self.values[t][name].value for t in self.edge_types if name in self.values[t]}
        return {t: v for t, v in found.items() if isinstance(v, Tensor) and v.shape[:1] == (self.graphs[t].num_edges,)}

    def _is(self, type: Type, name: str, of: str) -> bool:
        return name in self.values[type] and self.values[type][name].of == of


def source_of(data: Any) -> Source:
    """A torch_geometric ``Data`` or ``HeteroData``, or a :class:`gdsl.data.NodeData`, as it is sampled; a source as it
    is.

    Raises ``InputError`` for anything else and where there is no ``edge_index``, ``GraphError`` for bad edges.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, NodeData):
        return _of_node_data(data)
    if not hasattr(data, "stores"):
        raise InputError(f"data must be a torch_geometric Data or HeteroData, not a {type(data).__name__}")
    hetero = hasattr(data, "node_stores") and hasattr(data, "_global_store")
    values: dict[Type, dict[str, SourceValue]] = {}
    num_nodes: dict[str, int] = {}
    for store in data.node_stores if hetero else data.stores:
        if store.num_nodes is None:
            raise InputError(f"the data do not say how many nodes{_of(store._key)} they have: set num_nodes")
        num_nodes[store._key or ""] = given.count(f"the number of nodes{_of(store._key)}", store.num_nodes, 0)
    graphs: dict[Type, Graph] = {}
    for store in data.edge_stores if hetero else data.stores:
        key: Type = store._key or ""
        if getattr(store, "edge_index", None) is None:
            raise InputError(f"the data have no edge_index{_of(key)}: neighbours are sampled over edges")
        source, target = (key[0], key[2]) if isinstance(key, tuple) else (key, key)
        for name in (source, target):
            if name not in num_nodes:
                raise InputError(f"there are edges{_of(key)}, but no nodes of type {name!r}")
        try:
            graphs[key] = Graph(store.edge_index, (num_nodes[source], num_nodes[target])).to("cpu")
        except GraphError as error:
            raise GraphError(f"edge_index{_of(key)}: {error}") from None
    for store in data.stores:
        kept = values.setdefault(store._key or "", {})
        for name, value in store.items():
            if name not in ("edge_index", "num_nodes", "adj_t") and value is not None:
                check_name(name)
                kept[name] = _value(data, store, name, value)
    return Source(values, num_nodes, graphs)


def _of_node_data(data: NodeData) -> Source:
    of_nodes = (data.x, data.y, data.train_mask, data.val_mask, data.test_mask)
    names = ("x", "y", "train_mask", "val_mask", "test_mask")
    pairs = [(name, value) for name, value in zip(names, of_nodes, strict=True) if value is not None]
    values = {name: SourceValue(value, "nodes") for name, value in pairs}
    return Source({"": values}, {"": data.num_nodes}, {"": Graph(data.edge_index, data.num_nodes)})


def _value(data: Any, store: Any, name: str, value: Any) -> SourceValue:
    for of, asked in (("nodes", "is_node_attr"), ("edges", "is_edge_attr")):
        if isinstance(value, Tensor) and hasattr(store, asked) and getattr(store, asked)(name):
            along = data.__cat_dim__(name, value, store)
            return SourceValue(value, of, along) if isinstance(along, int) else SourceValue(value)
    return SourceValue(value)


def _of(key: Any) -> str:
    return f" of type {key!r}" if key else ""

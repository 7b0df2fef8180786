"""One large graph that batches are sampled from: its types, its graphs, and what belongs to nodes and edges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from gdsl.data.batch import Type
from gdsl.errors import GraphError, InputError
from gdsl.runtime.graph import Graph


class Value(NamedTuple):
    """An attribute, and the dimension along which its nodes or edges lie; None where it belongs to neither."""

    value: Any
    along: int | None


@dataclass(frozen=True)
class Source:
    """A torch_geometric ``Data`` or ``HeteroData`` as it is sampled.

    Types of nodes and edges are empty where there is one of each.
    """

    data: Any
    values: dict[Type, dict[str, Value]]
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
        return {t: v for t in self.node_types if (v := self._of(t, name, self.num_nodes[t])) is not None}

    def of_edges(self, name: str) -> dict[Type, Tensor]:
        """An attribute of edges by their type."""
        return {t: v for t in self.edge_types if (v := self._of(t, name, self.graphs[t].num_edges)) is not None}

    def _of(self, type: Type, name: str, count: int) -> Tensor | None:
        found = self.values[type].get(name)
        if found is None or not isinstance(found.value, Tensor) or found.value.shape[:1] != (count,):
            return None
        return found.value


def source_of(data: Any) -> Source:
    """Raises ``InputError`` for what is neither ``Data`` nor ``HeteroData``, and where it has no ``edge_index``;
    ``GraphError`` for edges out of range."""
    if not hasattr(data, "stores"):
        raise InputError(f"data must be a torch_geometric Data or HeteroData, not a {type(data).__name__}")
    hetero = hasattr(data, "node_stores") and hasattr(data, "_global_store")
    values: dict[Type, dict[str, Value]] = {}
    num_nodes: dict[str, int] = {}
    for store in data.node_stores if hetero else data.stores:
        if store.num_nodes is None:
            raise InputError(f"the data do not say how many nodes{_of(store._key)} they have: set num_nodes")
        num_nodes[store._key or ""] = int(store.num_nodes)
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
                kept[name] = Value(value, _along(data, store, name, value))
    return Source(data, values, num_nodes, graphs)


def _along(data: Any, store: Any, name: str, value: Any) -> int | None:
    belongs = (hasattr(store, "is_node_attr") and store.is_node_attr(name)) or (
        hasattr(store, "is_edge_attr") and store.is_edge_attr(name)
    )
    if not belongs or not isinstance(value, Tensor):
        return None
    along = data.__cat_dim__(name, value, store)
    return along if isinstance(along, int) else None


def is_of_nodes(data: Any, type: Type, name: str) -> bool:
    """Whether an attribute of the only type belongs to nodes, and not to edges."""
    store = data[type] if type else data._store
    return hasattr(store, "is_node_attr") and bool(store.is_node_attr(name))


def _of(key: Any) -> str:
    return f" of type {key!r}" if key else ""

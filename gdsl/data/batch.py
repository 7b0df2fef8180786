"""What a loader gives: a graph of many, with attributes named as torch_geometric names them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor

from gdsl.data import topology
from gdsl.runtime.graph import Graph, graph_of, remember, remember_groups

# Of an edge type: its source, its name, its target.
EdgeType = tuple[str, str, str]
Type = str | EdgeType


# Makes tensors that every later call can use: one that is made in inference mode is of no use to a backward pass, and
# has no version that tells of a write.
ordinary = torch.inference_mode(False)


class Store:
    """The attributes of the nodes or of the edges of one type, or of a graph of one type.

    edge_index  [2, E] int64, in the order of the data set; made when it is first asked for, as ``batch`` is
    graph       the ``gdsl.Graph`` of these edges, ready for layers
    """

    _graph: Graph | None
    _version: int
    _sizes: tuple[int, int] | None
    _unmade: set[str]

    def __init__(self, attributes: dict[str, Any] | None = None, graph: Graph | None = None):
        parts = self.__dict__
        parts.update(attributes or {})
        parts["_graph"], parts["_unmade"] = graph, set()
        parts["_sizes"] = None if graph is None else (graph.num_sources, graph.num_targets)
        if graph is not None:
            parts["_unmade"].add("edge_index")
        if "ptr" in parts:
            parts["_unmade"].add("batch")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what is asked for while an object is made anew
            raise AttributeError(name)
        if name == "graph":
            return self._ready_graph()
        if name not in self._unmade:
            raise AttributeError(f"this batch has no {name!r}; it has {', '.join(self.keys())}")
        return self._edges() if name == "edge_index" else self._groups()

    @ordinary
    def _edges(self) -> Tensor:
        graph = self._graph
        assert graph is not None
        # Its own copy: what is written to it must not change the graph.
        made = graph._edges.listed.long()
        self.__dict__.update(edge_index=made, _version=made._version)
        self._unmade.discard("edge_index")
        remember(made, graph)
        return made

    @ordinary
    def _groups(self) -> Tensor:
        made = topology.numbered(self.ptr, self.num_nodes)
        self.__dict__["batch"] = made
        self._unmade.discard("batch")
        if made.is_cpu:
            remember_groups(made, topology.groups(made, self.ptr))
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        self._forget(name)
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(name)
        self._forget(name)
        self.__dict__.pop(name, None)

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__, _unmade=set(self._unmade))
        return made

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if "edge_index" in state and state["_graph"] is not None and state["edge_index"]._version != self._version:
            state["_graph"] = None  # it was written to
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "edge_index" in state:
            self.__dict__["_version"] = state["edge_index"]._version

    def _forget(self, name: str) -> None:
        self._unmade.discard(name)
        if name == "edge_index":
            self.__dict__["_graph"] = None

    def _ready_graph(self) -> Graph:
        graph, edges = self._graph, self.__dict__.get("edge_index")
        if graph is not None and (edges is None or edges._version == self._version):
            return graph
        if edges is None:
            raise AttributeError("this batch has no edges, so that there is no graph")
        nodes = self.__dict__.get("num_nodes")
        return graph_of(edges, *(self._sizes or (nodes, nodes)))

    def keys(self) -> list[str]:
        """The names of all attributes."""
        return [*(name for name in self.__dict__ if not name.startswith("_")), *sorted(self._unmade)]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, getattr(self, name)) for name in self.keys())

    def items(self) -> list[tuple[str, Any]]:
        """Names and values."""
        return list(self)

    def __contains__(self, name: str) -> bool:
        return name in self._unmade or (name in self.__dict__ and not name.startswith("_"))

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise KeyError(name) from error

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    @property
    def num_edges(self) -> int:
        """How many edges there are."""
        edges = self.__dict__.get("edge_index")
        if edges is not None:
            return int(edges.shape[1])
        return 0 if self._graph is None else self._graph.num_edges

    @ordinary
    def _change(self, change: Callable[[Tensor], Tensor], graph: Callable[[Graph], Graph]) -> None:
        """Change all tensors, and the graph if it is still that of ``edge_index``."""
        parts = self.__dict__
        if "batch" in self._unmade:
            self._groups()
        if self._graph is not None:
            ready = "edge_index" in self._unmade or parts["edge_index"]._version == self._version
            parts["_graph"] = graph(self._graph) if ready else None
            if ready:
                parts.pop("edge_index", None)
                self._unmade.add("edge_index")
        for name, value in parts.items():
            if isinstance(value, Tensor):
                parts[name] = change(value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._shown())})"

    def _shown(self) -> list[str]:
        shapes = {"edge_index": f"[2, {self.num_edges}]", "batch": f"[{self.__dict__.get('num_nodes')}]"}
        shown = [(name, shapes[name] if name in self._unmade else _short(self.__dict__[name])) for name in self.keys()]
        return [f"{name}={value}" for name, value in shown]


class Batch(Store):
    """Graphs as one graph without edges between them.

    x, edge_attr, y, ...  the attributes of the data set, joined as torch_geometric joins them
    batch                 [N] int64 the graph of each node
    ptr                   [graphs + 1] int64 where the nodes of each graph begin
    num_graphs, num_nodes, num_edges
    edge_index, graph     see :class:`Store`

    With several types of nodes or edges, ``batch["paper"].x`` and ``batch["author", "writes", "paper"].graph`` are
    those of a type, and ``x_dict``, ``edge_index_dict``, ``graph_dict`` and so on those of all types.
    """

    def __init__(
        self,
        attributes: dict[str, Any] | None = None,
        graph: Graph | None = None,
        stores: dict[Type, Store] | None = None,
    ):
        super().__init__(attributes, graph)
        self.__dict__["_stores"] = stores or {}

    def __copy__(self) -> Self:
        made = super().__copy__()
        made.__dict__["_stores"] = {type: copy.copy(store) for type, store in self._stores.items()}
        return made

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_dict") and self.__dict__.get("_stores"):
            key = name[: -len("_dict")]
            has = {"graph": "edge_index"}.get(key, key)
            found = {type: getattr(store, key) for type, store in self._stores.items() if has in store}
            if found:
                return found
        return super().__getattr__(name)

    def __getitem__(self, name: Any) -> Any:
        if name in self._stores:
            return self._stores[name]
        return super().__getitem__(name)

    @property
    def node_types(self) -> list[str]:
        """The types of nodes, none where there is but one."""
        return [key for key in self._stores if isinstance(key, str)]

    @property
    def edge_types(self) -> list[EdgeType]:
        """The types of edges, none where there is but one."""
        return [key for key in self._stores if isinstance(key, tuple)]

    def metadata(self) -> tuple[list[str], list[EdgeType]]:
        """The types of nodes and of edges."""
        return self.node_types, self.edge_types

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Batch:
        """This batch, its tensors and graphs moved to a device."""
        for store in (self, *self._stores.values()):
            store._change(lambda t: t.to(device, non_blocking=non_blocking), lambda g: g.to(device))
        return self

    def pin_memory(self) -> Batch:
        """This batch, its tensors in memory that a GPU reads by itself."""
        for store in (self, *self._stores.values()):
            store._change(Tensor.pin_memory, lambda g: g)
        return self

    def __repr__(self) -> str:
        shown = self._shown() + [f"{key!r}: {store!r}" for key, store in self._stores.items()]
        return f"{type(self).__name__}({', '.join(shown)})"


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(list(value.shape))
    return f"[{len(value)}]" if isinstance(value, list | tuple | dict) else repr(value)

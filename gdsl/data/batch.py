"""What a loader gives: a graph of many, with attributes named as torch_geometric names them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from gdsl.data import given, topology
from gdsl.data.blocks import blocks_of
from gdsl.data.examples import Examples
from gdsl.data.geometric import transformed
from gdsl.errors import InputError
from gdsl.runtime import transforms
from gdsl.runtime.graph import Graph
from gdsl.runtime.recent import graph_of, remember, remember_groups

# Of an edge type: its source, its name, its target.
EdgeType = tuple[str, str, str]
Type = str | EdgeType

Function = TypeVar("Function", bound=Callable[..., Any])

def ordinary(method: Function) -> Function:
    """A method that makes tensors which every later call can use: see :func:`gdsl.runtime.transforms.ordinary`."""

    @wraps(method)
    def made(*args: Any) -> Any:
        return transforms.ordinary(method, *args)

    return made  # type: ignore[return-value]


class Store:
    """The attributes of the nodes or of the edges of one type, or of a graph of one type.

    edge_index  [2, E] in the order of the data set and of its dtype, int32 or int64; made when it is first asked for,
                as ``batch`` is
    graph       the ``gdsl.Graph`` of these edges, ready for layers
    """

    _graph: Graph | None
    _version: int
    _sizes: tuple[int, int] | None
    _unmade: set[str]
    _index: torch.dtype

    def __init__(
        self,
        attributes: dict[str, Any] | None = None,
        graph: Graph | None = None,
        index: torch.dtype = torch.int64,
    ):
        parts = self.__dict__
        parts.update(attributes or {})
        parts["_graph"], parts["_unmade"], parts["_index"] = graph, set(), index
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
            raise AttributeError(self._lacks(name))
        return self._edges() if name == "edge_index" else self._groups()

    def _lacks(self, name: str) -> str:
        return f"this batch has no {name!r}; it has {', '.join(self.keys()) or 'nothing'}"

    @ordinary
    def _edges(self) -> Tensor:
        graph = self._graph
        assert graph is not None
        # Its own copy: what is written to it must not change the graph.
        made = graph._edges.listed.to(self._index, copy=True)
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
            raise KeyError(str(error)) from None

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    @property
    def num_edges(self) -> int:
        """How many edges there are."""
        edges = self.__dict__.get("edge_index")
        if edges is not None:
            return int(edges.shape[1])
        return 0 if self._graph is None else self._graph.num_edges

    @property
    def num_node_features(self) -> int:
        """Numbers in a row of ``x``."""
        return columns(self.__dict__.get("x"))

    num_features = num_node_features

    @property
    def num_edge_features(self) -> int:
        """Numbers in a row of ``edge_attr``."""
        return columns(self.__dict__.get("edge_attr"))

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
    num_graphs, num_nodes, num_edges  of all types
    edge_index, graph     see :class:`Store`

    With several types of nodes or edges, ``batch["paper"].x`` and ``batch["author", "writes", "paper"].graph`` are
    those of a type, and ``x_dict``, ``edge_index_dict``, ``graph_dict`` and so on those of all types.

    Of a batch of graphs ``batch[3]`` is one of them, and ``batch[2:5]``, ``batch[mask]`` a list, as torch_geometric's
    ``Data`` or ``HeteroData``, with what the batch has now.
    """

    _stores: dict[Type, Store]
    _examples: Examples | None

    def __init__(
        self,
        attributes: dict[str, Any] | None = None,
        graph: Graph | None = None,
        stores: dict[Type, Store] | None = None,
        *,
        index: torch.dtype = torch.int64,
        examples: Examples | None = None,
    ):
        super().__init__(attributes, graph, index)
        self.__dict__.update(_stores=stores or {}, _examples=examples)

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
        if name == "num_nodes" and self.__dict__.get("_stores"):
            return sum(self._stores[type].num_nodes for type in self.node_types)
        if name == "batch_size" and "num_graphs" in self.__dict__:
            return self.num_graphs
        return super().__getattr__(name)

    def _lacks(self, name: str) -> str:
        if name in ("stores", "node_stores", "edge_stores"):
            return (
                f"{name!r} belongs to torch_geometric's objects: give a transform as transform= of the loader, or call "
                "batch.transformed(transform)"
            )
        if not self._stores:
            return super()._lacks(name)
        has = {"graph": "edge_index"}.get(name, name)
        owners = [type for type, store in self._stores.items() if has in store]
        if owners:
            of = ", ".join(map(repr, owners))
            return f"{name!r} belongs to {of}: ask for batch[{owners[0]!r}].{name}, or for batch.{name}_dict"
        parts = [super()._lacks(name)]
        parts += [f"{type!r} has {', '.join(store.keys()) or 'nothing'}" for type, store in self._stores.items()]
        return "; ".join(parts)

    def __getitem__(self, name: Any) -> Any:
        is_type = isinstance(name, tuple) and all(isinstance(part, str) for part in name)
        if (is_type or isinstance(name, str)) and name in self._stores:
            return self._stores[name]
        if isinstance(name, str):
            return super().__getitem__(name)
        if is_type and name:
            raise KeyError(f"there are no edges {name!r} here; there are {self.edge_types}")
        if given.is_number(name):
            return self.get_example(name)
        return self.index_select(name)

    def __len__(self) -> int:
        """The graphs; of a sampled batch, which has none, the attributes."""
        return self.num_graphs if "num_graphs" in self.__dict__ else len(self.keys())

    def _cut(self) -> Examples:
        if self._examples is None:
            raise InputError("this batch was not joined from the graphs of a data set, and cannot be cut into them")
        return self._examples

    def get_example(self, idx: int) -> Any:
        """One of the graphs, as torch_geometric's ``Data`` or ``HeteroData``.

        Raises ``InputError`` for a number out of range, for an attribute that is of another size now, for a batch that
        is a sample, and without torch_geometric.
        """
        return self._cut().example(self, idx)

    def index_select(self, idx: Any) -> list[Any]:
        """Some of the graphs, by a slice, numbers, or a mask; see :meth:`get_example`."""
        return [self.get_example(number) for number in self._cut().chosen(idx)]

    def to_data_list(self) -> list[Any]:
        """All of the graphs; see :meth:`get_example`."""
        return self.index_select(slice(None))

    @property
    def num_edges(self) -> int:
        """How many edges there are, of all types."""
        return sum(self._stores[type].num_edges for type in self.edge_types) or super().num_edges

    @property
    def node_types(self) -> list[str]:
        """The types of nodes, none where there is but one."""
        return [key for key in self._stores if isinstance(key, str)]

    @property
    def edge_types(self) -> list[EdgeType]:
        """The types of edges, none where there is but one."""
        return [key for key in self._stores if isinstance(key, tuple)]

    def blocks(self) -> list[Any]:
        """Of a batch of sampled neighbours what each layer reads, the first layer first: a bipartite graph from the
        nodes that it is given to those whose results are still needed, which are the first of them; of several types a
        dictionary. The last one leads to the seeds.

        ``for conv, block in zip(convs, batch.blocks()): x = conv((x, x[: block.num_targets]), block)`` gives for the
        seeds what layers on ``batch.graph`` give, where no layer reads the degrees of neighbours.

        Raises ``InputError`` for another batch.
        """
        return blocks_of(self)

    def transformed(self, transform: Callable[[Any], Any]) -> Any:
        """What a function gives for this batch. One of torch_geometric's transforms gets torch_geometric's own object
        of it, and what it gives becomes a batch again, whose graph is ready where its edges are the same."""
        return transformed(transform, self)

    def with_values(self, own: Mapping[str, Any], stores: Mapping[Type, Mapping[str, Any]]) -> Batch:
        """Other attributes, of this one's examples."""
        made = {type: Store(dict(values)) for type, values in stores.items()}
        return Batch(dict(own), None, made, examples=self._examples)

    def metadata(self) -> tuple[list[str], list[EdgeType]]:
        """The types of nodes and of edges."""
        return self.node_types, self.edge_types

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Batch:
        """This batch, its tensors and graphs moved to a device."""
        for store in (self, *self._stores.values()):
            store._change(lambda t: t.to(device, non_blocking=non_blocking), lambda g: g.to(device))
        return self

    def cpu(self) -> Batch:
        """``to("cpu")``"""
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int | None = None, non_blocking: bool = False) -> Batch:
        """``to("cuda")``"""
        return self.to("cuda" if device is None else device, non_blocking)

    def clone(self) -> Batch:
        """A batch with tensors of its own; the graphs, which nobody writes to, are the same."""
        made = copy.copy(self)
        for store in (made, *made._stores.values()):
            store._change(Tensor.clone, lambda g: g)
        return made

    def pin_memory(self) -> Batch:
        """This batch, its tensors in memory that a GPU reads by itself."""
        for store in (self, *self._stores.values()):
            store._change(Tensor.pin_memory, lambda g: g)
        return self

    def __repr__(self) -> str:
        shown = self._shown() + [f"{key!r}: {store!r}" for key, store in self._stores.items()]
        return f"{type(self).__name__}({', '.join(shown)})"


def check_name(name: Any) -> None:
    """Raises ``InputError`` for an attribute that would hide what a batch has itself, and for what is no name."""
    if not isinstance(name, str):
        raise InputError(f"attributes have names, and {name!r} is none")
    if name in ("graph", "num_graphs") or hasattr(Batch, name):
        raise InputError(f"an attribute `{name}` would hide the one that each batch has: give it another name")


def columns(value: Any) -> int:
    """Numbers in a row of an attribute; 0 for none."""
    if not isinstance(value, Tensor):
        return 0
    return value.shape[-1] if value.dim() > 1 else 1


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(list(value.shape))
    return f"[{len(value)}]" if isinstance(value, list | tuple | dict) else repr(value)

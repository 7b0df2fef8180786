"""A data set of graphs as one array for each attribute."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdsl.data import file, given, topology
from gdsl.data.batch import Batch, Store, Type, ordinary
from gdsl.data.columns import Column, ColumnGather
from gdsl.data.examples import Cut, Examples, Layout
from gdsl.data.native import native
from gdsl.data.packing import ItemReader, Key, Read
from gdsl.errors import InputError
from gdsl.runtime import prepare
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.order import PackedOrder


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Graphs, packed once, of which batches are gathered. Immutable; made by :func:`pack` or :meth:`load`.

    ``len(packed)`` graphs; ``packed[3]`` is one of them, as torch_geometric's ``Data`` or ``HeteroData``, and a loop
    gives one after the other. ``packed[ids]``, with a slice, a list, or a tensor of numbers or of booleans, is a part
    of the set that shares its arrays.
    """

    read: Read
    ids: Tensor | None = None
    left_out: frozenset[str] = frozenset()
    path: Path | None = None

    @property
    def total(self) -> int:
        """How many graphs the arrays hold, of which this may be a part."""
        return len(self.read.offsets[0]) - 1

    def __len__(self) -> int:
        return self.total if self.ids is None else len(self.ids)

    def __getitem__(self, which: Any) -> Any:
        """Raises ``InputError`` for a number out of range, and for a number where torch_geometric is not installed:
        ``batch`` needs none."""
        if given.is_number(which):
            number = given.integer("the number of a graph", which)
            if not -len(self) <= number < len(self):
                raise InputError(f"there is no graph {number}: there are {len(self)}, numbered from 0")
            return self.batch([number])[0]
        if isinstance(which, slice):
            ids = torch.tensor(range(len(self))[which], dtype=torch.int64, device=CPU)
        else:
            ids = given.tensor("the numbers of graphs", which)
            if ids.dtype is torch.bool:
                if ids.shape != (len(self),):
                    raise InputError(f"a mask of {len(self)} graphs is needed, not one of shape {list(ids.shape)}")
                ids = ids.nonzero().squeeze(1)
        return dataclasses.replace(self, ids=self.numbers(ids))

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(len(self)))

    def without(self, keys: Collection[str]) -> Packed:
        """The same graphs without some of their attributes."""
        return dataclasses.replace(self, left_out=self.left_out | set(keys))

    def keys(self) -> list[str]:
        """The names of all attributes."""
        names = dict.fromkeys(name for _, name in [*self.read.columns, *self.read.lists] if name not in self.left_out)
        return [*(["edge_index"] if self.read.edges and "edge_index" not in self.left_out else []), *names]

    @cached_property
    def num_nodes(self) -> Tensor:
        """[graphs] int64: the nodes of each graph, of all types."""
        return self._counted(self.read.nodes.values())

    @cached_property
    def num_edges(self) -> Tensor:
        """[graphs] int64: the edges of each graph, of all types."""
        return self._counted(edges.ends.edges for edges in self.read.edges.values())

    @property
    def num_node_features(self) -> int:
        """Numbers in a row of ``x``; 0 where there is none."""
        return self._width("x")

    num_features = num_node_features

    @property
    def num_edge_features(self) -> int:
        """Numbers in a row of ``edge_attr``; 0 where there is none."""
        return self._width("edge_attr")

    def _width(self, name: str) -> int:
        column = self._columns.get(("", name))
        return 0 if column is None else (column.shape[-1] or 1)

    @property
    def num_classes(self) -> int:
        """Of the labels ``y`` of all graphs: as torch_geometric counts them, one more than the largest integer, or how
        many real numbers differ, or the numbers in a row; 0 without labels."""
        column = self._columns.get(("", "y"))
        if column is None:
            return 0
        if len(column.shape) > 1 and column.inner * column.outer > 1:
            return self._width("y")
        if not column.values.numel():
            return 0
        if column.values.is_floating_point():
            return len(column.values.unique())
        return int(column.values.max()) + 1

    def _counted(self, offsets: Iterable[int]) -> Tensor:
        found = torch.zeros(self.total, dtype=torch.int64, device=CPU)
        for k in offsets:
            found += self.read.offsets[k].diff()
        return found if self.ids is None else found[self.ids]

    @cached_property
    def nbytes(self) -> int:
        """The bytes of all arrays of graphs."""
        return sum(column.values.nbytes for column in self._all_columns())

    @property
    def nbytes_of_batches(self) -> int:
        """The bytes of all graphs as a batch has them: numbers of nodes and edges are kept in fewer."""
        return sum(column.values.numel() * column.dtype.itemsize for column in self._all_columns())

    @cached_property
    def is_mapped(self) -> bool:
        """Whether the arrays lie in a file."""
        values = [column.values for column in self._all_columns() if column.values.numel()]
        return not all(v.untyped_storage().resizable() for v in values)

    def _all_columns(self) -> list[Column]:
        return [*self.read.columns.values(), *(c for edges in self.read.edges.values() for c in edges.columns)]

    def numbers(self, graphs: Any) -> Tensor:
        """The place of some graphs in the arrays. Raises ``InputError`` for a number out of range."""
        ids = given.tensor("the numbers of graphs", list(graphs) if isinstance(graphs, range) else graphs)
        if ids.numel() == 0:
            ids = ids.long()
        if ids.dim() != 1 or ids.is_floating_point() or ids.is_complex() or ids.dtype is torch.bool:
            raise InputError(f"numbers of graphs must be integers [graphs], not {ids.dtype} of shape {list(ids.shape)}")
        ids = ids.long()
        wrong = (ids < -len(self)) | (ids >= len(self))
        if bool(wrong.any()):
            raise InputError(f"there is no graph {int(ids[wrong][0])}: there are {len(self)}, numbered from 0")
        ids = torch.where(ids < 0, ids + len(self), ids)
        return (ids if self.ids is None else self.ids[ids]).contiguous()

    def batch(self, graphs: Any) -> Batch:
        """Some graphs as one. Raises ``InputError`` for a number out of range."""
        return self.gathered(self.numbers(graphs))

    @ordinary
    def gathered(self, ids: Tensor, follow: Sequence[str] = ()) -> Batch:
        """A batch of the graphs at some places of the arrays, which are known to be right.

        follow: attributes of which ``<name>_batch`` and ``<name>_ptr`` are given as well
        """
        gather = self._gather
        placed, totals = gather.place(ids)
        rooms, addresses = self._rooms(totals)
        found = gather.fill(ids, placed, totals, addresses)
        stores: dict[Type, dict[str, Any]] = {type: {} for type in self._types}
        own: dict[str, Any] = stores[""]
        for (type, name), value in zip(self._columns, found, strict=False):
            stores[type][name] = value
        for type, name in self._layout.lists:
            values = self.read.lists[type, name]
            stores[type][name] = [values[k] for k in ids.tolist()]
        for type, k in self.read.nodes.items():
            stores[type].update(num_nodes=totals[k], ptr=placed[k].clone())
        graphs, first = {}, len(self._columns)
        for type, edges in self._edges.items():
            last = first + 1 + len(edges.parts)
            graphs[type] = edges.graph(found[first:last], totals, rooms[type])
            first = last
        for (type, name), cut in self._layout.cuts.items() if follow else ():
            if name in follow:
                _follow(stores[type], name, placed[cut.length])
        own["num_graphs"] = ids.shape[0]
        index = self._index
        others = {
            type: Store(store, graphs.get(type), index.get(type, torch.int64))
            for type, store in stores.items()
            if type != ""
        }
        examples = Examples(self._layout, placed)
        return Batch(own, graphs.get(""), others, index=index.get("", torch.int64), examples=examples)

    @cached_property
    def _layout(self) -> Layout:
        cuts = {(type, "edge_index"): Cut.of(edges.listed) for type, edges in self._edges.items()}
        cuts |= {key: Cut.of(column) for key, column in self._columns.items()}
        lists = frozenset(key for key in self.read.lists if key[1] not in self.left_out)
        return Layout(cuts, lists, self.read.nodes)

    def _rooms(self, totals: list[int]) -> tuple[dict[Type, dict[str, PackedOrder]], dict[int, int]]:
        """Of each type of edges the memory of its orders, and of columns that are written there the addresses."""
        rooms: dict[Type, dict[str, PackedOrder]] = {}
        addresses: dict[int, int] = {}
        first, is_native = len(self._columns), native("gather") is not None
        for type, edges in self._edges.items():
            rooms[type] = edges.rooms(totals, self._most_edges[type], first, addresses) if is_native else {}
            first += 1 + len(edges.parts)
        return rooms, addresses

    @cached_property
    def _most_edges(self) -> dict[Type, int]:
        """That a graph has, and so a node."""
        return {type: int(self.read.offsets[edges.ends.edges].diff().max()) for type, edges in self._edges.items()}

    @cached_property
    def _types(self) -> list[Type]:
        return list(dict.fromkeys(["", *self.read.nodes, *self.read.edges]))

    @cached_property
    def _index(self) -> dict[Type, torch.dtype]:
        return {type: edges.index for type, edges in self._edges.items()}

    @cached_property
    def _columns(self) -> dict[Key, Column]:
        return {key: column for key, column in self.read.columns.items() if key[1] not in self.left_out}

    @cached_property
    def _edges(self) -> dict[Type, Any]:
        return {} if "edge_index" in self.left_out else self.read.edges

    @cached_property
    def _gather(self) -> ColumnGather:
        # Both are compiled now, if they are not yet, and not while the first batches are waited for.
        prepare.native(wait=True)
        parts = [column for edges in self._edges.values() for column in edges.columns]
        return ColumnGather(self.read.offsets, [*self._columns.values(), *parts])

    def save(self, path: str | Path) -> None:
        """Write the whole set to one file, for :meth:`load`. It appears when it is whole.

        Raises ``InputError`` where an attribute is neither tensors nor text, numbers, or lists of them, and where no
        file can be put there.
        """
        file.write(self.read, given.path_to_write(path))

    @classmethod
    def load(cls, path: str | Path, check: bool = True) -> Packed:
        """The set of a file that :meth:`save` wrote, mapped: read from the disk when it is used, by as much as is used.

        check: reads the file once, for its checksums and for edges and orders that fit. Without it, sizes are checked
               alone, at once: for files that nobody else can have written or damaged

        Raises ``InputError`` for a file that is not there, that is no packed set, that is cut short, or that is
        damaged. Nothing of it is executed.
        """
        found = given.path_to_read(path)
        return cls(file.read(found, check), path=found.absolute())

    def __reduce__(self) -> tuple[Any, ...]:
        # A set in a file is opened anew by another process, and not sent to it.
        return _again, (None if self.path else self.read, self.ids, self.left_out, self.path)

    def __repr__(self) -> str:
        return f"Packed({len(self):,} graphs, {int(self.num_nodes.sum()):,} nodes, {int(self.num_edges.sum()):,} edges)"


def _follow(store: dict[str, Any], name: str, placed: Tensor) -> None:
    store[f"{name}_batch"] = topology.numbered(placed, int(placed[-1]))
    store[f"{name}_ptr"] = placed.clone()


def _again(read: Read | None, ids: Tensor | None, left_out: frozenset[str], path: Path | None) -> Packed:
    if read is None:
        assert path is not None
        read = Packed.load(path, check=False).read
    return Packed(read, ids, left_out, path)


def pack(graphs: Iterable[Any], path: str | Path | None = None) -> Packed:
    """Pack graphs: a torch_geometric ``Dataset``, a list, or anything that gives ``Data`` or ``HeteroData``.

    Attributes are joined as torch_geometric joins them: by each object's own ``__cat_dim__`` and ``__inc__``.

    path: writes the set to this file and maps it: neither the graphs nor the set need fit in memory

    Raises ``InputError`` for an empty data set and for attributes that not all graphs have or that do not fit together,
    ``GraphError`` for edges out of range, both with the number of the graph.
    """
    if path is None:
        return Packed(ItemReader().read(graphs))
    path = given.path_to_write(path)
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=path.absolute().parent) as folder:
        Packed(ItemReader(Path(folder)).read(graphs)).save(path)
    return Packed.load(path, check=False)


def pack_arrays(
    edge_index: Tensor,
    batch: Tensor,
    *,
    nodes: Mapping[str, Tensor] | None = None,
    edges: Mapping[str, Tensor] | None = None,
    graphs: Mapping[str, Tensor] | None = None,
    num_graphs: int | None = None,
) -> Packed:
    """Pack graphs that come as one: as a TU folder has them, or a batch of torch_geometric.

    edge_index: [2, E] numbers of nodes
    batch:      [N] the graph of each node, rising
    nodes:      attributes [N, ...], such as ``x``; edges: [E, ...]; graphs: [graphs, ...], such as ``y``
    num_graphs: where the last ones have no nodes

    Raises ``InputError`` for arrays of other lengths, ``GraphError`` for edges out of range or between two graphs.
    """
    from gdsl.data.arrays import read_arrays

    return Packed(read_arrays(edge_index, batch, nodes or {}, edges or {}, graphs or {}, num_graphs))

"""Graphs read one by one into the arrays of a packed data set."""

from __future__ import annotations

import itertools
import os
import tempfile
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from gdsl.data import given, topology
from gdsl.data.batch import Type, check_name
from gdsl.data.columns import Column
from gdsl.data.mapped import map_array
from gdsl.data.topology import Edges, Ends
from gdsl.errors import GraphError, InputError
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.order import INT32_MAX

# Numbers that are collected before they are joined, sorted and, where they go to a file, written.
CHUNK = 1 << 24

Key = tuple[Type, str]


class Growing:
    """A flat tensor that grows: in memory, or in a file of a folder."""

    def __init__(self, folder: Path | None):
        self.parts: list[Tensor] = []
        self.dtype: torch.dtype | None = None
        self.file: BinaryIO | None = None
        if folder is not None:
            descriptor, name = tempfile.mkstemp(dir=folder)
            self.file, self.path = os.fdopen(descriptor, "wb"), Path(name)

    def add(self, part: Tensor) -> None:
        self.dtype = part.dtype
        if self.file is None:
            self.parts.append(part)
        else:
            part.contiguous().view(torch.uint8).numpy().tofile(self.file)

    def whole(self) -> Tensor:
        if self.file is not None:
            self.file.close()
            return map_array(self.path, self.dtype or torch.float32)
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)


@dataclass
class _Reading:
    """An attribute while graphs are read. ``waiting`` are values that are not in ``values`` yet."""

    shape: tuple[int | None, ...]
    dtype: torch.dtype
    shifts: int
    values: Growing
    whole: bool
    waiting: list[Tensor] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    more: array[int] = field(default_factory=lambda: array("q"))


@dataclass
class _ReadingEdges:
    listed: Growing
    parts: dict[str, Growing]
    source: str
    target: str
    index: torch.dtype
    waiting: list[Tensor] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    loops: list[Tensor] = field(default_factory=list)
    by_source: bool = True
    by_target: bool = True


@dataclass(frozen=True)
class Read:
    """What was read: see ``gdsl.data.Packed``."""

    offsets: list[Tensor]
    columns: dict[Key, Column]
    edges: dict[Type, Edges]
    nodes: dict[str, int]
    lists: dict[Key, list[Any]]


class ItemReader:
    """Reads objects like torch_geometric's ``Data`` and ``HeteroData``, as their own ``__inc__`` and ``__cat_dim__``
    say. With a ``folder`` what was read lies in files there."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.graphs = 0
        self.keys: list[Key] = []
        self.readings: dict[Key, _Reading] = {}
        self.edges: dict[Type, _ReadingEdges] = {}
        self.nodes: dict[str, array[int]] = {}
        self.lists: dict[Key, list[Any]] = {}
        self.pending = 0

    def read(self, graphs: Iterable[Any]) -> Read:
        """All graphs. Raises ``InputError`` and ``GraphError`` with the number of a graph that does not fit."""
        if hasattr(graphs, "stores"):
            raise InputError("many graphs are packed, and this is one of them: give a list, pack([data])")
        if isinstance(graphs, str) or not (hasattr(graphs, "__iter__") or hasattr(graphs, "__getitem__")):
            raise InputError(f"a data set or a list of Data is packed, not {given.shown(graphs)}")
        for data in graphs:
            self._read(data)
            self.graphs += 1
            if self.pending > CHUNK:
                self._flush()
        if not self.graphs:
            raise InputError("the data set is empty: there is no graph in it")
        self._flush()
        return self._whole()

    # -- one graph -------------------------------------------------------------------------------

    def _read(self, data: Any) -> None:
        if not hasattr(data, "stores"):
            raise InputError(f"graph {self.graphs} must be a torch_geometric Data or HeteroData, not {_kind(data)}")
        found = {
            (_type(store), key): value
            for store in data.stores
            for key, value in store.items()
            if key not in ("num_nodes", "ptr") and value is not None
        }
        self._check_keys(list(found))
        for store in data.stores:
            type = _type(store)
            # Of several types there is a store more, of what belongs to the graph as a whole.
            if isinstance(type, str) and store is not getattr(data, "_global_store", None):
                self._count_nodes(type, store)
        for store in data.stores:
            type = _type(store)
            for key, value in store.items():
                if (type, key) not in found:
                    continue
                if key == "edge_index":
                    self._read_edges(type, value)
                elif isinstance(value, Tensor) or _is_number(value):
                    self._read_value(type, key, value, data, store)
                else:
                    self._read_object(type, key, value)

    def _check_keys(self, found: list[Key]) -> None:
        if not self.graphs:
            for _, name in found:
                check_name(name)
            self.keys = found
        elif found != self.keys and set(found) != set(self.keys):
            more, less = set(found) - set(self.keys), set(self.keys) - set(found)
            name = _named(sorted(more or less, key=str)[0])
            have, lack = (self.graphs, 0) if more else (0, self.graphs)
            raise InputError(
                f"all graphs must have the same attributes, but graph {have} has {name} and graph {lack} has none: "
                "give it to all of them or to none"
            )

    def _count_nodes(self, type: str, store: Any) -> None:
        count = store.num_nodes
        if count is None:
            of = f" of type {type!r}" if type else ""
            raise InputError(f"graph {self.graphs} does not say how many nodes{of} it has: set num_nodes")
        count = given.count(f"the number of nodes of graph {self.graphs}", count, 0)
        check_size(count, f"the number of nodes of graph {self.graphs}")
        self.nodes.setdefault(type, array("q")).append(count)

    def _read_edges(self, type: Type, value: Any) -> None:
        what = f"graph {self.graphs}: {_named((type, 'edge_index'))}"
        if not isinstance(value, Tensor) or value.dim() != 2 or value.shape[0] != 2:
            raise GraphError(f"{what} must be a tensor [2, E], not {_kind(value)}")
        if value.dtype.is_floating_point or value.dtype.is_complex or value.dtype is torch.bool:
            raise GraphError(f"{what} must hold integers, but its dtype is {value.dtype}")
        reading = self.edges.get(type)
        if reading is None:
            source, _, target = type if isinstance(type, tuple) else (type, "", type)
            parts = {name: Growing(self.folder) for name in topology.PARTS}
            reading = _ReadingEdges(Growing(self.folder), parts, source, target, torch.int32)
            self.edges[type] = reading
        for name in (reading.source, reading.target):
            if name not in self.nodes:
                raise InputError(f"{what}: there are no nodes of type {name!r}")
        check_size(value.shape[1], f"the number of edges of graph {self.graphs}")
        reading.waiting.append(given.tensor(what, value).long().reshape(-1))
        reading.sizes.append(value.shape[1])
        if value.dtype is not torch.int32:
            reading.index = torch.int64
        self.pending += value.numel()

    def _read_value(self, type: Type, key: str, value: Any, data: Any, store: Any) -> None:
        name = _named((type, key))
        number = not isinstance(value, Tensor)
        value = torch.tensor(value, device=CPU) if number else value.detach()
        if value.layout is not torch.strided or value.is_nested or value.is_meta:
            raise InputError(f"graph {self.graphs}: {name} is not a dense tensor, and only such can be packed")
        along = data.__cat_dim__(key, value, store)
        whole = along is None
        if whole or value.dim() == 0:
            along, value = 0, value.unsqueeze(0)
        if isinstance(along, tuple) or not -value.dim() <= along < value.dim():
            raise InputError(f"graph {self.graphs}: {name} of shape {_shape(value)} cannot be joined along {along}")
        along %= value.dim()
        shape: tuple[int | None, ...] = tuple(None if k == along else n for k, n in enumerate(value.shape))
        rows = [n for n in shape[:along] if n is not None]
        more = _shifts(data.__inc__(key, value, store), rows, value.dim() - along - 1, f"graph {self.graphs}: {name}")
        reading = self.readings.get((type, key))
        if reading is None:
            values = Growing(self.folder)
            reading = self.readings[type, key] = _Reading(shape, value.dtype, len(more), values, whole)
        if (shape, value.dtype) != (reading.shape, reading.dtype):
            raise InputError(
                f"graph {self.graphs}: {name} has shape {_shape(value)} and dtype {value.dtype}, which cannot be "
                f"joined with the first graph's {_dims(reading.shape)} and {reading.dtype}"
            )
        reading.waiting.append(value.cpu().reshape(-1))
        reading.sizes.append(value.shape[along])
        reading.more.extend(more)
        self.pending += value.numel()

    def _read_object(self, type: Type, key: str, value: Any) -> None:
        if _holds_tensors(value):
            raise InputError(
                f"graph {self.graphs}: {_named((type, key))} is {_kind(value)}, and only dense tensors, numbers and "
                "objects without tensors can be packed: give each tensor a name of its own"
            )
        self.lists.setdefault((type, key), []).append(value)

    # -- chunks ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        for reading in self.readings.values():
            if reading.waiting:
                reading.values.add(torch.cat(reading.waiting))
                reading.waiting.clear()
        for type, edges in self.edges.items():
            if edges.waiting:
                self._flush_edges(type, edges)
                edges.waiting.clear()
        self.pending = 0

    def _flush_edges(self, type: Type, reading: _ReadingEdges) -> None:
        count = len(reading.waiting)
        first = self.graphs - count
        sizes = [self.nodes[reading.source][first:], self.nodes[reading.target][first:], reading.sizes[first:]]
        offsets = [starts(_numbers(size[:count])) for size in sizes]
        listed = torch.cat(reading.waiting)
        topology.check_ends(listed, Ends(0, 1, 2, None), offsets, first, _named((type, "edge_index")))
        narrow = listed.to(torch.int32)
        parts, by_source, by_target = topology.sorted_by_both(narrow, Ends(0, 1, 2, None), offsets)
        reading.listed.add(narrow)
        reading.loops.append(topology.loops_of(narrow, offsets[2]))
        for name, part in parts.items():
            reading.parts[name].add(part)
        reading.by_source &= by_source
        reading.by_target &= by_target

    # -- all -------------------------------------------------------------------------------------

    def _whole(self) -> Read:
        offsets = Offsets(self.graphs)
        nodes = {type: offsets.add(_numbers(sizes)) for type, sizes in self.nodes.items()}
        columns = {}
        for key in self.keys:
            reading = self.readings.get(key)
            if reading is None:
                continue
            length = offsets.add(_numbers(reading.sizes))
            more = _numbers(reading.more).reshape(self.graphs, reading.shifts)
            shifts = tuple(offsets.add(more[:, k]) for k in range(reading.shifts)) if bool(more.any()) else ()
            values, whole = reading.values.whole(), reading.whole
            columns[key] = Column(values, length, reading.shape, shifts, reading.dtype, whole=whole)
        edges = {type: self._whole_edges(reading, nodes, offsets) for type, reading in self.edges.items()}
        return Read(offsets.all, columns, edges, nodes, self.lists)

    def _whole_edges(self, reading: _ReadingEdges, nodes: dict[str, int], offsets: Offsets) -> Edges:
        source, target = nodes[reading.source], nodes[reading.target]
        loops = offsets.add(torch.cat(reading.loops)) if source == target else None
        ends = Ends(source, target, offsets.add(_numbers(reading.sizes)), loops)
        values = {name: part.whole() for name, part in reading.parts.items()}
        listed, ordered = reading.listed.whole(), (reading.by_source, reading.by_target)
        if self.folder is None:  # else they are made narrow as they are written to a file
            dtype = topology.width(ends, offsets.all)
            listed, values = listed.to(dtype), {name: part.to(dtype) for name, part in values.items()}
        return topology.edges_of(ends, listed, values, *ordered, reading.index)


class Offsets:
    """Where the items of each graph begin, by what is counted. What is counted alike is kept once."""

    def __init__(self, graphs: int):
        self.all: list[Tensor] = []
        self.add(torch.ones(graphs, dtype=torch.int64, device=CPU))

    def add(self, sizes: Tensor) -> int:
        found = starts(sizes)
        for k, known in enumerate(self.all):
            if torch.equal(known, found):
                return k
        self.all.append(found)
        return len(self.all) - 1


def starts(sizes: Tensor) -> Tensor:
    """[n + 1] int64 from the sizes [n] of what follows each other."""
    return torch.cat([torch.zeros(1, dtype=torch.int64, device=CPU), sizes.long().cumsum(0)])


def _numbers(found: array[int]) -> Tensor:
    return torch.from_numpy(np.array(found, dtype=np.int64))


def _shifts(more: Any, rows: list[int], inner_dims: int, what: str) -> list[int]:
    """What is added to each row before the joined dimension, from what ``__inc__`` says of a graph."""
    count = int(np.prod(rows)) if rows else 1
    if not isinstance(more, Tensor):
        return [int(more)] * count
    if more.numel() == 1:
        return [int(more)] * count
    wanted = [*rows, *[1] * (1 + inner_dims)]
    try:
        return more.expand(wanted).reshape(-1).tolist()
    except RuntimeError:
        raise InputError(
            f"{what}: its __inc__ is of shape {_shape(more)}, and only one of {wanted}, which differs by the rows "
            "before the joined dimension alone, can be packed"
        ) from None


def _type(store: Any) -> Type:
    """The type of a store of torch_geometric: empty for one of all nodes and edges, or of the graph."""
    return getattr(store, "_key", None) or ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Tensor) or hasattr(value, "sparse_sizes"):
        return True
    if isinstance(value, dict):
        return any(map(_holds_tensors, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_tensors, itertools.islice(value, 1)))


def _named(key: Key) -> str:
    type, name = key
    return f"`{name}`" + (f" of {type!r}" if type else "")


def _kind(value: Any) -> str:
    return f"a tensor of shape {_shape(value)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _shape(value: Tensor) -> list[int]:
    return list(value.shape)


def _dims(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("*" if n is None else str(n) for n in shape) + "]"


def check_size(value: int, what: str) -> None:
    """Raises ``InputError`` for a graph that is too large for a data set of many."""
    if value > INT32_MAX:
        raise InputError(f"{what} is {value}, and a graph of a packed data set has at most {INT32_MAX} nodes and edges")

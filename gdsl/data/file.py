"""A packed data set in one file: see :mod:`gdsl.data.container`."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdsl.data import container, mapped, topology
from gdsl.data.batch import Type
from gdsl.data.columns import Column
from gdsl.data.container import DTYPES, as_type, plain
from gdsl.data.packing import Key, Read
from gdsl.data.topology import Edges, Ends
from gdsl.errors import InputError
from gdsl.runtime.dtypes import CPU, short

MAGIC = b"GDSLPACK"
VERSION = 3


def write(read: Read, path: Path) -> None:
    """See :meth:`gdsl.data.Packed.save`."""
    lists = [[plain(type), name, values] for (type, name), values in read.lists.items()]
    try:
        json.dumps(lists, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"an attribute is neither tensors nor text, numbers or lists of them, and cannot be stored: {error}"
        ) from None
    with container.writing(path, MAGIC) as out:

        def put_edges(edges: Edges) -> dict[str, Any]:
            dtype = topology.width(edges.ends, read.offsets)
            return {
                "ends": list(edges.ends),
                "listed": out.put(edges.listed.values, dtype),
                "parts": {name: out.put(part.values, dtype) for name, part in edges.parts.items()},
                "sorted": [edges.by_source, edges.by_target],
                "index": short(edges.index),
            }

        out.about = {
            "version": VERSION,
            "offsets": [out.put(offsets) for offsets in read.offsets],
            "columns": [
                [plain(type), name, _about(column, out.put(column.values))]
                for (type, name), column in read.columns.items()
            ],
            "nodes": [[type, k] for type, k in read.nodes.items()],
            "edges": [[plain(type), put_edges(edges)] for type, edges in read.edges.items()],
            "lists": lists,
        }


def _about(column: Column, array: int) -> dict[str, Any]:
    return {
        "array": array, "length": column.length, "shape": list(column.shape), "shifts": list(column.shifts),
        "dtype": short(column.dtype), "whole": column.whole,
    }  # fmt: skip


def read(path: Path, check: bool) -> Read:
    """See :meth:`gdsl.data.Packed.load`."""
    memory = mapped.map_file(path)
    try:
        found = _read(memory, check)
        if check:
            _check_contents(found)
        return found
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, struct.error, RecursionError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path}: {error}") from None
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: the description of the packed set is damaged ({what})") from None


def _read(memory: Any, check: bool) -> Read:
    about, arrays = container.read(memory, MAGIC, VERSION, "packed data set", check)
    offsets = [_expect(arrays[k], torch.int64) for k in about["offsets"]]
    _check_offsets(offsets)
    columns: dict[Key, Column] = {}
    for type, name, found in about["columns"]:
        column = Column(
            arrays[found["array"]],
            _in(found["length"], offsets),
            tuple(found["shape"]),
            tuple(_in(k, offsets) for k in found["shifts"]),
            DTYPES[found["dtype"]],
            whole=bool(found["whole"]),
        )
        _check_column(column, offsets, name)
        columns[as_type(type), str(name)] = column
    nodes = {str(type): _in(k, offsets) for type, k in about["nodes"]}
    edges: dict[Type, Edges] = {}
    for type, found in about["edges"]:
        source, target, count = (_in(k, offsets) for k in found["ends"][:3])
        loops = found["ends"][3] if found["ends"][3] is None else _in(found["ends"][3], offsets)
        ends = Ends(source, target, count, loops)
        if (loops is None) == (ends.source == ends.target):
            raise InputError("the packed set does not say which of its edges are loops")
        by_source, by_target = (bool(s) for s in found["sorted"])
        dtype = topology.width(ends, offsets)
        values = {name: _expect(arrays[k], dtype) for name, k in found["parts"].items()}
        listed = _expect(arrays[found["listed"]], dtype)
        index = DTYPES[found["index"]]
        if index not in (torch.int32, torch.int64):
            raise InputError(f"the edges of the packed set cannot be {index}")
        made = topology.edges_of(ends, listed, values, by_source, by_target, index)
        for column in made.columns:
            _check_column(column, offsets, "edge_index")
        edges[as_type(type)] = made
        source, target = (type[0], type[2]) if isinstance(type, list) else (type, type)
        if (nodes[source], nodes[target]) != (ends.source, ends.target):
            raise InputError("the edges are between other nodes than their type says")
    lists = {(as_type(type), str(name)): list(values) for type, name, values in about["lists"]}
    if any(len(values) != len(offsets[0]) - 1 for values in lists.values()):
        raise InputError("an attribute is not of as many graphs as there are")
    types = {"", *nodes, *edges}
    if any(type not in types for type, _ in (*columns, *lists)) or any(len(t) != 3 for t in edges if t != ""):
        raise InputError("the packed set has attributes of a type that it does not have")
    return Read(offsets, columns, edges, nodes, lists)


def _check_offsets(offsets: list[Tensor]) -> None:
    graphs = len(offsets[0]) - 1
    if graphs < 1 or not torch.equal(offsets[0], torch.arange(graphs + 1, device=CPU)):
        raise InputError("the packed set does not say how many graphs it has")
    for found in offsets:
        # Sums of what is added to numbers rise as well, for what is added is never negative.
        if len(found) != graphs + 1 or int(found[0]) != 0 or bool((found.diff() < 0).any()):
            raise InputError("the packed set does not say where its graphs begin")


def _check_column(column: Column, offsets: list[Tensor], name: str) -> None:
    if column.shape.count(None) != 1 or any(n is not None and n < 0 for n in column.shape):
        raise InputError(f"the shape of `{name}` is none")
    numbers = column.outer * column.inner * int(offsets[column.length][-1])
    if column.values.numel() != numbers or len(column.shifts) not in (0, max(1, column.outer)):
        raise InputError(f"`{name}` has {column.values.numel()} numbers, and its graphs have {numbers}")


def _check_contents(found: Read) -> None:
    for edges in found.edges.values():
        graph = topology.wrong_graph(edges, found.offsets)
        if graph >= 0:
            raise InputError(f"the edges of graph {graph} of the packed set do not fit its nodes or their order")
        if edges.ends.loops is None:
            continue
        if not torch.equal(topology.loops_of_all(edges, found.offsets), found.offsets[edges.ends.loops].diff()):
            raise InputError("the packed set counts its self-loops wrongly")


def _in(k: Any, offsets: list[Tensor]) -> int:
    if not isinstance(k, int) or not 0 <= k < len(offsets):
        raise InputError("the packed set names offsets that it does not have")
    return k


def _expect(found: Tensor, dtype: torch.dtype) -> Tensor:
    if found.dtype != dtype:
        raise InputError(f"an array of the packed set is of {found.dtype}, not {dtype}")
    return found

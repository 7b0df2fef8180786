"""Parts of a graph in files, one for each, which its process reads alone. Nothing of them is ever executed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from gdsl.data import container, given, mapped
from gdsl.data.batch import Type
from gdsl.distributed.part import GraphPart, PartEdges, _array, _of, _rows
from gdsl.distributed.partition import Division
from gdsl.distributed.processes import agreeing
from gdsl.errors import GdslError, InputError
from gdsl.runtime.answers import place
from gdsl.runtime.dtypes import short
from gdsl.runtime.order import INT32_MAX

MAGIC = b"GDSLPART"
VERSION = 1


def file_of(folder: Path, rank: int, parts: int) -> Path:
    """Where a part lies."""
    return folder / f"part-{rank}-of-{parts}.gdsl"


def save_parts(
    division: Division,
    folder: str | Path,
    nodes: Mapping[str, Any] | None = None,
    edges: Mapping[str, Any] | None = None,
) -> None:
    """One file for each part, of which each process reads its own alone: :func:`load_part`.

    nodes, edges: values [N, ...] and [E, ...] by name that go with them, also of arrays that are mapped; of several
                  types ``{"x": {"paper": ...}}``

    Raises ``InputError`` where the folder cannot be made, and for values of other lengths.
    """
    folder, graphs = given.path(folder), division.source.graphs
    of_nodes = _values(nodes or {}, division.source.num_nodes, "nodes")
    of_edges = _values(edges or {}, {type: graph.num_edges for type, graph in graphs.items()}, "edges")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made, where parts are to be kept: {error}") from None
    _ = division.reads  # once for all parts
    for rank in range(division.parts):
        _write(division.part(rank), file_of(folder, rank, division.parts), of_nodes, of_edges)


def _values(given_so: Mapping[str, Any], counts: Mapping[Any, int], what: str) -> list[tuple[str, Any, Any]]:
    """Name, type and array of each. Raises ``InputError`` for those of other lengths."""
    found = []
    for name, value in given_so.items():
        by_type = value if isinstance(value, Mapping) else {next(iter(counts)): value}
        if not isinstance(value, Mapping) and len(counts) != 1:
            raise InputError(f"of several types of {what}, `{name}` is a dictionary by type")
        for type, array in by_type.items():
            if type not in counts:
                raise InputError(f"there are no {what}{_of(type)}, of which `{name}` is")
            array = _array(array, f"`{name}`")
            if array.ndim < 1 or array.shape[0] != counts[type]:
                raise InputError(f"`{name}` must have {counts[type]} rows, and its shape is {list(array.shape)}")
            dtype = short(array.dtype)
            if dtype not in container.DTYPES:
                raise InputError(f"`{name}` is {dtype}, and parts hold {', '.join(container.DTYPES)}")
            found.append((name, type, array))
    return found


def _write(part: GraphPart, path: Path, nodes: list[tuple[str, Any, Any]], edges: list[tuple[str, Any, Any]]) -> None:
    with container.writing(path, MAGIC) as out:

        def put(ids: Tensor) -> int:
            narrow = not ids.numel() or int(ids.max()) <= INT32_MAX
            return out.put(ids, torch.int32 if narrow else torch.int64)

        def put_rows(values: Any, ids: Tensor) -> dict[str, Any]:
            rows = _rows(values, ids)
            return {"array": out.put(rows.reshape(-1)), "shape": list(rows.shape)}

        out.about = {
            "version": VERSION,
            "rank": part.rank,
            "parts": part.parts,
            "fingerprint": part.fingerprint,
            "own": [[type, list(part.counts[type]), put(ids)] for type, ids in part.own.items()],
            "edges": [
                {
                    "type": container.plain(type),
                    "ends": [found.source, found.target],
                    "total": found.total,
                    "edge_index": put(found.edge_index.reshape(-1)),
                    "edge_ids": put(found.edge_ids),
                    "send": put(found.send),
                    "send_counts": list(found.send_counts),
                    "receive_counts": list(found.receive_counts),
                    "halo_ids": put(found.halo_ids),
                }
                for type, found in part.edges.items()
            ],
            "nodes": [[name, type, put_rows(values, part.own[type])] for name, type, values in nodes],
            "edge_values": [
                [name, container.plain(type), put_rows(values, part.edges[type].edge_ids)]
                for name, type, values in edges
            ],
        }


def load_part(folder: str | Path, group: ProcessGroup | None = None, check: bool = True) -> GraphPart:
    """This process's part of a graph, from a folder that :func:`save_parts` wrote. All processes must call it, and each
    reads its own file alone.

    check: compares checksums, which reads the file once more

    Raises ``InputError`` on every process where a part is missing or damaged, where parts belong to different graphs,
    and where there are other numbers of parts than of processes. Nothing of a file is executed.
    """
    rank, size = place(group)
    with agreeing("the parts of a graph", group) as found:
        part = read(given.path(folder), rank, size, check, group)
        found["value"] = f"the graph {part.fingerprint}"
    return part


def read(folder: Path, rank: int, size: int, check: bool = True, group: ProcessGroup | None = None) -> GraphPart:
    """A part of a folder, without other processes. Raises ``InputError``."""
    path = file_of(folder, rank, size)
    if not path.is_file():
        raise InputError(f"{path} is not there: {_lack(folder, size)}")
    try:
        about, arrays = container.read(mapped.map_file(path), MAGIC, VERSION, "part of a graph", check)
        part = _part(about, arrays, group)
        _check(part)
        if (part.rank, part.parts) != (rank, size):
            raise InputError(f"this is part {part.rank} of {part.parts}, under another name")
        return part
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, struct.error) as error:
        if isinstance(error, GdslError):
            raise InputError(f"{path}: {error}") from None
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: the description of the part is damaged ({what})") from None


def _lack(folder: Path, size: int) -> str:
    if not folder.is_dir():
        return "there is no such folder"
    numbers = sorted({found for found in _numbers(folder) if found != size})
    if numbers:
        many = " and ".join(map(str, numbers))
        return f"the folder has a graph in {many} parts, and there are {size} processes: start as many, or divide again"
    return "the part is missing, or its folder is not shared with this machine"


def _numbers(folder: Path) -> Iterator[int]:
    for path in folder.glob("part-*-of-*.gdsl"):
        last = path.stem.rpartition("-")[2]
        if last.isdecimal():
            yield int(last)


def _part(about: dict[str, Any], arrays: list[Tensor], group: ProcessGroup | None) -> GraphPart:
    def ids(k: int) -> Tensor:
        if arrays[k].dtype not in (torch.int32, torch.int64):
            raise InputError(f"an array of numbers is of {arrays[k].dtype}")
        return arrays[k].long().clone()

    def counts(found: list[int]) -> tuple[int, ...]:
        if len(found) != about["parts"] or any(type(n) is not int or n < 0 for n in found):
            raise InputError("it does not say how many rows there are for each process")
        return tuple(found)

    def rows(found: dict[str, Any]) -> Tensor:
        # In memory of their own: what is mapped must not be written to.
        return arrays[found["array"]].clone().reshape(found["shape"])

    def by_name(listed: list[Any]) -> dict[str, Any]:
        found: dict[str, dict[Type, Tensor]] = {}
        for name, type, values in listed:
            found.setdefault(str(name), {})[container.as_type(type)] = rows(values)
        return {name: next(iter(v.values())) if len(v) == 1 and "" in v else v for name, v in found.items()}

    edges = {
        container.as_type(found["type"]): PartEdges(
            str(found["ends"][0]),
            str(found["ends"][1]),
            given.integer("the number of edges", found["total"]),
            ids(found["edge_index"]).view(2, -1),
            ids(found["edge_ids"]),
            ids(found["send"]),
            counts(found["send_counts"]),
            counts(found["receive_counts"]),
            ids(found["halo_ids"]),
        )
        for found in about["edges"]
    }
    own = {str(type): ids(k) for type, _, k in about["own"]}
    sizes = {str(type): counts(n) for type, n, _ in about["own"]}
    fingerprint, rank, parts = str(about["fingerprint"]), int(about["rank"]), int(about["parts"])
    return GraphPart(
        rank, parts, fingerprint, sizes, own, edges, group, by_name(about["nodes"]), by_name(about["edge_values"])
    )


def _check(part: GraphPart) -> None:
    """Raises ``InputError`` and ``GraphError`` for numbers that reach beyond what there is."""
    for type, ids in part.own.items():
        if len(ids) != part.counts[type][part.rank] or not _rising(ids, sum(part.counts[type])):
            raise InputError("it does not say which nodes it has")
    for edges in part.edges.values():
        if len(edges.edge_ids) != edges.edge_index.shape[1] or not _rising(edges.edge_ids, edges.total):
            raise InputError("it does not say which edges it has")
        nodes = sum(part.counts[edges.source])
        if len(edges.halo_ids) and not 0 <= int(edges.halo_ids.min()) <= int(edges.halo_ids.max()) < nodes:
            raise InputError("it reads nodes that there are not")
    _ = part.local()  # which checks ends of edges and rows to send
    for values, lengths in (
        (part.nodes, {type: len(ids) for type, ids in part.own.items()}),
        (part.edge_values, {type: len(edges.edge_ids) for type, edges in part.edges.items()}),
    ):
        for found in values.values():
            for type, rows in (found if isinstance(found, dict) else {"": found}).items():
                if type not in lengths or len(rows) != lengths[type]:
                    raise InputError("its values are not those of its nodes and edges")


def _rising(ids: Tensor, total: int) -> bool:
    if not len(ids):
        return True
    return int(ids[0]) >= 0 and int(ids[-1]) < total and bool((ids.diff() > 0).all())

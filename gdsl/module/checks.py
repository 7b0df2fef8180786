"""Checks of the tensors of a call: every mistake is found here, before any kernel runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gdsl.errors import GraphError, InputError
from gdsl.ir.types import Domain, Kind, Type
from gdsl.language.program import Declaration, TypedProgram
from gdsl.runtime.dtypes import FLOATS, short
from gdsl.runtime.extremes import extremes
from gdsl.runtime.graph import Graph
from gdsl.runtime.local import LocalGraph
from gdsl.runtime.transforms import concrete

_OF_NODES = (Domain.NODE, Domain.SOURCE, Domain.TARGET)
# Of each kind of number: the dtypes that it has, these in words, and the method that converts to one of them.
_KINDS: dict[Kind, tuple[Collection[torch.dtype], str, str]] = {
    Kind.FLOAT: (FLOATS, "floating-point numbers", "float"),
    Kind.INT: ((torch.int64, torch.int32), "int64 or int32", "long"),
    Kind.BOOL: ((torch.bool,), "bool", "bool"),
}


def check_tensors(tensors: Mapping[str, Tensor], typed: TypedProgram) -> tuple[torch.dtype, torch.device]:
    """Dtypes, devices and shapes. Gives the dtype and the device that all of them share."""
    given = [(d.name, d.type, tensors[d.name]) for d in typed.declarations if d.name in tensors and d.type is not None]
    real = [(name, value) for name, type, value in given if type.kind is Kind.FLOAT]
    for name, type, value in given:
        if not isinstance(value, Tensor):
            pair = isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, Tensor | None) for v in value)
            remedy = ": a layer between two sets of nodes declares `source` and `target`" if pair else ""
            remedy += "; pass torch.from_numpy(...)" if isinstance(value, np.ndarray) else ""
            raise InputError(f"`{name}` must be a tensor, not {value.__class__.__name__}{remedy}")
        if value.layout is not torch.strided:
            layout = short(value.layout)
            raise InputError(f"`{name}` is a {layout} tensor, and must be a dense one: pass {name}.to_dense()")
        _check_kind(name, type, value)
        _check_shape(name, type, value)
        first, _, some = given[0]
        if value.device != some.device:
            raise InputError(f"`{name}` is on {value.device} and `{first}` is on {some.device}: move one with .to()")
        if type.kind is Kind.INT:
            check_bound(name, type, value)
        if type.kind is Kind.FLOAT and value.dtype != real[0][1].dtype:
            first, some = real[0]
            raise InputError(
                f"`{name}` is {short(value.dtype)} and `{first}` is {short(some.dtype)}: "
                f"convert one with .to({some.dtype})"
            )
    dtype = real[0][1].dtype if real else torch.get_default_dtype()
    return dtype, given[0][2].device if given else torch.device("cpu")


def _check_kind(name: str, type: Type, value: Tensor) -> None:
    dtypes, wanted, how = _KINDS[type.kind]
    if value.dtype in dtypes:
        return
    if type.kind is Kind.FLOAT and value.is_floating_point():
        wanted += " of 16 to 64 bits"
    given = f"`{name}` must hold {wanted}, and it is {short(value.dtype)}"
    if value.is_complex():
        # What converts it drops the imaginary part.
        raise InputError(f"{given}: pass its parts, as torch.view_as_real({name}) or {name}.real, {name}.imag")
    edges = type.kind is Kind.FLOAT and value.dtype == torch.int64 and value.dim() == 2 and len(value) == 2
    order = "; if it is the graph, that comes after the inputs of nodes" if edges and type.domain in _OF_NODES else ""
    raise InputError(f"{given}: convert it with {name}.{how}(){order}")


def check_bound(name: str, type: Type, value: Tensor) -> None:
    """Every integer lies below the bound of its type.

    While a CUDA graph is captured no value can be read: the calls before, which the capture needs, have checked it.
    """
    bound = type.bound
    value = concrete(value, name)
    if bound is None or not value.numel() or (value.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    low, high = extremes(value)
    if low < 0 or high >= bound:
        bad = int(((value < 0) | (value >= bound)).flatten().nonzero()[0])
        row = f"{type.domain.value} {bad // type.numel}"
        number = int(value.flatten()[bad])
        raise InputError(f"{row} has {name} = {number}, and {name} must be from 0 to {bound - 1}")


def _check_shape(name: str, type: Type, value: Tensor) -> None:
    rows = {Domain.NODE: "N", Domain.SOURCE: "N_src", Domain.TARGET: "N_dst", Domain.EDGE: "E", Domain.GRAPH: "B"}
    lead = [] if type.domain is Domain.GLOBAL else [rows[type.domain]]
    if value.dim() < len(lead) or tuple(value.shape[len(lead) :]) != type.shape:
        sizes = zip(type.names, type.shape, strict=True)
        dims = ", ".join(lead + [n if n == str(s) else f"{n} = {s}" for n, s in sizes])
        raise InputError(f"`{name}` must have shape [{dims}], and it has shape {list(value.shape)}")


def node_counts(typed: TypedProgram, tensors: Mapping[str, Tensor]) -> tuple[int | None, int | None]:
    """(sources, targets) as the node inputs tell, None where no input does."""
    sources: int | None = None
    targets: int | None = None
    for _, type, value in inputs_of(typed, tensors):
        if type.domain in (Domain.NODE, Domain.SOURCE):
            sources = value.shape[0] if sources is None else sources
        if type.domain in (Domain.NODE, Domain.TARGET):
            targets = value.shape[0] if targets is None else targets
    return sources, targets


def inputs_of(typed: TypedProgram, tensors: Mapping[str, Tensor]) -> Iterator[tuple[Declaration, Type, Tensor]]:
    """The inputs that a call has, each with its type and its tensor."""
    for d in typed.of_role("input"):
        if d.type is not None and d.name in tensors:
            yield d, d.type, tensors[d.name]


def check_rows(
    tensors: Mapping[str, Tensor], typed: TypedProgram, graph: Graph, batch: Tensor | None, num_graphs: int
) -> None:
    """Every input has a row for each node or edge of the graph, or for each graph of the batch."""
    domains = [(d.name, d.type.domain.value) for d in typed.of_role("input") if d.type is not None]
    check_row_counts(tensors, domains, typed.name, typed.bipartite, graph, batch, num_graphs)


def check_row_counts(
    tensors: Mapping[str, Tensor],
    domains: Iterable[tuple[str, str]],
    program: str,
    bipartite: bool,
    graph: Any,
    batch: Tensor | None,
    num_graphs: Any,
) -> None:
    """As :func:`check_rows`, of a program's name and the domains of its inputs. Sizes may be symbolic."""
    counts = {
        "node": (graph.num_targets, "nodes"),
        "source": (graph.num_sources, "source nodes"),
        "target": (graph.num_targets, "target nodes"),
        "edge": (graph.num_edges, "edges"),
        "graph": (num_graphs, "graphs"),
    }
    if not bipartite and graph.num_sources != graph.num_targets:
        raise GraphError(
            f"{program} needs one set of nodes, and the graph has {graph.num_sources} sources and "
            f"{graph.num_targets} targets"
        )
    if batch is not None:
        check_batch(batch, graph.num_targets)
    agree: set[str] = set()
    for name, domain in domains:
        if name not in tensors or domain not in counts:
            continue
        owner = "the batch" if domain == "graph" else "the graph"
        need_rows(name, tensors[name], owner, *counts[domain], domain == "node" and "node" not in agree)
        agree.add(domain)


def need_rows(name: str, value: Tensor, owner: str, count: Any, what: str, tells: bool = False) -> None:
    """Raise :class:`gdsl.InputError` for an input that has not as many rows as ``owner`` has of ``what``.

    tells: whether it may be the graph that lacks nodes, of which no edge tells
    """
    rows = value.shape[0]
    if rows != count:
        forgotten = tells and rows > count
        hint = f"; nodes without edges count too: gdsl.Graph(edge_index, num_nodes={rows})" if forgotten else ""
        raise InputError(f"`{name}` has {_plural(rows, 'rows')}, and {owner} has {_plural(count, what)}{hint}")


def check_batch(batch: Tensor, count: int) -> None:
    """It has an entry for each of so many nodes."""
    if batch.dim() != 1 or len(batch) != count:
        raise InputError(f"`batch` must have shape [{count}], and it has shape {list(batch.shape)}")


def _plural(count: int, what: str) -> str:
    return f"{count} {what.removesuffix('s') if count == 1 else what}"


def _check_reverse(program: str, graph: Graph) -> None:
    alone = graph.alone.nonzero()
    if len(alone):
        edge, source, target = _told(graph, int(alone[0]))
        raise GraphError(
            f"{program} reads e[reverse], and edge {edge} from node {source} to node {target} has none: there must be "
            "an edge the other way for each edge, or a default, as in reverse(e, 0)"
        )


def _told(graph: Graph, edge: int) -> tuple[int, int, int]:
    """The number of an edge, of its source and of its target among those of all processes, as far as they are known."""
    if not isinstance(graph, LocalGraph):
        return edge, *graph.edge_index[:, edge].tolist()
    source, target = graph.local_edge_index[:, edge].tolist()
    sources, targets, ids = graph.row_ids(Domain.SOURCE), graph.row_ids(Domain.TARGET), graph.halo.edge_ids
    return edge if ids is None else int(ids[edge]), int(sources[source]), int(targets[target])


def check_requirements(program: str, requires: Iterable[tuple[str, int]], graph: Graph) -> None:
    """What the rules of a program require of every node: an end of edges, and how many there are at it. Or of every
    edge, "reverse": that there is one the other way."""
    for end, count in requires:
        # Once a graph: a GPU would be waited for in each call.
        graph._make(f"_has {end} {count}", _check_need, program, end, count, graph)


def _check_need(program: str, end: str, count: int, graph: Graph) -> bool:
    if end == "reverse":
        _check_reverse(program, graph)
        return True
    degree = graph.in_degree if end == "i" else graph.out_degree
    wrong = (degree != count).nonzero()
    if len(wrong):
        node = int(wrong[0])
        kind = "in-edges" if end == "i" else "out-edges"
        raise GraphError(
            f"{program} needs exactly {count} {kind} for each node, and node {node} has {int(degree[node])}"
        )
    return True

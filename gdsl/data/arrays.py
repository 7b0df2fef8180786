"""Graphs that come as one graph without edges between them, into the arrays of a packed data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gdsl.data import given, topology
from gdsl.data.batch import check_name
from gdsl.data.columns import Column
from gdsl.data.packing import Key, Offsets, Read
from gdsl.data.topology import Ends
from gdsl.errors import GraphError, InputError
from gdsl.runtime.dtypes import CPU
from gdsl.runtime.graph import Graph


def read_arrays(
    edge_index: Tensor,
    batch: Tensor,
    nodes: Mapping[str, Tensor],
    edges: Mapping[str, Tensor],
    graphs: Mapping[str, Tensor],
    num_graphs: int | None,
) -> Read:
    """See :func:`gdsl.data.pack_arrays`."""
    edge_index, batch = given.tensor("edge_index", edge_index), given.tensor("batch", batch)
    nodes, edges, graphs = (_tensors(*pair) for pair in (("nodes", nodes), ("edges", edges), ("graphs", graphs)))
    num_graphs = None if num_graphs is None else given.integer("num_graphs", num_graphs)
    if batch.dim() != 1 or (batch.numel() and not given.is_integral(batch)):
        raise InputError(f"batch must be integers [nodes], not {batch.dtype} {list(batch.shape)}")
    index = torch.int32 if edge_index.dtype is torch.int32 else torch.int64
    count = int(batch.max()) + 1 if batch.numel() else 0
    if batch.numel() and (int(batch[0]) < 0 or bool((batch[1:] < batch[:-1]).any())):
        raise InputError("the graphs of the nodes must rise from 0: sort the nodes by graph")
    for name, value in graphs.items():
        num_graphs = len(value) if num_graphs is None else num_graphs
        if len(value) != num_graphs:
            raise InputError(f"`{name}` has {len(value)} rows, and there are {num_graphs} graphs")
    num_graphs = count if num_graphs is None else num_graphs
    if num_graphs < max(count, 1):
        raise InputError(
            f"there are {num_graphs} graphs, and node {len(batch) - 1} is in graph {count - 1}"
            if count
            else "the data set is empty: there is no graph in it"
        )
    for kind, values, rows in (("nodes", nodes, len(batch)), ("edges", edges, edge_index.shape[-1])):
        for name, value in values.items():
            if len(value) != rows:
                raise InputError(f"`{name}` has {len(value)} rows, and there are {rows} {kind}")
    edge_index = Graph(edge_index, len(batch)).edge_index
    owner = batch.long()[edge_index]
    across = owner[0] != owner[1]
    if bool(across.any()):
        edge = int(across.nonzero()[0])
        raise GraphError(f"edge {edge} goes from graph {int(owner[0, edge])} to graph {int(owner[1, edge])}")
    own = owner[0]
    order = None if bool((own[1:] >= own[:-1]).all()) else torch.sort(own, stable=True).indices
    if order is not None:
        edge_index, own = edge_index[:, order], own[order]
    offsets = Offsets(num_graphs)
    at_nodes = offsets.add(torch.bincount(batch.long(), minlength=num_graphs))
    at_edges = offsets.add(torch.bincount(own, minlength=num_graphs))
    relative = (edge_index - offsets.all[at_nodes][own]).to(torch.int32)
    # Flat, graph by graph: the sources of a graph, then its targets.
    start, size = offsets.all[at_edges][own], offsets.all[at_edges].diff()[own]
    place = torch.arange(len(own), device=CPU) + start
    listed = torch.empty(2 * len(own), dtype=torch.int32, device=CPU)
    listed[place], listed[place + size] = relative[0], relative[1]
    loops = offsets.add(topology.loops_of(listed, offsets.all[at_edges]))
    ends = Ends(at_nodes, at_nodes, at_edges, loops)
    values, by_source, by_target = topology.sorted_by_both(listed, ends, offsets.all)
    dtype = topology.width(ends, offsets.all)
    values = {name: part.to(dtype) for name, part in values.items()}
    found = topology.edges_of(ends, listed.to(dtype), values, by_source, by_target, index)
    columns: dict[Key, Column] = {}
    for values, length in ((nodes, at_nodes), (edges, at_edges), (graphs, 0)):
        for name, value in values.items():
            check_name(name)
            if ("", name) in columns or name in ("edge_index", "num_nodes", "batch", "ptr"):
                raise InputError(f"`{name}` is given twice: each attribute of a batch has a name of its own")
            value = value if length != at_edges or order is None or values is not edges else value[order]
            shape = (None, *value.shape[1:])
            columns["", name] = Column(value.detach().cpu().reshape(-1).clone(), length, shape, (), value.dtype)
    return Read(offsets.all, columns, {"": found}, {"": at_nodes}, {})


def _tensors(what: str, values: Any) -> dict[str, Tensor]:
    if not isinstance(values, Mapping):
        raise InputError(f"{what} must be a dictionary of attributes by their names, not {given.shown(values)}")
    found = {name: given.tensor(f"`{name}`", value) for name, value in values.items()}
    for name, value in found.items():
        if value.layout is not torch.strided:
            raise InputError(f"`{name}` is not a dense tensor, and only such can be packed")
        if not value.dim():
            raise InputError(f"`{name}` must have a row for each of the {what}, and is one number")
    return found

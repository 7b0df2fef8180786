"""The graphs of raw tensors of edges: made once, while a tensor is the same and unchanged."""

from __future__ import annotations

import torch
from torch import Tensor

from gdsl.runtime.formats import plain_tensor
from gdsl.runtime.graph import Graph
from gdsl.runtime.tracers import run_as_it_is
from gdsl.runtime.transforms import concrete
from gdsl.runtime.unchanged import Unchanged, state_of

# How many graphs are kept, by the tensor that they were made of, and numbers of sources and targets.
RECENT = 16
_recent: Unchanged[Graph] = Unchanged(RECENT)


@run_as_it_is
def graph_of(edge_index: Tensor, num_sources: int | None, num_targets: int | None) -> Graph:
    """The graph of a raw ``edge_index`` [2, E]; the same object while the tensor is the same and unchanged.

    What counts as unchanged: see :mod:`gdsl.runtime.unchanged`. Memory that something else can write to (a NumPy array
    made from the tensor or the other way round, memory shared between processes) has no counter of what is written,
    so there the values are compared. Writes through ``edge_index.data``, a DLPack view or a raw pointer go unnoticed,
    here as in autograd: after such a write, pass ``Graph(edge_index)``.
    """
    sizes = None if num_sources is None and num_targets is None else (num_sources, num_targets)
    if isinstance(edge_index, Tensor):
        edge_index = concrete(edge_index, "edge_index")
    if not isinstance(edge_index, Tensor) or edge_index.is_inference():
        # An inference tensor has no version counter: nothing would tell that it was changed.
        return Graph._from(edge_index, sizes)
    key, plain = (id(edge_index), num_sources, num_targets), plain_tensor(edge_index)
    known = _recent.made(key, edge_index, plain)
    if known is not None and _is_right(known, plain):
        return known
    # Without a lock: threads that load graphs do not wait for each other.
    state, graph = state_of(plain), Graph._from(edge_index, sizes)
    with _recent.lock:
        other = _recent.made(key, edge_index, plain)
        if other is not None and other is not known and _is_right(other, plain):
            return other
        _recent.keep(key, edge_index, state, graph)
    return graph


def is_recent(edge_index: Tensor, graph: Graph) -> bool:
    """Whether ``graph_of`` has lately given this graph for the tensor."""
    key = id(edge_index), graph.num_sources, graph.num_targets
    return _recent.made(key, edge_index, plain_tensor(edge_index)) is graph


@run_as_it_is
def remember(edge_index: Tensor, graph: Graph) -> None:
    """Have ``graph_of`` give this graph for the tensor, whose edges are known to be the graph's."""
    _recent.keep((id(edge_index), graph.num_sources, graph.num_targets), edge_index, state_of(edge_index), graph)


@run_as_it_is
def grouped(index: Tensor, size: int) -> Graph:
    """The graph of the rows of some groups, which an aggregation takes: row n is an edge into node ``index[n]``.

    The one of ``remember_groups`` while the tensor is the same and unchanged.
    """
    return recall(index, _GROUPS, size) or Graph(torch.stack([index, index]), size)


@run_as_it_is
def remember_groups(index: Tensor, graph: Graph) -> None:
    """Have ``grouped`` give this graph for the tensor."""
    retain(index, _GROUPS, graph)


def recall(tensor: Tensor, mark: int, size: int) -> Graph | None:
    """The graph that was retained for a tensor, while this is the same and unchanged."""
    return None if _written_elsewhere(tensor) else _recent.made((id(tensor), mark, size), tensor, tensor)


def retain(tensor: Tensor, mark: int, graph: Graph) -> None:
    """Have ``recall`` give this graph for the tensor. ``mark`` says what is made of it, by a number below 0."""
    _recent.keep((id(tensor), mark, graph.num_targets), tensor, state_of(tensor), graph)


# In place of a number of source nodes, in the key of a graph of groups.
_GROUPS = -1


def _is_right(graph: Graph, edge_index: Tensor) -> bool:
    """Whether a graph has the edges of the tensor that it was made of, where others than torch can write to that."""
    return not _written_elsewhere(edge_index) or torch.equal(edge_index.long(), graph.edge_index)


def _written_elsewhere(tensor: Tensor) -> bool:
    # torch marks a storage as not resizable when NumPy, a file mapping or a buffer shares its memory.
    return tensor.is_cpu and (tensor.is_shared() or not tensor.untyped_storage().resizable())

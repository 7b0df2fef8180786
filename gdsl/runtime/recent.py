"""The graphs of raw tensors of edges: made once, while a tensor is the same and unchanged."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gdsl.runtime.formats import plain_tensor
from gdsl.runtime.graph import Graph
from gdsl.runtime.tracers import run_as_it_is
from gdsl.runtime.transforms import concrete

RECENT = 16


class _Recent(NamedTuple):
    tensor: weakref.ref[Tensor]
    state: tuple[Any, ...]
    graph: Graph


_Key = tuple[int, int | None, int | None]
_recent: OrderedDict[_Key, _Recent] = OrderedDict()
# Taken in every call: a plain one, that is made anew below.
_lock = threading.RLock()


@run_as_it_is
def graph_of(edge_index: Tensor, num_sources: int | None, num_targets: int | None) -> Graph:
    """The graph of a raw ``edge_index`` [2, E]; the same object while the tensor is the same and unchanged.

    What counts as unchanged: the same tensor object with the same memory and the same version counter,
    which every in-place operation of torch raises. Memory that something else can write to (a NumPy array
    made from the tensor or the other way round, memory shared between processes) has no such counter, so
    there the values are compared. Writes through ``edge_index.data``, a DLPack view or a raw pointer go
    unnoticed, here as in autograd: after such a write, pass ``Graph(edge_index)``.
    """
    sizes = None if num_sources is None and num_targets is None else (num_sources, num_targets)
    if isinstance(edge_index, Tensor):
        edge_index = concrete(edge_index, "edge_index")
    if not isinstance(edge_index, Tensor) or edge_index.is_inference():
        # An inference tensor has no version counter: nothing would tell that it was changed.
        return Graph._from(edge_index, sizes)
    key = (id(edge_index), num_sources, num_targets)
    plain = plain_tensor(edge_index)
    state = _state(plain)
    with _lock:
        entry = _recent.get(key)
        graph = None if entry is None else _same(entry, key, edge_index, plain, state)
    if graph is not None:
        return graph
    # Outside the lock: threads that load graphs do not wait for each other.
    graph = Graph._from(edge_index, sizes)
    with _lock:
        other = _recent.get(key)
        if other is not None and other is not entry:
            found = _same(other, key, edge_index, plain, state)
            if found is not None:
                return found
        _remember(key, edge_index, state, graph)
    return graph


def is_recent(edge_index: Tensor, graph: Graph) -> bool:
    """Whether ``graph_of`` has lately given this graph for the tensor."""
    entry = _recent.get((id(edge_index), graph.num_sources, graph.num_targets))
    return entry is not None and entry.graph is graph and entry.tensor() is edge_index


@run_as_it_is
def remember(edge_index: Tensor, graph: Graph) -> None:
    """Have ``graph_of`` give this graph for the tensor, whose edges are known to be the graph's."""
    _remember((id(edge_index), graph.num_sources, graph.num_targets), edge_index, _state(edge_index), graph)


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
    entry = _recent.get((id(tensor), mark, size))
    if entry is None or entry.tensor() is not tensor or entry.state != _state(tensor) or _written_elsewhere(tensor):
        return None
    return entry.graph


def retain(tensor: Tensor, mark: int, graph: Graph) -> None:
    """Have ``recall`` give this graph for the tensor. ``mark`` says what is made of it, by a number below 0."""
    _remember((id(tensor), mark, graph.num_targets), tensor, _state(tensor), graph)


# In place of a number of source nodes, in the key of a graph of groups.
_GROUPS = -1


def _remember(key: _Key, tensor: Tensor, state: tuple[Any, ...], graph: Graph) -> None:
    entry = _Recent(weakref.ref(tensor, lambda _: _recent.pop(key, None)), state, graph)
    with _lock:
        _recent[key] = entry
        _recent.move_to_end(key)
        while len(_recent) > RECENT:
            _recent.popitem(last=False)


def _same(entry: _Recent, key: _Key, edge_index: Tensor, plain: Tensor, state: tuple[Any, ...]) -> Graph | None:
    """The graph that was made of the tensor, if it was and still is right."""
    if entry.tensor() is not edge_index or entry.state != state:
        return None
    if _written_elsewhere(plain) and not torch.equal(plain.long(), entry.graph.edge_index):
        return None
    _recent.move_to_end(key)
    return entry.graph


def _state(tensor: Tensor) -> tuple[Any, ...]:
    return tensor._version, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _written_elsewhere(tensor: Tensor) -> bool:
    # torch marks a storage as not resizable when NumPy, a file mapping or a buffer shares its memory.
    return tensor.is_cpu and (tensor.is_shared() or not tensor.untyped_storage().resizable())


def _after_fork() -> None:
    global _lock
    # Another thread may have held it when the process was forked: it does not live on in the child.
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

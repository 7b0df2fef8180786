"""Graphs of other libraries as edge lists. No library is imported: each is known by its class."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gdsl.errors import GraphError

ACCEPTED = (
    "an integer tensor [2, E], a gdsl.Graph, a torch_geometric Data, a torch_sparse SparseTensor, "
    "a torch sparse tensor, a SciPy sparse matrix or a DGL graph"
)

_COMPRESSED = (torch.sparse_csr, torch.sparse_csc)


class EdgeList(NamedTuple):
    """``edge_index`` [2, E], ``sizes`` (sources, targets) if known, ``weight`` [E, ...] if there is one."""

    edge_index: Tensor
    sizes: tuple[int, int] | None
    weight: Tensor | None


def edge_list(obj: Any) -> EdgeList:
    """The edges of any graph that gdsl accepts, in the order in which ``obj`` stores them.

    - A tensor [2, E]: row 0 the sources, row 1 the targets.
    - A torch sparse tensor or a torch_sparse ``SparseTensor``: an ``adj_t`` as in torch_geometric,
      its rows are targets and its columns sources. A COO tensor is coalesced.
    - A SciPy sparse matrix: an adjacency ``A``, in which ``A[u, v]`` is the edge u -> v: rows are sources.
    - A torch_geometric ``Data``: its ``edge_index``, or its ``adj_t`` if it has no edge_index.
    - A DGL graph of one edge type, or a DGL block.

    Raises ``GraphError`` for anything else.
    """
    if isinstance(obj, Tensor):
        return _from_tensor(obj)
    library = type(obj).__module__.partition(".")[0]
    if type(obj).__name__ == "SparseTensor" and hasattr(obj, "coo"):
        target, source, weight = obj.coo()
        num_targets, num_sources = obj.sparse_sizes()
        return EdgeList(torch.stack([source, target]), (num_sources, num_targets), weight)
    if library == "scipy" and hasattr(obj, "tocoo"):
        return _from_scipy(obj)
    if library == "dgl" and hasattr(obj, "edges"):
        return _from_dgl(obj)
    if getattr(obj, "edge_index", None) is not None:
        edges = edge_list(obj.edge_index)
        if edges.sizes is None and isinstance(getattr(obj, "num_nodes", None), int):
            edges = edges._replace(sizes=(obj.num_nodes, obj.num_nodes))
        return edges
    if getattr(obj, "adj_t", None) is not None:
        return edge_list(obj.adj_t)
    raise GraphError(f"a graph must be {ACCEPTED}, not a {type(obj).__name__}")


def plain_tensor(tensor: Tensor) -> Tensor:
    """The tensor without a subclass that intercepts its use, such as torch_geometric's EdgeIndex."""
    if type(tensor) is Tensor:
        return tensor
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor.as_subclass(Tensor)


def _from_tensor(tensor: Tensor) -> EdgeList:
    if tensor.layout == torch.strided:
        return EdgeList(plain_tensor(tensor), None, None)
    if tensor.dim() != 2 or tensor.layout not in (torch.sparse_coo, *_COMPRESSED):
        raise GraphError(
            f"a sparse adjacency must be a COO, CSR or CSC matrix, not a {tensor.layout} tensor of "
            f"shape {list(tensor.shape)}"
        )
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        target, source = tensor.indices()
    elif tensor.layout == torch.sparse_csr:
        target, source = _expand(tensor.crow_indices()), tensor.col_indices()
    else:
        source, target = _expand(tensor.ccol_indices()), tensor.row_indices()
    num_targets, num_sources = tensor.shape
    return EdgeList(torch.stack([source, target]), (num_sources, num_targets), tensor.values())


def _expand(pointer: Tensor) -> Tensor:
    """[rows + 1] row boundaries as the row of each entry."""
    rows = torch.arange(pointer.numel() - 1, device=pointer.device)
    return rows.repeat_interleave(pointer.diff()).to(pointer.dtype)


def _from_scipy(matrix: Any) -> EdgeList:
    coo = matrix.tocoo()
    if coo.ndim != 2:
        raise GraphError(f"a SciPy adjacency must have 2 dimensions, not {coo.ndim}")
    edge_index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    num_sources, num_targets = (int(size) for size in coo.shape)
    return EdgeList(edge_index, (num_sources, num_targets), torch.from_numpy(coo.data.copy()))


def _from_dgl(graph: Any) -> EdgeList:
    relations = len(graph.canonical_etypes)
    if relations != 1:
        raise GraphError(f"a DGL graph must have one edge type, not {relations}; pass one: graph[etype]")
    source, target = graph.edges()
    return EdgeList(torch.stack([source, target]), (graph.num_src_nodes(), graph.num_dst_nodes()), None)

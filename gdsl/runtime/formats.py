"""Graphs of other libraries as edge lists. No library is imported: each is known by its class."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gdsl.errors import GraphError
from gdsl.runtime.dtypes import short
from gdsl.runtime.spans import rows_of

ACCEPTED = (
    "an integer tensor [2, E], a gdsl.Graph, a torch_geometric Data, a torch_sparse SparseTensor, "
    "a torch sparse tensor, a SciPy sparse matrix or a DGL graph"
)

_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)

# (sources, targets), None where unknown.
Sizes = tuple[int | None, int | None]


class EdgeList(NamedTuple):
    """``edge_index`` [2, E], ``sizes`` if known, ``weight`` [E, ...] if there is one."""

    edge_index: Tensor
    sizes: Sizes | None
    weight: Tensor | None


def edge_list(obj: Any) -> EdgeList:
    """The edges of any graph that gdsl accepts, in the order in which ``obj`` stores them.

    - A tensor [2, E]: row 0 the sources, row 1 the targets. A torch_geometric ``EdgeIndex`` may know its sizes.
    - A torch sparse tensor or a torch_sparse ``SparseTensor``: an ``adj_t`` as in torch_geometric,
      its rows are targets and its columns sources. A COO tensor is coalesced. Values may have any shape.
    - A SciPy sparse matrix: an adjacency ``A``, in which ``A[u, v]`` is the edge u -> v: rows are sources.
    - A torch_geometric ``Data``, or the edges of one type of a ``HeteroData``: its ``edge_index``, or its ``adj_t`` if
      it has no edge_index.
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
        return edges if edges.sizes is not None else edges._replace(sizes=_sizes_in(obj))
    if getattr(obj, "adj_t", None) is not None:
        return edge_list(obj.adj_t)
    raise GraphError(f"a graph must be {ACCEPTED}, not a {type(obj).__name__}{_hint(obj)}")


def _hint(obj: Any) -> str:
    """How to make a graph of what holds one in another way."""
    if isinstance(obj, np.ndarray):
        return "; pass torch.from_numpy(...)"
    types = getattr(obj, "edge_types", None)
    if isinstance(types, list) and types:
        return f"; pass the edges of one type: data[{', '.join(map(repr, types[0]))}]"
    return ""


def _sizes_in(data: Any) -> Sizes | None:
    """The sizes that an object of torch_geometric tells of its edges."""
    if type(data).__name__ == "EdgeStorage":
        return _known(data.size()) if data._key is not None and data._parent() is not None else None
    return (data.num_nodes, data.num_nodes) if isinstance(getattr(data, "num_nodes", None), int) else None


def sizes_of(edge_index: Tensor) -> Sizes | None:
    """The sizes that an ``EdgeIndex`` of torch_geometric may have been given: of its first row, and of its second."""
    # By its name: torch.compile's tracer says that the class has no such method, and calls it all the same.
    told: Any = edge_index
    return _known(told.sparse_size()) if type(edge_index).__name__ == "EdgeIndex" else None


def _known(sizes: Sizes) -> Sizes | None:
    return None if sizes == (None, None) else (sizes[0], sizes[1])


def plain_tensor(tensor: Tensor) -> Tensor:
    """The tensor without a subclass that intercepts its use, such as torch_geometric's EdgeIndex."""
    if type(tensor) is Tensor:
        return tensor
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor.as_subclass(Tensor)


def _from_tensor(tensor: Tensor) -> EdgeList:
    if tensor.layout == torch.strided:
        return EdgeList(plain_tensor(tensor), sizes_of(tensor), None)
    if tensor.layout not in _LAYOUTS:
        raise GraphError(f"a sparse adjacency must be in the COO, CSR or CSC format, not {short(tensor.layout)}")
    if tensor.layout == torch.sparse_coo:
        if tensor.sparse_dim() != 2:
            raise _no_matrix(tensor, f"{tensor.sparse_dim()} sparse dims")
        tensor = tensor.coalesce()
        target, source = tensor.indices()
    else:
        by_row = tensor.layout == torch.sparse_csr
        pointer = tensor.crow_indices() if by_row else tensor.ccol_indices()
        if pointer.dim() != 1:
            raise _no_matrix(tensor, "a batch of matrices")
        rows, columns = rows_of(pointer).to(pointer.dtype), tensor.col_indices() if by_row else tensor.row_indices()
        target, source = (rows, columns) if by_row else (columns, rows)
    num_targets, num_sources = tensor.shape[:2]
    return EdgeList(torch.stack([source, target]), (num_sources, num_targets), tensor.values())


def _no_matrix(tensor: Tensor, what: str) -> GraphError:
    return GraphError(
        f"a sparse adjacency must be one matrix, with a value of any shape for each edge, and this "
        f"{short(tensor.layout)} tensor of shape {list(tensor.shape)} has {what}"
    )


def _from_scipy(matrix: Any) -> EdgeList:
    coo = matrix.tocoo()
    if coo.ndim != 2:
        raise GraphError(f"a SciPy adjacency must have 2 dimensions, not {coo.ndim}")
    edge_index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    num_sources, num_targets = (int(size) for size in coo.shape)
    # torch has no numbers of more than 64 bits.
    wide = {np.dtype(np.longdouble): np.float64, np.dtype(np.clongdouble): np.complex128}
    weight = torch.from_numpy(coo.data.astype(wide.get(coo.data.dtype, coo.data.dtype)))
    return EdgeList(edge_index, (num_sources, num_targets), weight)


def _from_dgl(graph: Any) -> EdgeList:
    relations = len(graph.canonical_etypes)
    if relations != 1:
        raise GraphError(f"a DGL graph must have one edge type, not {relations}; pass one: graph[etype]")
    source, target = graph.edges()
    return EdgeList(torch.stack([source, target]), (graph.num_src_nodes(), graph.num_dst_nodes()), None)

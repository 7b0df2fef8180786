"""What a layer of the library makes of the ``edge_index`` that it is given."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gdsl.errors import GraphError, InputError
from gdsl.module import compiled
from gdsl.nn.conv.inputs import WHOLE, Adjacency, Features, Size, edge_weights, is_torch_sparse
from gdsl.nn.grouped import count_in
from gdsl.runtime.formats import sizes_of
from gdsl.runtime.graph import Graph
from gdsl.runtime.recent import graph_of
from gdsl.runtime.tracers import check_proxy, check_tracers


class KeptGraph:
    """The graph of the first call with its weights, under the name that torch_geometric has for its own: assigning None
    forgets it. Raises :class:`gdsl.InputError` for anything else, since what is kept is not normalised yet.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: nn.Module | None, owner: type) -> Any:
        return self if module is None else module.__dict__[self.name]

    def __set__(self, module: nn.Module, value: None) -> None:
        if value is not None:
            raise InputError(f"`{self.name}` is for the layer to set; None forgets the graph that it keeps")
        module.__dict__[self.name] = None


class OnGraphs(nn.Module):
    """A module that is called with features and a graph: see :class:`gdsl.nn.conv.base.Conv`."""

    aggr: Any
    flow: str
    node_dim: int

    # Whether the nodes may lie along the last dimension.
    nodes_last: ClassVar[bool] = False

    # The aggregations by which torch_geometric multiplies a sparse matrix, and reads no weights beside its values.
    _multiplies: ClassVar[frozenset[str]] = frozenset({"add", "sum", "mean", "min", "max"})

    _cached_edge_index, _cached_adj_t = KeptGraph(), KeptGraph()

    # Edges and normalised weights [E] that another library's layer had kept for all calls; see gdsl.nn.conversion.
    _normalised: tuple[Adjacency, Tensor | None] | None = None

    def rows(self, x: Tensor | None) -> int | None:
        """The number of nodes with features [*, N, F], or as ``node_dim`` says; of one number each, [N]."""
        check_proxy(x)
        if x is None or x.dim() == 1:
            return None if x is None else x.shape[0]
        if self.node_dim not in (-2, 0) and not self.nodes_last and not -x.dim() <= self.node_dim < x.dim() - 1:
            raise ValueError(
                f"with node_dim={self.node_dim} features have more dimensions than two: theirs is the last one, and "
                f"these have the shape {list(x.shape)}"
            )
        return x.shape[self.node_dim]

    def graph(
        self, edge_index: Adjacency, sources: int | None, targets: int | None, size: Size = None
    ) -> tuple[Graph, Tensor | None]:
        """The graph that messages flow along, with the values of the sparse matrix that it was given as, if any.

        edge_index: [2, E], a :class:`gdsl.Graph`, or a sparse matrix whose rows are targets
        sources, targets: how many there are as the features tell; None where they do not
        size:       the user's word for it

        Raises ValueError for what is no graph, or not of this size, and IndexError for nodes that there are not.
        """
        backwards = self.flow == "target_to_source"
        known = sizes_of(edge_index) if isinstance(edge_index, Tensor) else None
        where = "`size`" if known is None else "the sparse size of `edge_index`"
        if known is not None:
            size = known[::-1] if backwards else known
        if size is not None:
            for name, told, given in (("sources", sources, size[0]), ("targets", targets, size[1])):
                if told is not None and given is not None and told != given:
                    raise ValueError(
                        f"Encountered tensor with size {told} in dimension {self.node_dim}, but expected size {given}. "
                        f"The second is the number of {name} in {where}"
                    )
            sources = size[0] if sources is None else sources
            targets = size[1] if targets is None else targets
        if torch.compiler.is_compiling():
            sources, targets = targets if sources is None else sources, sources if targets is None else targets
            seen: Any = compiled.symbolic_graph(edge_index, *((targets, sources) if backwards else (sources, targets)))
            return (seen.reverse() if backwards else seen), None
        check_tracers((edge_index,))
        if isinstance(edge_index, Tensor) and edge_index.layout is torch.strided:
            _check_edge_index(edge_index)
            # As torch_geometric has it: where one side has no features and no size, it is as large as the other.
            sources = targets if sources is None else sources
            targets = sources if targets is None else targets
            if sources is None or targets is None:
                sources = targets = count_in(edge_index)
            pair = (targets, sources) if backwards else (sources, targets)
            try:
                found = graph_of(edge_index, *pair)
            except GraphError as error:
                raise _out_of_range(edge_index, pair, error) if edge_index.numel() else error from error
            return (found.reverse() if backwards else found), None
        if backwards and not isinstance(edge_index, Graph):
            raise ValueError(
                'Flow direction "target_to_source" is invalid for message propagation via a sparse matrix. If you '
                "really want to make use of a reverse message passing flow, pass in the transposed sparse matrix"
            )
        found = Graph.from_any(edge_index)
        found = found.reverse() if backwards else found
        for name, told, have in (("source", sources, found.num_sources), ("target", targets, found.num_targets)):
            if told is not None and told != have:
                raise GraphError(f"the graph has {have} {name} nodes, and there are features of {told}")
        return found, found.edge_weight

    def _between(
        self, x: Features, edge_index: Adjacency, size: Size = None
    ) -> tuple[Any, Any, bool, Graph, Tensor | None]:
        """The features of sources and targets, whether these are two sets, and :meth:`graph` between them."""
        source, target = (x, x) if isinstance(x, Tensor) else x
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target), size)
        return source, target, not isinstance(x, Tensor), graph, values

    def square(self, x: Tensor, edge_index: Adjacency) -> tuple[Graph, Tensor | None]:
        """:meth:`graph` on one set of nodes. Raises ValueError for a pair of inputs."""
        if isinstance(x, tuple | list):
            raise ValueError(
                f"'{type(self).__name__}' received a tuple of node features as input while this layer does not support "
                f"bipartite message passing. Please try other layers such as 'SAGEConv' or 'GraphConv' instead"
            )
        return self.graph(edge_index, self.rows(x), self.rows(x))

    def _weights_of(self, edge_weight: Tensor | None, values: Tensor | None, x: Tensor | None) -> Tensor | None:
        """:func:`edge_weights`, of which those beside a matrix are read where its messages are sent one by one."""
        if edge_weight is not None and values is not None:
            aggr = self.aggr
            values = values if isinstance(aggr, str) and aggr in self._multiplies else None
        return edge_weights(edge_weight, values, x)

    def weighted(
        self,
        x: Tensor,
        edge_index: Adjacency,
        edge_weight: Tensor | None,
        *,
        keep: bool = False,
        loops: float = 0.0,
        normed: bool = False,
    ) -> tuple[Graph, Tensor | None]:
        """The graph of one set of nodes, and its weights [E]: the user's, or the values of a sparse matrix.

        keep:  give the graph and weights of the first call in all others too, as ``cached=True`` asks
        loops: the weight of the self-loops that the program adds where there is none. torch_geometric adds it to the
               diagonal of torch's sparse matrices also where there is one, and sets that of torch_sparse's to it
        normed: whether the program divides by degrees, which torch_geometric does to the values of a matrix

        Raises ValueError for a pair of inputs.
        """
        place = "_cached_adj_t" if is_torch_sparse(edge_index) else "_cached_edge_index"
        if keep and self._normalised is not None and self.__dict__[place] is None:
            if torch.compiler.is_compiling():
                raise InputError("the layer keeps the graph of a call before it was converted: call it once uncompiled")
            known, values = self.square(x, self._normalised[0])
            self.__dict__[place] = known, edge_weights(self._normalised[1], values, x)
        if keep and isinstance(x, Tensor):
            kept: tuple[Graph, Tensor | None] | None = self.__dict__[place]
            if kept is not None:
                return kept
        graph, values = self.square(x, edge_index)
        weight = (edge_weights if normed else self._weights_of)(edge_weight, values, x)
        if loops and is_torch_sparse(edge_index):
            weight = _loops_set(graph, weight if values is not None else None, loops, x.dtype)
        elif loops and values is not None and weight is not None:
            weight = weight + loops * is_loop(graph).to(weight.dtype)
        found = graph, weight
        if keep:
            self.__dict__[place] = found
        return found

    def _is_normalised(self, graph: Any) -> bool:
        """Whether a graph has its self-loops and normalised weights already."""
        return any(kept is not None and graph is kept[0] for kept in (self._cached_edge_index, self._cached_adj_t))

    def _answer(self, found: Any, asked: bool, edge_index: Adjacency, graph: Graph, loops: bool = False) -> Any:
        """What a call gives of what the program gave: the result, and the attention where it was asked for."""
        if not asked:
            return found
        y, alpha = found
        return y, self.attended(edge_index, graph, alpha, loops)

    def attended(self, edge_index: Adjacency, graph: Graph, alpha: Tensor, loops: bool = False) -> Any:
        """What ``return_attention_weights`` adds to the result: the edges that the program sees and their weights.

        Edges and weights for edges, a sparse matrix of the weights and these for one of torch's, and the matrix alone
        for one of torch_sparse's, as torch_geometric has it.
        """
        edges = self.seen_edges(graph, loops)
        column, row = edges
        sizes = (graph.num_targets, graph.num_sources)
        if is_torch_sparse(edge_index):
            return type(edge_index)(row=row, col=column, value=alpha, sparse_sizes=sizes)
        if not isinstance(edge_index, Tensor) or edge_index.layout is torch.strided:
            return edges, alpha
        by_column = edge_index.layout is torch.sparse_csc
        order = (column * sizes[0] + row if by_column else row * sizes[1] + column).argsort()
        row, column, alpha = row[order], column[order], alpha[order]
        shape = (*sizes, *alpha.shape[1:])
        if edge_index.layout is torch.sparse_coo:
            places = torch.stack([row, column])
            return torch.sparse_coo_tensor(places, alpha, shape, is_coalesced=True, check_invariants=False), alpha
        line, place, lines = (column, row, sizes[1]) if by_column else (row, column, sizes[0])
        make = torch.sparse_csc_tensor if by_column else torch.sparse_csr_tensor
        starts = nn.functional.pad(torch.bincount(line, minlength=lines).cumsum(0), (1, 0))
        return make(starts, place, alpha, shape, check_invariants=False), alpha

    def seen_edges(self, graph: Graph, loops: bool) -> Tensor:
        """The edges that a program sees, with self-loops or without, the way round that the user has them: [2, E'].
        Of a part of a distributed graph those that it has."""
        loops = loops and not (self._normalised is not None and self._is_normalised(graph))
        edges = (graph.add_self_loops().graph if loops else graph).local_edge_index
        return edges.flip(0) if self.flow == "target_to_source" else edges


class OutOfRange(GraphError, IndexError):
    """An edge of a node that there is not."""


def _out_of_range(edge_index: Tensor, sizes: tuple[int, int], error: GraphError) -> GraphError:
    """What is wrong with the edges, in torch_geometric's words, and with which one, in ours."""
    for ends, size in zip(edge_index, sizes, strict=True):
        low, high = int(ends.min()), int(ends.max())
        if low < 0 or high >= size:
            found = f"negative indices in 'edge_index' (got {low})"
            if low >= 0:
                found = f"indices in 'edge_index' that are larger than {size - 1} (got {high})"
            return OutOfRange(
                f"Found {found}. Please ensure that all indices in 'edge_index' point to valid indices in the interval "
                f"[0, {size}) in your node feature matrix and try again.\n{error}"
            )
    return error


def is_loop(graph: Graph) -> Tensor:
    """[E] which edges are loops."""
    return graph.edge_index[0] == graph.edge_index[1]


def _loops_set(graph: Graph, values: Tensor | None, weight: float, dtype: torch.dtype) -> Tensor:
    """The values, or ones, with this one at all self-loops."""
    values = torch.ones(graph.num_edges, dtype=dtype, device=graph.device) if values is None else values
    return values.masked_fill(is_loop(graph), weight)


def _check_edge_index(edge_index: Tensor) -> None:
    """With torch_geometric's words, so that a user who changes the import sees the same."""
    if edge_index.dtype not in WHOLE - {torch.bool}:
        raise ValueError(f"Expected 'edge_index' to be of integer type (got '{edge_index.dtype}')")
    if edge_index.dim() != 2:
        raise ValueError(f"Expected 'edge_index' to be two-dimensional (got {edge_index.dim()} dimensions)")
    if edge_index.size(0) != 2:
        raise ValueError(f"Expected 'edge_index' to have size '2' in the first dimension (got '{edge_index.size(0)}')")

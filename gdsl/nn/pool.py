"""Readouts of whole graphs, and poolings that keep a part of the nodes. Interface of ``torch_geometric.nn.pool``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import gdsl.nn
from gdsl.ir.ops.rows import add_at
from gdsl.nn.activations import activation
from gdsl.nn.aggr import MaxAggregation, MeanAggregation, SortAggregation, SumAggregation
from gdsl.nn.conv.base import Programmed
from gdsl.nn.conv.simple import GraphConv, LEConv
from gdsl.nn.declared import InitVar, Module, declared, redraw
from gdsl.nn.inits import uniform
from gdsl.nn.softmax import softmax
from gdsl.nn.sparse import coalesce, product
from gdsl.runtime.formats import edge_list
from gdsl.runtime.graph import Graph, rewire_edge_value
from gdsl.runtime.together import is_shared, largest, means, most, summed

Pooled = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor]

_SUM, _MEAN, _MAX = SumAggregation(), MeanAggregation(), MaxAggregation()


def _readout(aggr: nn.Module, x: Tensor, batch: Tensor | None, size: int | None) -> Tensor:
    if x.dim() == 1:
        return _readout(aggr, x.unsqueeze(1), batch, size).squeeze(1)
    if is_shared():
        return _readout_together(aggr, x, batch, size)
    if batch is None and aggr is _SUM and size is None and not (x.is_floating_point() or x.is_complex()):
        return x.sum(0, keepdim=True)  # of small whole numbers in 64 bits
    result: Tensor = aggr(x, batch, dim_size=size)
    return result


def _readout_together(aggr: nn.Module, x: Tensor, batch: Tensor | None, size: int | None) -> Tensor:
    """Of the nodes of all processes. Equal maxima share the gradient, wherever they are."""
    batch = torch.zeros(len(x), dtype=torch.long, device=x.device) if batch is None else batch
    size = most(int(batch.max()) + 1 if batch.numel() else 0, x.device) if size is None else size
    if aggr is _MEAN:
        return means(x, batch, size)
    zeros = x.new_zeros(size, *x.shape[1:])
    if aggr is _SUM:
        return summed(add_at(x, batch, size))
    index = batch.unsqueeze(1).expand_as(x)
    best = largest((zeros - torch.inf).scatter_reduce(0, index, x.detach(), "amax"))
    won = (x == best[batch]).to(x.dtype)
    ties = summed(zeros.index_add(0, batch, won)).clamp(min=1)
    # Nothing but the gradients of the winners.
    share = summed(add_at(won * (x - x.detach()) / ties[batch], batch, size))
    return torch.where(best == -torch.inf, 0.0, best) + share


def global_add_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The sum of each graph's nodes: [N, channels] to [graphs, channels].

    batch: [N] the graph of each node; None for one graph
    size:  the number of graphs; without it the largest index plus one
    """
    return _readout(_SUM, x, batch, size)


def global_mean_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The mean of each graph's nodes; see :func:`global_add_pool`."""
    return _readout(_MEAN, x, batch, size)


def global_max_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """The largest of each feature in each graph; see :func:`global_add_pool`."""
    return _readout(_MAX, x, batch, size)


def global_sort_pool(x: Tensor, index: Tensor, k: int) -> Tensor:
    """The k nodes of each graph with the largest last feature: [N, F] and ``index`` [N], sorted, to [graphs, k * F].

    See :class:`gdsl.nn.aggr.SortAggregation`.
    """
    found: Tensor = SortAggregation(k)(x, index)
    return found


def topk(
    score: Tensor, ratio: float | None, batch: Tensor, min_score: float | None = None, tol: float = 1e-7
) -> Tensor:
    """The nodes of the best scores of each graph, best first.

    ratio:     the part of a graph's nodes, rounded up, or their number from 1
    min_score: keeps those above it, and at least one a graph

    Raises ValueError without either.
    """
    if min_score is not None:
        best = score.new_full((int(batch.max()) + 1,), float("-inf")).scatter_reduce(0, batch, score, "amax")
        return (score > (best[batch] - tol).clamp(max=min_score)).nonzero().view(-1)
    if ratio is None:
        raise ValueError("At least one of the 'ratio' and 'min_score' parameters must be specified")
    count = torch.bincount(batch)
    most = (float(ratio) * count.to(score.dtype)).ceil().long()
    kept = count.new_full(count.shape, int(ratio)) if ratio >= 1 else most
    order = score.view(-1).argsort(descending=True)
    group, again = batch[order].sort(stable=True)
    place = torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[group]
    return order[again[place < kept[group]]]


def filter_adj(
    edge_index: Tensor, edge_attr: Tensor | None, nodes: Tensor, num_nodes: int
) -> tuple[Tensor, Tensor | None]:
    """The edges between kept nodes, which are numbered in their new order."""
    place = nodes.new_full((num_nodes,), -1)
    place[nodes] = torch.arange(len(nodes), device=nodes.device)
    moved = place[edge_index]
    kept = (moved >= 0).all(dim=0)
    return moved[:, kept], None if edge_attr is None else edge_attr[kept]


@declared
class SelectTopK(Module):
    """A learned score of each node, and the nodes that it keeps; see :class:`TopKPooling`."""

    in_channels: int
    ratio: float | None = 0.5
    min_score: float | None = None
    act: InitVar[str | Callable[[Tensor], Tensor]] = "tanh"

    def _setup(self) -> None:
        if self.ratio is None and self.min_score is None:
            raise ValueError(
                f"At least one of the 'ratio' and 'min_score' parameters must be specified in '{type(self).__name__}'"
            )
        self.act: Any = activation(self.act)
        self.weight = nn.Parameter(torch.empty(1, self.in_channels))

    def reset_parameters(self) -> None:
        """Draw the weight anew."""
        uniform(self.in_channels, self.weight)

    def forward(self, x: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """[N, channels] to the kept nodes [K] and their scores [K]."""
        x = x.view(-1, 1) if x.dim() == 1 else x
        score = (x * self.weight).sum(dim=-1)
        if self.min_score is None:
            score = self.act(score / self.weight.norm(p=2, dim=-1))
        else:
            score = softmax(score, batch)
        nodes = topk(score, self.ratio, batch, self.min_score)
        return nodes, score[nodes]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {_part(self)})"


def _part(pooling: Any) -> str:
    return f"ratio={pooling.ratio}" if pooling.min_score is None else f"min_score={pooling.min_score}"


@declared
class TopKPooling(Module):
    """Keeps the nodes of the best scores x . w / |w|, times these. Gao and Ji, "Graph U-Nets", ICML 2019, equation 2.

    in_channels:  size of the features
    ratio:        the part of a graph's nodes that is kept, rounded up, or their number from 1
    min_score:    keeps those with a softmax above it instead
    multiplier:   of what is kept
    nonlinearity: of the score: the name of a class of torch.nn, or a function

    Raises ValueError without a ratio and a least score. It runs in torch: which nodes it keeps is known from values
    alone.
    """

    in_channels: int
    ratio: float = 0.5
    min_score: float | None = None
    multiplier: float = 1.0
    nonlinearity: InitVar[str | Callable[[Tensor], Tensor]] = "tanh"

    reset_parameters = redraw

    def _setup(self) -> None:
        self.select = SelectTopK(self.in_channels, self.ratio, self.min_score, self.nonlinearity)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        attn: Tensor | None = None,
    ) -> Pooled:
        """[N, channels] to (x, edge_index, edge_attr, batch, nodes, scores) of the K nodes that are kept.

        batch: [N] the graph of each node
        attn:  [N, channels] what is scored instead of x
        """
        batch = edge_index.new_zeros(x.size(0)) if batch is None else batch
        nodes, score = self.select(self.scored(x if attn is None else attn, edge_index), batch)
        kept = x[nodes] * score.view(-1, 1)
        edges, attributes = filter_adj(edge_index, edge_attr, nodes, x.size(0))
        return self.multiplier * kept, edges, attributes, batch[nodes], nodes, score

    def scored(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """What the scores are made of."""
        return x

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {_part(self)}, multiplier={self.multiplier})"


class SAGPooling(TopKPooling):
    """:class:`TopKPooling` with scores from a graph layer. Lee et al., "Self-Attention Graph Pooling", ICML 2019.

    GNN:      the class of the layer; :class:`GraphConv` by default
    **kwargs: of that layer
    Other arguments as in :class:`TopKPooling`.
    """

    def __init__(
        self,
        in_channels: int,
        ratio: float = 0.5,
        GNN: Callable[..., nn.Module] = GraphConv,
        min_score: float | None = None,
        multiplier: float = 1.0,
        nonlinearity: str | Callable[[Tensor], Tensor] = "tanh",
        **kwargs: Any,
    ):
        nn.Module.__init__(self)
        self.in_channels = in_channels
        self.ratio = ratio
        self.min_score = min_score
        self.multiplier = multiplier
        self.gnn: Any = GNN(in_channels, 1, **kwargs)  # before the scores, as in torch_geometric's state and draws
        self.select = SelectTopK(1, ratio, min_score, nonlinearity)
        self.reset_parameters()

    def scored(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The layer's result."""
        y: Tensor = self.gnn(x.view(-1, 1) if x.dim() == 1 else x, edge_index)
        return y

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({type(self.gnn).__name__}, {self.in_channels}, {_part(self)}, "
            f"multiplier={self.multiplier})"
        )


@declared
class PANPooling(Module):
    """Keeps the nodes of the best beta_0 x . p + beta_1 sum_i M_ij. Ma et al., "Path Integral Based Convolution and
    Pooling", NeurIPS 2020.

    Arguments as in :class:`TopKPooling`, which it is with other scores.
    """

    in_channels: int
    ratio: float = 0.5
    min_score: float | None = None
    multiplier: float = 1.0
    nonlinearity: InitVar[str | Callable[[Tensor], Tensor]] = "tanh"

    def _setup(self) -> None:
        self.p = nn.Parameter(torch.empty(self.in_channels))
        self.beta = nn.Parameter(torch.empty(2))
        self.select = SelectTopK(1, self.ratio, self.min_score, self.nonlinearity)

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        nn.init.ones_(self.p)
        nn.init.constant_(self.beta, 0.5)
        self.select.reset_parameters()

    def forward(self, x: Tensor, M: Any, batch: Tensor | None = None) -> Pooled:
        """[N, channels] and the sparse matrix of :class:`gdsl.nn.PANConv`, to (x, edge_index, weight, batch, nodes,
        scores) of the K nodes that are kept.

        batch: [N] the graph of each node
        """
        edge_index, _, weight = edge_list(M)
        assert weight is not None
        batch = edge_index.new_zeros(x.size(0)) if batch is None else batch
        reached = add_at(weight, edge_index[0], x.size(0))
        nodes, score = self.select(self.beta[0] * (x * self.p).sum(dim=-1) + self.beta[1] * reached, batch)
        kept = x[nodes] * score.view(-1, 1)
        edges, weights = filter_adj(edge_index, weight, nodes, x.size(0))
        return self.multiplier * kept, edges, weights, batch[nodes], nodes, score

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {_part(self)}, multiplier={self.multiplier})"


class UnpoolInfo(NamedTuple):
    """What undoes a step of :class:`EdgePooling`."""

    edge_index: Tensor
    cluster: Tensor
    batch: Tensor
    new_edge_score: Tensor


@declared(base="None")
class EdgePooling(Programmed):
    """Contracts edges, the best scores first, each node in one. Diehl, "Edge Contraction Pooling", 2019, section 3.

    in_channels:       size of the features
    edge_score_method: scores of edges from (values [E], edge_index, number of nodes); a softmax over the edges into a
                       node, :meth:`compute_edge_score_softmax`, by default
    dropout:           of the values, in training
    add_to_edge_score: what is added to the scores

    The scores are a program; which edges are contracted is known from values alone, and runs in torch.
    """

    in_channels: int
    edge_score_method: InitVar[Callable[..., Tensor] | None] = None
    dropout: float = 0.0
    add_to_edge_score: float = 0.5

    program_name = "edge_pool"

    def _setup(self) -> None:
        self.compute_edge_score: Any = self.edge_score_method or self.compute_edge_score_softmax
        self.lin = nn.Linear(2 * self.in_channels, 1)

    reset_parameters = redraw

    @staticmethod
    def compute_edge_score_softmax(raw_edge_score: Tensor, edge_index: Tensor, num_nodes: int) -> Tensor:
        """A softmax over the edges into each node."""
        return softmax(raw_edge_score, edge_index[1], num_nodes=num_nodes)

    @staticmethod
    def compute_edge_score_tanh(
        raw_edge_score: Tensor, edge_index: Tensor | None = None, num_nodes: int | None = None
    ) -> Tensor:
        """Between -1 and 1."""
        return torch.tanh(raw_edge_score)

    @staticmethod
    def compute_edge_score_sigmoid(
        raw_edge_score: Tensor, edge_index: Tensor | None = None, num_nodes: int | None = None
    ) -> Tensor:
        """Between 0 and 1."""
        return torch.sigmoid(raw_edge_score)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor, UnpoolInfo]:
        """[N, channels] to (x, edge_index, batch, what :meth:`unpool` needs) of the K nodes that are left.

        batch: [N] the graph of each node
        """
        known: dict[Any, str] = {
            EdgePooling.compute_edge_score_softmax: "softmax",
            EdgePooling.compute_edge_score_tanh: "tanh",
            EdgePooling.compute_edge_score_sigmoid: "sigmoid",
        }
        how = known.get(self.compute_edge_score, "user's")
        nodes = x.size(0)
        graph, _ = self.graph(edge_index, nodes, nodes)
        score = self.run(graph, {"x": x}, how=how, p=float(self.dropout), shift=float(self.add_to_edge_score))
        if how == "user's":
            score = self.compute_edge_score(score, edge_index, nodes) + self.add_to_edge_score
        return self._contract(x, edge_index, batch, score)

    @staticmethod
    def _contract(
        x: Tensor, edge_index: Tensor, batch: Tensor, score: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, UnpoolInfo]:
        """Clusters of the contracted edges in the order of their scores, then those of the other nodes."""
        # Not by a stable sort: edges of equal scores come in the order in which torch_geometric has them.
        order = score.detach().argsort(descending=True)
        taken = order[matching(edge_index[:, order], x.size(0))]
        cluster = batch.new_full((x.size(0),), -1)
        cluster[edge_index[:, taken]] = torch.arange(len(taken), device=batch.device)
        alone = cluster < 0
        clusters = len(taken) + int(alone.sum())
        cluster[alone] = torch.arange(len(taken), clusters, device=batch.device)

        cluster_score = torch.cat([score[taken], score.new_ones(clusters - len(taken))])
        pooled = _readout(_SUM, x, cluster, clusters) * cluster_score.view(-1, 1)
        edges, _ = coalesce(cluster[edge_index], None, clusters)
        info = UnpoolInfo(edge_index, cluster, batch, cluster_score)
        return pooled, edges, batch.new_empty(clusters).scatter_(0, cluster, batch), info

    def unpool(self, x: Tensor, unpool_info: UnpoolInfo) -> tuple[Tensor, Tensor, Tensor]:
        """[K, channels] to (x, edge_index, batch) of the N nodes that there were."""
        spread = (x / unpool_info.new_edge_score.view(-1, 1))[unpool_info.cluster]
        return spread, unpool_info.edge_index, unpool_info.batch


@declared(shows="ratio", rest="kwargs", base="None")
class ASAPooling(Programmed):
    """Keeps the best clusters of a node and its neighbours. Ranjan et al., AAAI 2020, equations 4 to 9.

    in_channels:    size of the features
    ratio:          the part of a graph's clusters that is kept, rounded up, or their number from 1
    GNN:            the class of a layer on the features that the attention sees, if any
    dropout:        of the attention, in training
    negative_slope: of the leaky relu on its scores
    add_self_loops: whether the new graph has them
    **kwargs:       of that layer

    Clusters are made by a program, and scored by :class:`LEConv`; the new graph, whose size is known from values
    alone, in torch.
    """

    in_channels: int
    ratio: float = 0.5
    GNN: Callable[..., nn.Module] | None = None
    dropout: float = 0.0
    negative_slope: float = 0.2
    add_self_loops: bool = False

    program_name = "asap"

    def _setup(self) -> None:
        self.lin = nn.Linear(self.in_channels, self.in_channels)
        self.att = nn.Linear(2 * self.in_channels, 1)
        self.gnn_score = LEConv(self.in_channels, 1)
        size, kwargs = self.in_channels, dict[str, Any](self.kwargs)  # type: ignore[arg-type]
        self.gnn_intra_cluster: Any = None if self.GNN is None else self.GNN(size, size, **kwargs)
        self.select = SelectTopK(1, self.ratio)

    reset_parameters = redraw

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
        """[N, channels] to (x, edge_index, edge_weight, batch, nodes) of the K clusters that are kept.

        edge_weight: [E]
        batch:       [N] the graph of each node
        """
        x = x.unsqueeze(1) if x.dim() == 1 else x
        nodes = x.size(0)
        batch = edge_index.new_zeros(nodes) if batch is None else batch
        rewired = self.graph(edge_index, nodes, nodes)[0].add_remaining_self_loops()
        edges = rewired.graph.edge_index
        weight = None if edge_weight is None else rewire_edge_value(rewired, edge_weight, 1.0)

        pooled = None
        if self.gnn_intra_cluster is not None:
            pooled = self.gnn_intra_cluster(x=x, edge_index=edges, edge_weight=weight)
        clusters, attention = self.run(
            rewired.graph,
            {"x": x, "pooled": pooled},
            in_channels=self.in_channels,
            slope=float(self.negative_slope),
            p=float(self.dropout),
        )
        fitness = self.gnn_score(clusters, edges).sigmoid().view(-1)
        kept, _ = self.select(fitness, batch)
        y = clusters[kept] * fitness[kept].view(-1, 1)
        new_edges, new_weight = self._coarse(edges, weight, attention, kept, nodes)
        return y, new_edges, new_weight, batch[kept], kept

    def _coarse(
        self, edges: Tensor, weight: Tensor | None, attention: Tensor, kept: Tensor, nodes: int
    ) -> tuple[Tensor, Tensor | None]:
        """S^T A S with the attention of the kept clusters as S: its edges, and their weights if A has any."""
        into, share = coalesce(*filter_targets(edges, None if weight is None else attention, kept, nodes), nodes)
        inner, inner_weight = product(edges, weight, into, share, nodes)
        found, values = product(into.flip(0), share, inner, inner_weight, nodes)
        graph = Graph(found, len(kept))
        rewired = graph.add_remaining_self_loops() if self.add_self_loops else graph.remove_self_loops()
        return rewired.graph.edge_index, None if values is None else rewire_edge_value(rewired, values, 1.0)


def matching(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Which edges, best first, are taken, if each is whose nodes are in none taken before: [2, E] to [E].

    In rounds: an edge that is the best one left at both of its nodes is taken whatever comes before it.
    """
    taken = torch.zeros(edge_index.shape[1], dtype=torch.bool, device=edge_index.device)
    left = torch.arange(edge_index.shape[1], device=edge_index.device)
    free = torch.ones(num_nodes, dtype=torch.bool, device=edge_index.device)
    while len(left):
        source, target = edge_index[:, left]
        best = left.new_full((num_nodes,), len(taken))
        best = best.scatter_reduce(0, source, left, "amin").scatter_reduce(0, target, left, "amin")
        won = left[(best[source] == left) & (best[target] == left)]
        taken[won] = True
        free[edge_index[:, won]] = False
        left = left[free[source] & free[target]]
    return taken


def filter_targets(
    edge_index: Tensor, values: Tensor | None, nodes: Tensor, num_nodes: int
) -> tuple[Tensor, Tensor | None]:
    """The edges into kept nodes, which are numbered in their new order; sources keep their numbers."""
    place = nodes.new_full((num_nodes,), -1)
    place[nodes] = torch.arange(len(nodes), device=nodes.device)
    target = place[edge_index[1]]
    kept = target >= 0
    return torch.stack([edge_index[0, kept], target[kept]]), None if values is None else values[kept]


def graclus(edge_index: Tensor, weight: Tensor | None = None, num_nodes: int | None = None) -> Tensor:
    """Pairs of neighbours, heavy edges first, as clusters: [2, E] to [N], named by their first node. Dhillon et al.,
    "Weighted Graph Cuts without Eigenvectors", TPAMI 2007, section 4.1.

    weight:    [E]; edges of a negative weight join nothing. Edges of equal weights, or without any, come at random
    num_nodes: without it the largest index plus one

    torch_geometric goes through the nodes at random, and takes the heaviest edge at each; here the heaviest edge of all
    comes first, in torch, in rounds that take many edges at once.
    """
    nodes = (int(edge_index.max()) + 1 if edge_index.numel() else 0) if num_nodes is None else num_nodes
    order = torch.randperm(edge_index.shape[1], device=edge_index.device)
    order = order[edge_index[0, order] != edge_index[1, order]]
    if weight is not None:
        order = order[weight[order] >= 0]
        order = order[weight[order].argsort(descending=True, stable=True)]
    ranked = edge_index[:, order]
    pairs = ranked[:, matching(ranked, nodes)]
    cluster = torch.arange(nodes, device=edge_index.device)
    cluster[pairs] = pairs.amin(dim=0)
    return cluster


def voxel_grid(
    pos: Tensor,
    size: float | list[float] | Tensor,
    batch: Tensor | None = None,
    start: float | list[float] | Tensor | None = None,
    end: float | list[float] | Tensor | None = None,
) -> Tensor:
    """The cell of a regular grid of each point: [N, D] to [N]. Simonovsky and Komodakis, CVPR 2017.

    size:       of a cell, in all directions or in each
    batch:      [N] the graph of each point, whose cells are its own
    start, end: of the grid; without them, the least and the largest coordinates
    """
    pos = pos.unsqueeze(1) if pos.dim() == 1 else pos

    def each(value: Any) -> Tensor:
        numbers = torch.as_tensor(value, dtype=pos.dtype, device=pos.device).view(-1)
        return torch.cat([numbers, numbers[-1:].expand(max(pos.size(1) - len(numbers), 0))])[: pos.size(1)]

    width = each(size)
    low = pos.amin(dim=0) if start is None else each(start)
    high = pos.amax(dim=0) if end is None else each(end)
    cells = ((high - low) / width).long() + 1
    stride = cells.cumprod(0)
    cell = (((pos - low) / width).long() * (stride // cells)).sum(dim=1)
    return cell if batch is None else cell + batch * stride[-1]


def _consecutive(cluster: Tensor, batch: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Clusters numbered without gaps, and the graph of each."""
    names, cluster = torch.unique(cluster, return_inverse=True)
    return cluster, None if batch is None else batch.new_empty(len(names)).scatter_(0, cluster, batch)


def _pool_x(
    aggr: nn.Module, cluster: Tensor, x: Tensor, batch: Tensor, batch_size: int | None, size: int | None
) -> tuple[Tensor, Tensor | None]:
    if size is not None:
        graphs = int(batch.max()) + 1 if batch_size is None else batch_size
        return _readout(aggr, x, cluster, graphs * size), None
    cluster, of_graph = _consecutive(cluster, batch)
    return _readout(aggr, x, cluster, None), of_graph


def _pool(aggr: nn.Module, cluster: Tensor, data: Any, transform: Callable[[Any], Any] | None) -> Any:
    # Whoever has such data has torch_geometric.
    from torch_geometric.data import Batch

    cluster, batch = _consecutive(cluster, data.batch)
    edges, attributes = cluster[data.edge_index], data.edge_attr
    between = edges[0] != edges[1]
    edges, attributes = edges[:, between], None if attributes is None else attributes[between]
    edges, attributes = coalesce(edges, attributes, len(cluster))
    pooled = Batch(
        batch=batch,
        x=None if data.x is None else _readout(aggr, data.x, cluster, None),
        edge_index=edges,
        edge_attr=attributes,
        pos=None if data.pos is None else _readout(_MEAN, data.pos, cluster, None),
    )
    return pooled if transform is None else transform(pooled)


def _pool_neighbors(aggr: nn.Module, data: Any, flow: str) -> Any:
    own = torch.arange(data.num_nodes, device=data.edge_index.device).expand(2, -1)
    edges = torch.cat([data.edge_index, own], dim=1)
    source, target = edges if flow == "source_to_target" else edges.flip(0)
    data.x = _readout(aggr, data.x[source], target, data.num_nodes)
    return data


def max_pool_x(
    cluster: Tensor, x: Tensor, batch: Tensor, batch_size: int | None = None, size: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """The largest of each feature in each cluster: [N, channels] to [K, channels], and the graph [K] of each cluster.

    cluster:    [N] the cluster of each node
    batch:      [N] the graph of each node
    batch_size: the number of graphs; without it the largest index plus one
    size:       the number of clusters of each graph, where all have a number of their own; there is no second result
    """
    return _pool_x(_MAX, cluster, x, batch, batch_size, size)


def avg_pool_x(
    cluster: Tensor, x: Tensor, batch: Tensor, batch_size: int | None = None, size: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """The mean of each cluster; see :func:`max_pool_x`."""
    return _pool_x(_MEAN, cluster, x, batch, batch_size, size)


def max_pool(cluster: Tensor, data: Any, transform: Callable[[Any], Any] | None = None) -> Any:
    """The graph of clusters: the largest features, mean positions, and the sums of the edges' features.

    cluster:   [N] the cluster of each node
    data:      a ``torch_geometric.data.Data``; the result is one of a batch
    transform: what the result goes through
    """
    return _pool(_MAX, cluster, data, transform)


def avg_pool(cluster: Tensor, data: Any, transform: Callable[[Any], Any] | None = None) -> Any:
    """:func:`max_pool` with the mean features."""
    return _pool(_MEAN, cluster, data, transform)


def max_pool_neighbor_x(data: Any, flow: str = "source_to_target") -> Any:
    """The features of ``data`` replaced by the largest of a node and its neighbours."""
    return _pool_neighbors(_MAX, data, flow)


def avg_pool_neighbor_x(data: Any, flow: str = "source_to_target") -> Any:
    """The features of ``data`` replaced by the mean of a node and its neighbours."""
    return _pool_neighbors(_MEAN, data, flow)


def __getattr__(name: str) -> Any:
    """Poolings with files of their own, and neighbours, which torch_geometric has here."""
    home = gdsl.nn._HOMES.get(name, "").rpartition(".")[2]
    if home not in ("clusters", "knn_index", "neighbors"):
        raise AttributeError(f"module 'gdsl.nn.pool' has no attribute {name!r}")
    return getattr(gdsl.nn, name)

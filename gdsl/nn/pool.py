"""Poolings that keep a part of the nodes. Interface of ``torch_geometric.nn.pool``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import gdsl.nn
from gdsl.errors import InputError
from gdsl.ir.ops.rows import add_at
from gdsl.module.meeting import check_own_rows, excused, meeting, must_meet
from gdsl.nn.activations import activation
from gdsl.nn.conv.base import Programmed
from gdsl.nn.conv.simple import GraphConv, LEConv
from gdsl.nn.declared import InitVar, Module, declared, redraw
from gdsl.nn.grouped import count_in
from gdsl.nn.inits import uniform
from gdsl.nn.readouts import SUM, readout
from gdsl.nn.softmax import softmax
from gdsl.nn.sparse import coalesce, product, refuse_graph, refuse_part
from gdsl.runtime.everywhere import all_rows, keep_nodes
from gdsl.runtime.formats import edge_list
from gdsl.runtime.graph import Graph
from gdsl.runtime.local import LocalGraph
from gdsl.runtime.rewire import rewire_edge_value

Pooled = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor]


def topk(
    score: Tensor, ratio: float | None, batch: Tensor, min_score: float | None = None, tol: float = 1e-7
) -> Tensor:
    """The nodes of the best scores of each graph, best first.

    ratio:     the part of a graph's nodes, rounded up, or their number from 1
    min_score: keeps those above it, and at least one a graph

    Raises ValueError without either.
    """
    if min_score is not None:
        best = score.new_full((count_in(batch),), float("-inf")).scatter_reduce(0, batch, score, "amax")
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
        return self.best(self.projected(x), batch)

    def projected(self, x: Tensor) -> Tensor:
        """[N, channels] to x . w [N]."""
        return ((x.view(-1, 1) if x.dim() == 1 else x) * self.weight).sum(dim=-1)

    def best(self, score: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """x . w [N] to the kept nodes [K] and their scores [K]."""
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

    On a part of a distributed graph it keeps the nodes that one process with all of them does, and gives the part of
    the graph of these: each process then has a score and a number of a graph for each node of all processes.
    """

    in_channels: int
    ratio: float = 0.5
    min_score: float | None = None
    multiplier: float = 1.0
    nonlinearity: InitVar[str | Callable[[Tensor], Tensor]] = "tanh"

    reset_parameters = redraw

    def _setup(self) -> None:
        self.select = SelectTopK(self.in_channels, self.ratio, self.min_score, self.nonlinearity)

    @excused
    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        attn: Tensor | None = None,
    ) -> Pooled:
        """[N, channels] to (x, edge_index, edge_attr, batch, nodes, scores) of the K nodes that are kept.

        batch: [N] the graph of each node
        attn:  [N, channels] what is scored instead of x

        Of a :class:`gdsl.distributed.LocalGraph`, to rows of own nodes, and the part of the new graph in the place of
        its edges; raises ``InputError`` for rows of another number, ``GraphError`` on all other processes.
        """
        if must_meet(self, edge_index):
            check_own_rows("attn", attn, edge_index.num_sources, "nodes")
            check_own_rows("edge_attr", edge_attr, edge_index.num_edges, "edges")
            with meeting(self, edge_index, x, batch, edge_attr=edge_attr, attn=attn):
                return self.forward(x, edge_index, edge_attr, batch, attn)
        if not isinstance(edge_index, LocalGraph):
            refuse_graph(self, edge_index)
        batch = torch.zeros(x.size(0), dtype=torch.long, device=edge_index.device) if batch is None else batch
        nodes, score, edges, attributes = self._chosen(x if attn is None else attn, edge_index, edge_attr, batch)
        kept = x[nodes] * score.view(-1, 1)
        return self.multiplier * kept, edges, attributes, batch[nodes], nodes, score

    def _chosen(
        self, x: Tensor, edges: Any, edge_attr: Tensor | None, batch: Tensor
    ) -> tuple[Tensor, Tensor, Any, Tensor | None]:
        """The nodes that are kept, their scores, and the edges between them."""
        scored = self.scored(x, edges)
        if not isinstance(edges, LocalGraph):
            nodes, score = self.select(scored, batch)
            return nodes, score, *filter_adj(edges, edge_attr, nodes, x.size(0))
        score = all_rows(edges, self.select.projected(scored))
        nodes, score = self.select.best(score, all_rows(edges, batch))
        kept = keep_nodes(edges, nodes)
        return kept.nodes, score[kept.chosen], kept.graph, None if edge_attr is None else edge_attr[kept.edges]

    def scored(self, x: Tensor, edge_index: Any) -> Tensor:
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

    def scored(self, x: Tensor, edge_index: Any) -> Tensor:
        """The layer's result."""
        return self.gnn(x.view(-1, 1) if x.dim() == 1 else x, edge_index)

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

        Raises :class:`gdsl.InputError` for edges without weights.
        """
        edge_index, _, weight = edge_list(M)
        if weight is None:
            raise InputError("PANPooling takes the sparse matrix that PANConv gives, not edges without weights")
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
        refuse_graph(self, edge_index)
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
        pooled = readout(SUM, x, cluster, clusters) * cluster_score.view(-1, 1)
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
        refuse_part(self, edge_index)
        x = x.unsqueeze(1) if x.dim() == 1 else x
        nodes = x.size(0)
        batch = x.new_zeros(nodes, dtype=torch.long) if batch is None else batch
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


def __getattr__(name: str) -> Any:
    """Poolings with files of their own, and neighbours, which torch_geometric has here."""
    home = gdsl.nn._HOMES.get(name, "").rpartition(".")[2]
    if home not in ("clusters", "coarsening", "knn_index", "neighbors", "readouts"):
        raise AttributeError(f"module 'gdsl.nn.pool' has no attribute {name!r}")
    return getattr(gdsl.nn, name)

"""Embeddings for recommendation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdsl.module.meeting import excused, meeting, must_meet
from gdsl.nn.conv.inputs import Adjacency
from gdsl.nn.conv.spectral import LGConv
from gdsl.nn.declared import words
from gdsl.runtime.everywhere import all_rows, rows_at
from gdsl.runtime.graph import Graph
from gdsl.runtime.local import LocalGraph, of_own_nodes, read_by_edges
from gdsl.runtime.together import mean_together, shared_graph, total_together


class LightGCN(nn.Module):
    """A weighted sum of embeddings and of what :class:`LGConv` makes of them. He et al., "LightGCN: Simplifying and
    Powering Graph Convolution Network for Recommendation", SIGIR 2020, equations 3 to 8.

    num_nodes:     number of nodes, users and items together
    embedding_dim: size of an embedding
    num_layers:    number of layers
    alpha:         the weight of each layer, [num_layers + 1], or one for all; None stands for an even share
    **kwargs:      of :class:`LGConv`

    Raises AssertionError for another number of weights.

    On a :class:`gdsl.distributed.LocalGraph`, ``num_nodes`` is that of all processes, or of own nodes: the table of
    embeddings then has the rows of these. A process gives pairs of its own, as numbers in the whole graph, and gets
    their scores. Losses within :func:`gdsl.distributed.together` are those of the pairs of all processes.
    """

    def __init__(
        self, num_nodes: int, embedding_dim: int, num_layers: int, alpha: float | Tensor | None = None, **kwargs: Any
    ):
        super().__init__()
        self.num_nodes = num_nodes
        self.embedding_dim = embedding_dim
        self.num_layers = num_layers
        if not isinstance(alpha, Tensor):
            alpha = torch.tensor([1.0 / (num_layers + 1) if alpha is None else alpha] * (num_layers + 1))
        assert len(alpha) == num_layers + 1, f"{num_layers} layers have {num_layers + 1} weights, not {len(alpha)}"
        self.alpha: Tensor
        self.register_buffer("alpha", alpha)
        self.embedding = nn.Embedding(num_nodes, embedding_dim)
        self.convs = nn.ModuleList(LGConv(**kwargs) for _ in range(num_layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the embeddings anew."""
        nn.init.xavier_uniform_(self.embedding.weight)
        for conv in self.convs:
            conv.reset_parameters()  # type: ignore[operator]

    @excused
    def get_embedding(self, edge_index: Adjacency, edge_weight: Tensor | None = None) -> Tensor:
        """[num_nodes, embedding_dim] on a graph with weights [E], if any; of a part, the rows of own nodes.

        Raises ``GraphError`` for a part of a graph of another number of nodes.
        """
        x = of_own_nodes(edge_index, self.embedding.weight)
        total = x * self.alpha[0]
        for conv, share in zip(self.convs, self.alpha[1:], strict=True):
            x = conv(x, edge_index, edge_weight)
            total = total + x * share
        return total

    @excused
    def forward(
        self, edge_index: Adjacency, edge_label_index: Tensor | None = None, edge_weight: Tensor | None = None
    ) -> Tensor:
        """The scores [K] of pairs of nodes ``edge_label_index`` [2, K], or of the edges of the graph."""
        if must_meet(self, edge_index):
            with meeting(self, edge_index, None, edge_label_index=edge_label_index, edge_weight=edge_weight):
                return self.forward(edge_index, edge_label_index, edge_weight)
        if isinstance(edge_index, LocalGraph):
            return self._of_part(edge_index, edge_label_index, edge_weight)
        if edge_label_index is None:
            plain = isinstance(edge_index, Tensor) and edge_index.layout is torch.strided
            edge_label_index = edge_index if plain else Graph.from_any(edge_index).edge_index
        found = self.get_embedding(edge_index, edge_weight)
        first, second = edge_label_index[0], edge_label_index[1]
        return (found[first] * found[second]).sum(dim=-1)

    def _of_part(self, graph: LocalGraph, pairs: Tensor | None, edge_weight: Tensor | None) -> Tensor:
        found = self.get_embedding(graph, edge_weight)
        if pairs is None:
            source, target = graph.local_edge_index
            return (read_by_edges(graph, found)[source] * found[target]).sum(dim=-1)
        first, second = rows_at(graph, found, pairs)
        return (first * second).sum(dim=-1)

    def predict_link(
        self,
        edge_index: Adjacency,
        edge_label_index: Tensor | None = None,
        edge_weight: Tensor | None = None,
        prob: bool = False,
    ) -> Tensor:
        """As :meth:`forward`: whether there is an edge, 0 or 1, or how probable it is."""
        found: Tensor = self(edge_index, edge_label_index, edge_weight).sigmoid()
        return found if prob else found.round()

    @excused
    def recommend(
        self,
        edge_index: Adjacency,
        edge_weight: Tensor | None = None,
        src_index: Tensor | None = None,
        dst_index: Tensor | None = None,
        k: int = 1,
        sorted: bool = True,
    ) -> Tensor:
        """The k nodes of ``dst_index`` with the best scores for each node of ``src_index``, of all nodes without them:
        [sources, k].

        Of a part, for each own node without ``src_index``; a process has the embeddings of all nodes that it chooses
        from.
        """
        if must_meet(self, edge_index):
            with meeting(self, edge_index, None, edge_weight=edge_weight, src_index=src_index, dst_index=dst_index):
                return self.recommend(edge_index, edge_weight, src_index, dst_index, k, sorted)
        every = self.get_embedding(edge_index, edge_weight)
        if isinstance(edge_index, LocalGraph):
            source = every if src_index is None else rows_at(edge_index, every, src_index)
            target = all_rows(edge_index, every) if dst_index is None else rows_at(edge_index, every, dst_index)
        else:
            source, target = (every if index is None else every[index] for index in (src_index, dst_index))
        best = (source @ target.t()).topk(k, dim=-1, sorted=sorted).indices
        return best if dst_index is None else dst_index[best]

    @excused
    def link_pred_loss(self, pred: Tensor, edge_label: Tensor, **kwargs: Any) -> Tensor:
        """The binary cross entropy of scores [K] and labels [K]; ``kwargs`` of ``torch.nn.BCEWithLogitsLoss``."""
        loss = nn.BCEWithLogitsLoss(**kwargs)
        how, loss.reduction = loss.reduction, "none"
        losses: Tensor = loss(pred, edge_label.to(pred.dtype))
        return losses if how == "none" else mean_together(losses) if how == "mean" else total_together(losses.sum())

    @excused
    def recommendation_loss(
        self,
        pos_edge_rank: Tensor,
        neg_edge_rank: Tensor,
        node_id: Tensor | None = None,
        lambda_reg: float = 1e-4,
        **kwargs: Any,
    ) -> Tensor:
        """The Bayesian personalised ranking of pairs of a good and a bad score of the same node, [K] each, and
        ``lambda_reg`` times the square of the embeddings of ``node_id`` [M], or of all.
        """
        known, graph = self.embedding.weight, shared_graph()
        if isinstance(graph, LocalGraph):
            known = of_own_nodes(graph, known)
            known = known if node_id is None else rows_at(graph, known, node_id)
        elif node_id is not None:
            known = known[node_id]
        return BPRLoss(lambda_reg, **kwargs)(pos_edge_rank, neg_edge_rank, known)

    __repr__ = words("{self.num_nodes}, {self.embedding_dim}, num_layers={self.num_layers}")


class BPRLoss(nn.modules.loss._Loss):
    """-mean log sigmoid(good - bad), plus a part of the square of what is learned. Rendle et al., "BPR: Bayesian
    Personalized Ranking from Implicit Feedback", UAI 2009.

    lambda_reg: that part, divided by the number of pairs

    Within :func:`gdsl.distributed.together`, of the pairs and of what is learned of all processes.
    """

    def __init__(self, lambda_reg: float = 0, **kwargs: Any):
        super().__init__(None, None, "sum", **kwargs)
        self.lambda_reg = lambda_reg

    @excused
    def forward(self, positives: Tensor, negatives: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Scores [K] and [K], and what is learned, to a number."""
        loss = mean_together(-functional.logsigmoid(positives - negatives))
        if self.lambda_reg == 0 or parameters is None:
            return loss
        count = total_together(torch.tensor(positives.size(0), device=positives.device))
        return loss + self.lambda_reg * total_together(parameters.norm(p=2).pow(2)) / count

"""Embeddings of nodes from random walks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gdsl.nn.declared import redraw, words
from gdsl.nn.grouped import count_in
from gdsl.nn.models.probe import score
from gdsl.runtime.spans import row_numbers

EPS = 1e-15


class Walked(nn.Module):
    """Embeddings of nodes by what walks have near each other. A subclass draws the walks."""

    EPS = EPS
    embedding: nn.Embedding
    context_size: int

    reset_parameters = redraw

    def _contexts(self, walks: Tensor) -> Tensor:
        return walks.unfold(1, self.context_size, 1).transpose(0, 1).reshape(-1, self.context_size)

    def loss(self, pos_rw: Tensor, neg_rw: Tensor) -> Tensor:
        """-log of how probable it is that the first node of a context is near its others, and of none of the negative
        ones: [walks, context_size] each, to a number.
        """
        good, bad = (self._near(walks) for walks in (pos_rw, neg_rw))
        return -(good + self.EPS).log().mean() - (1 - bad + self.EPS).log().mean()

    def _near(self, walks: Tensor) -> Tensor:
        first, others = self.embedding(walks[:, :1]), self.embedding(walks[:, 1:])
        return (first * others).sum(dim=-1).view(-1).sigmoid()

    test = staticmethod(score)


class Node2Vec(Walked):
    """Embeddings that tell which nodes are near on random walks. Grover and Leskovec, "node2vec: Scalable Feature
    Learning for Networks", KDD 2016.

    edge_index:     [2, E]
    embedding_dim:  size of an embedding
    walk_length:    nodes of a walk
    context_size:   nodes of a walk that are seen together
    walks_per_node: walks from each node
    p, q:           a step back, and one away from where the walk came from, are 1/p and 1/q times as probable as one to
                    a common neighbour
    num_negative_samples: random walks on no graph for each that is one
    num_nodes:      number of nodes; without it the largest index plus one
    sparse:         whether gradients of the embeddings are sparse

    Walks are drawn in torch. At a node without edges they stay.

    Raises AssertionError for a context that is longer than a walk.
    """

    def __init__(
        self,
        edge_index: Tensor,
        embedding_dim: int,
        walk_length: int,
        context_size: int,
        walks_per_node: int = 1,
        p: float = 1.0,
        q: float = 1.0,
        num_negative_samples: int = 1,
        num_nodes: int | None = None,
        sparse: bool = False,
    ):
        super().__init__()
        assert walk_length >= context_size, f"a walk of {walk_length} nodes has no context of {context_size}"
        num_nodes = self.num_nodes = count_in(edge_index) if num_nodes is None else num_nodes
        row, self.col = edge_index[:, (edge_index[0] * num_nodes + edge_index[1]).argsort()].cpu()
        self.rowptr = nn.functional.pad(torch.bincount(row, minlength=num_nodes).cumsum(0), (1, 0))
        self.embedding_dim = embedding_dim
        self.walk_length = walk_length - 1
        self.context_size = context_size
        self.walks_per_node = walks_per_node
        self.p = p
        self.q = q
        self.num_negative_samples = num_negative_samples
        self.embedding = nn.Embedding(num_nodes, embedding_dim, sparse=sparse)
        self.reset_parameters()

    def forward(self, batch: Tensor | None = None) -> Tensor:
        """The embeddings of some nodes, or of all: [N, embedding_dim]."""
        known: Tensor = self.embedding.weight
        return known if batch is None else known[batch]

    def loader(self, **kwargs: Any) -> DataLoader[Any]:
        """Batches of walks, :meth:`sample`, from all nodes; ``kwargs`` of ``torch.utils.data.DataLoader``."""
        nodes: Any = range(self.num_nodes)
        return DataLoader(nodes, collate_fn=self.sample, **kwargs)

    def pos_sample(self, batch: Tensor) -> Tensor:
        """Contexts of walks from some nodes: [walks, context_size]."""
        start = batch.repeat(self.walks_per_node)
        return self._contexts(random_walk(self.rowptr, self.col, start, self.walk_length, self.p, self.q))

    def neg_sample(self, batch: Tensor) -> Tensor:
        """Contexts of walks to any node: [walks, context_size]."""
        start = batch.repeat(self.walks_per_node * self.num_negative_samples)
        anywhere = torch.randint(self.num_nodes, (len(start), self.walk_length), dtype=batch.dtype, device=batch.device)
        return self._contexts(torch.cat([start.view(-1, 1), anywhere], dim=1))

    def sample(self, batch: list[int] | Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`pos_sample` and :meth:`neg_sample` of some nodes."""
        nodes = batch if isinstance(batch, Tensor) else torch.tensor(batch)
        return self.pos_sample(nodes), self.neg_sample(nodes)

    __repr__ = words("{self.num_nodes}, {self.embedding_dim}")


def random_walk(rowptr: Tensor, col: Tensor, start: Tensor, length: int, p: float = 1.0, q: float = 1.0) -> Tensor:
    """Walks of so many steps: [walks] to [walks, length + 1].

    rowptr, col: [N + 1] and [E] the neighbours of each node, sorted
    p, q:        see :class:`Node2Vec`
    """
    count, rows = rowptr.diff(), len(rowptr) - 1
    edges = row_numbers(count) * rows + col if p != 1.0 or q != 1.0 else None
    here, walk = start.cpu(), [start.cpu()]
    for _ in range(length):
        before = None if edges is None or len(walk) == 1 else walk[-2]
        drawn, left = here.clone(), torch.arange(len(here))[count[here] > 0]
        while len(left):  # a step that is refused is drawn again
            at = here[left]
            # Of float32, the largest number below 1 times a large count may be the count.
            place = (torch.rand(len(at), dtype=torch.float64) * count[at]).long()
            drawn[left] = col[rowptr[at] + place]
            if before is None or edges is None:
                break
            odds = _odds(edges, rows, before[left], drawn[left], p, q)
            left = left[torch.rand(len(left), dtype=torch.float64) * max(1 / p, 1.0, 1 / q) >= odds]
        here = drawn
        walk.append(here)
    return torch.stack(walk, dim=1).to(start.device)


def _odds(edges: Tensor, rows: int, before: Tensor, to: Tensor, p: float, q: float) -> Tensor:
    """How probable a step is, next to one to a common neighbour."""
    key = before * rows + to
    place = torch.searchsorted(edges, key).clamp(max=len(edges) - 1)
    near = edges[place] == key
    far = torch.where(near, 1.0, 1 / q).double()
    return far.where(to != before, 1 / p)

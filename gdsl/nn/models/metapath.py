"""Embeddings of nodes from random walks along types of edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gdsl.nn.grouped import count_in
from gdsl.nn.models.node2vec import Walked

EdgeType = tuple[str, str, str]


class MetaPath2Vec(Walked):
    """Embeddings that tell which nodes are near on random walks whose steps have given types. Dong et al.,
    "metapath2vec: Scalable Representation Learning for Heterogeneous Networks", KDD 2017, section 3.2.

    edge_index_dict: [2, E] of each type of edges: (type of sources, name, type of targets)
    embedding_dim:   size of an embedding
    metapath:        the types of the steps, again and again
    walk_length:     steps of a walk
    context_size:    nodes of a walk that are seen together
    walks_per_node:  walks from each node of the first type
    num_negative_samples: walks to any nodes of the types for each that is one
    num_nodes_dict:  number of nodes of each type; without it the largest index plus one
    sparse:          whether gradients of the embeddings are sparse

    A walk that comes to a node without edges stays at a node that stands for none.

    Raises ValueError for steps that do not follow each other, AssertionError for a context that is longer than a walk,
    AttributeError for a walk that is longer than a path that is no cycle.
    """

    def __init__(
        self,
        edge_index_dict: Mapping[EdgeType, Tensor],
        embedding_dim: int,
        metapath: Sequence[EdgeType],
        walk_length: int,
        context_size: int,
        walks_per_node: int = 1,
        num_negative_samples: int = 1,
        num_nodes_dict: Mapping[str, int] | None = None,
        sparse: bool = False,
    ):
        super().__init__()
        for one, other in pairwise(metapath):
            if one[-1] != other[0]:
                raise ValueError(f"Found invalid metapath: {one} ends where {other} does not start")
        assert walk_length + 1 >= context_size, f"a walk of {walk_length} steps has no context of {context_size}"
        if walk_length > len(metapath) and metapath[0][0] != metapath[-1][-1]:
            raise AttributeError(
                "The 'walk_length' is longer than the given 'metapath', but the 'metapath' does not denote a cycle"
            )
        self.num_nodes_dict = counts = dict(_counts(edge_index_dict) if num_nodes_dict is None else num_nodes_dict)
        self.rowptr_dict: dict[EdgeType, Tensor] = {}
        self.col_dict: dict[EdgeType, Tensor] = {}
        self.rowcount_dict: dict[EdgeType, Tensor] = {}
        for kind, edges in edge_index_dict.items():
            order = (edges[0] * counts[kind[-1]] + edges[1]).argsort(stable=True)
            row, self.col_dict[kind] = edges[:, order].cpu()
            self.rowcount_dict[kind] = torch.bincount(row, minlength=counts[kind[0]])
            self.rowptr_dict[kind] = nn.functional.pad(self.rowcount_dict[kind].cumsum(0), (1, 0))
        self.embedding_dim = embedding_dim
        self.metapath = metapath
        self.walk_length = walk_length
        self.context_size = context_size
        self.walks_per_node = walks_per_node
        self.num_negative_samples = num_negative_samples
        # The rows of the embeddings of each type, and one for no node.
        self.start: dict[str, int] = {}
        self.end: dict[str, int] = {}
        self.dummy_idx = 0
        for name in sorted({kind[end] for kind in metapath for end in (0, -1)}):
            self.start[name], self.end[name] = self.dummy_idx, self.dummy_idx + counts[name]
            self.dummy_idx = self.end[name]
        types = [metapath[0][0], *(self._kind(k)[-1] for k in range(walk_length))]
        self.offset = torch.tensor([self.start[name] for name in types])
        self.embedding = nn.Embedding(self.dummy_idx + 1, embedding_dim, sparse=sparse)
        self.reset_parameters()

    def _kind(self, step: int) -> EdgeType:
        return self.metapath[step % len(self.metapath)]

    def forward(self, node_type: str, batch: Tensor | None = None) -> Tensor:
        """The embeddings of some nodes of a type, or of all: [N, embedding_dim]."""
        known: Tensor = self.embedding.weight[self.start[node_type] : self.end[node_type]]
        return known if batch is None else known[batch]

    def loader(self, **kwargs: Any) -> DataLoader[Any]:
        """Batches of walks, good ones and others, from all nodes of the first type; ``kwargs`` of
        ``torch.utils.data.DataLoader``."""
        nodes: Any = range(self.num_nodes_dict[self.metapath[0][0]])
        return DataLoader(nodes, collate_fn=self._sample, **kwargs)

    def _sample(self, batch: list[int] | Tensor) -> tuple[Tensor, Tensor]:
        nodes = batch if isinstance(batch, Tensor) else torch.tensor(batch)
        return self._pos_sample(nodes), self._neg_sample(nodes)

    def _pos_sample(self, batch: Tensor) -> Tensor:
        walk = [batch.repeat(self.walks_per_node)]
        for k in range(self.walk_length):
            walk.append(self._step(self._kind(k), walk[-1]))
        return self._contexts((torch.stack(walk, dim=1) + self.offset).clamp(max=self.dummy_idx))

    def _neg_sample(self, batch: Tensor) -> Tensor:
        walk = [batch.repeat(self.walks_per_node * self.num_negative_samples)]
        for k in range(self.walk_length):
            walk.append(torch.randint(self.num_nodes_dict[self._kind(k)[-1]], walk[0].shape))
        return self._contexts(torch.stack(walk, dim=1) + self.offset)

    def _step(self, kind: EdgeType, here: Tensor) -> Tensor:
        """The nodes after a step along edges of this type; ``dummy_idx`` where there are none."""
        rowptr, count, col = self.rowptr_dict[kind], self.rowcount_dict[kind], self.col_dict[kind]
        rows = here.clamp(max=len(count) - 1)
        drawn = (torch.rand(len(here), dtype=torch.float32) * count[rows]).long()
        # Of float32, the largest number below 1 times a large count may be the count.
        place = rowptr[rows] + torch.minimum(drawn, count[rows] - 1)
        found = col[place.clamp(0, len(col) - 1)] if len(col) else here
        return found.masked_fill((here >= self.dummy_idx) | (count[rows] == 0), self.dummy_idx)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dummy_idx}, {self.embedding_dim})"


def _counts(edge_index_dict: Mapping[EdgeType, Tensor]) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind, edges in edge_index_dict.items():
        for name, ends in zip((kind[0], kind[-1]), edges, strict=True):
            found[name] = max(count_in(ends), found.get(name, 0))
    return found

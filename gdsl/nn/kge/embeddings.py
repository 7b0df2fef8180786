"""Embeddings of knowledge graphs, each by the score of a triplet."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gdsl.nn.declared import InitVar, declared
from gdsl.nn.kge.base import KGEModel


def _ranked(self: Any, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
    """What is lost where a score is not above that of a wrong triplet by the margin."""
    good, bad = self._pair(head_index, rel_type, tail_index)
    return functional.margin_ranking_loss(good, bad, torch.ones_like(good), self.margin)


def _told_apart(self: Any, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
    """The binary cross entropy of the scores and those of wrong triplets."""
    good, bad = self._pair(head_index, rel_type, tail_index)
    return functional.binary_cross_entropy_with_logits(
        torch.cat([good, bad]), torch.cat([torch.ones_like(good), torch.zeros_like(bad)])
    )


@declared(base="num_nodes, num_relations, hidden_channels, sparse", words=False)
class TransE(KGEModel):
    """-|h + r - t|. Bordes et al., "Translating Embeddings for Modeling Multi-relational Data", NeurIPS 2013.

    margin: of the loss
    p_norm: of the distance, and of the nodes' lengths, which are 1
    Other arguments as in :class:`KGEModel`.
    """

    num_nodes: int
    num_relations: int
    hidden_channels: int
    margin: float = 1.0
    p_norm: float = 1.0
    sparse: InitVar[bool] = False

    def reset_parameters(self) -> None:
        """Draw the embeddings anew."""
        bound = 6.0 / math.sqrt(self.hidden_channels)
        nn.init.uniform_(self.node_emb.weight, -bound, bound)
        nn.init.uniform_(self.rel_emb.weight, -bound, bound)
        self.rel_emb.weight.data = functional.normalize(self.rel_emb.weight.data, p=self.p_norm, dim=-1)

    def forward(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        """The scores of triplets, three times [K] to [K]."""
        head, tail = (functional.normalize(self.node_emb(i), p=self.p_norm, dim=-1) for i in (head_index, tail_index))
        return -(head + self.rel_emb(rel_type) - tail).norm(p=self.p_norm, dim=-1)

    loss = _ranked


@declared(base="num_nodes, num_relations, hidden_channels, sparse", words=False)
class DistMult(KGEModel):
    """sum h r t. Yang et al., "Embedding Entities and Relations for Learning and Inference in Knowledge Bases", ICLR
    2015.

    margin: of the loss
    Other arguments as in :class:`KGEModel`.
    """

    num_nodes: int
    num_relations: int
    hidden_channels: int
    margin: float = 1.0
    sparse: InitVar[bool] = False

    def reset_parameters(self) -> None:
        """Draw the embeddings anew."""
        nn.init.xavier_uniform_(self.node_emb.weight)
        nn.init.xavier_uniform_(self.rel_emb.weight)

    def forward(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        """The scores of triplets, three times [K] to [K]."""
        return (self.node_emb(head_index) * self.rel_emb(rel_type) * self.node_emb(tail_index)).sum(dim=-1)

    loss = _ranked


@declared(base="num_nodes, num_relations, hidden_channels, sparse", words=False)
class ComplEx(KGEModel):
    """Re sum h r conj(t) of complex embeddings. Trouillon et al., "Complex Embeddings for Simple Link Prediction", ICML
    2016, equation 9. Arguments as in :class:`KGEModel`.
    """

    num_nodes: int
    num_relations: int
    hidden_channels: int
    sparse: InitVar[bool] = False

    def _setup(self) -> None:
        self.node_emb_im = nn.Embedding(self.num_nodes, self.hidden_channels, sparse=self.node_emb.sparse)
        self.rel_emb_im = nn.Embedding(self.num_relations, self.hidden_channels, sparse=self.node_emb.sparse)

    def reset_parameters(self) -> None:
        """Draw the embeddings anew."""
        for part in (self.node_emb, self.node_emb_im, self.rel_emb, self.rel_emb_im):
            nn.init.xavier_uniform_(part.weight)

    def forward(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        """The scores of triplets, three times [K] to [K]."""
        a, b = self.node_emb(head_index), self.node_emb_im(head_index)
        c, d = self.rel_emb(rel_type), self.rel_emb_im(rel_type)
        real, imaginary = a * c - b * d, a * d + b * c
        return (real * self.node_emb(tail_index) + imaginary * self.node_emb_im(tail_index)).sum(dim=-1)

    loss = _told_apart


@declared(base="num_nodes, num_relations, hidden_channels, sparse", words=False)
class RotatE(KGEModel):
    """margin - |h e^{ir} - t| of complex embeddings of nodes. Sun et al., "RotatE: Knowledge Graph Embedding by
    Relational Rotation in Complex Space", ICLR 2019, equation 2.

    margin: of the scores
    Other arguments as in :class:`KGEModel`.
    """

    num_nodes: int
    num_relations: int
    hidden_channels: int
    margin: float = 1.0
    sparse: InitVar[bool] = False

    def _setup(self) -> None:
        self.node_emb_im = nn.Embedding(self.num_nodes, self.hidden_channels, sparse=self.node_emb.sparse)

    def reset_parameters(self) -> None:
        """Draw the embeddings anew."""
        nn.init.xavier_uniform_(self.node_emb.weight)
        nn.init.xavier_uniform_(self.node_emb_im.weight)
        nn.init.uniform_(self.rel_emb.weight, 0, 2 * math.pi)

    def forward(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        """The scores of triplets, three times [K] to [K]."""
        a, b = self.node_emb(head_index), self.node_emb_im(head_index)
        angle = self.rel_emb(rel_type)
        c, s = angle.cos(), angle.sin()
        real, imaginary = c * a - s * b - self.node_emb(tail_index), c * b + s * a - self.node_emb_im(tail_index)
        return self.margin - torch.linalg.vector_norm(torch.stack([real, imaginary], dim=2), dim=(1, 2))

    loss = _told_apart

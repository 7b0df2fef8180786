"""What all embeddings of knowledge graphs share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gdsl.nn.declared import redraw, words


class KGTripletLoader(DataLoader[Any]):
    """Batches of triplets: three tensors [K] in, three tensors of a batch out; ``kwargs`` of ``DataLoader``."""

    def __init__(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor, **kwargs: Any):
        self.triplets = torch.stack([head_index, rel_type, tail_index])
        places: Any = range(head_index.numel())
        super().__init__(places, collate_fn=self.sample, **kwargs)

    def sample(self, index: list[int]) -> tuple[Tensor, ...]:
        """The triplets at some places."""
        return tuple(self.triplets[:, torch.tensor(index, device=self.triplets.device)])


class KGEModel(nn.Module):
    """Base of the embeddings: a subclass gives a triplet of head, relation and tail a score, and says what it loses.

    num_nodes, num_relations: how many there are
    hidden_channels:          size of an embedding
    sparse:                   whether gradients of the embeddings are sparse
    """

    def __init__(self, num_nodes: int, num_relations: int, hidden_channels: int, sparse: bool = False):
        super().__init__()
        self.num_nodes = num_nodes
        self.num_relations = num_relations
        self.hidden_channels = hidden_channels
        self.node_emb = nn.Embedding(num_nodes, hidden_channels, sparse=sparse)
        self.rel_emb = nn.Embedding(num_relations, hidden_channels, sparse=sparse)

    reset_parameters = redraw

    def forward(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        """The scores of triplets, three times [K] to [K]."""
        raise NotImplementedError

    def loss(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> Tensor:
        """What the model loses on triplets, next to as many with another head or tail: a number."""
        raise NotImplementedError

    def _pair(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of triplets, and of as many with another head or tail."""
        wrong = self.random_sample(head_index, rel_type, tail_index)
        return self(head_index, rel_type, tail_index), self(*wrong)

    def loader(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor, **kwargs: Any) -> KGTripletLoader:
        """Batches of triplets; ``kwargs`` of ``torch.utils.data.DataLoader``."""
        return KGTripletLoader(head_index, rel_type, tail_index, **kwargs)

    @torch.no_grad()
    def test(
        self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor, batch_size: int, k: int = 10, log: bool = True
    ) -> tuple[float, float, float]:
        """The mean rank of the true tails among all nodes, the mean of 1 / (rank + 1), and the part of ranks below k.

        batch_size: tails that are tried at a time
        log:        whether to show a progress bar, where the package tqdm is installed
        """
        every = torch.arange(self.num_nodes, device=tail_index.device)
        places: Any = range(head_index.numel())
        if log:
            places = _with_a_bar(places)
        found = []
        for place in places:
            head, rel, tail = head_index[place], rel_type[place], tail_index[place]
            scores = [self(head.expand_as(part), rel.expand_as(part), part) for part in every.split(batch_size)]
            order = torch.cat(scores).argsort(descending=True)
            found.append(int((order == tail).nonzero().view(-1)))
        ranks = torch.tensor(found, dtype=torch.float)
        return float(ranks.mean()), float((1 / (ranks + 1)).mean()), float((ranks < k).float().mean())

    @torch.no_grad()
    def random_sample(self, head_index: Tensor, rel_type: Tensor, tail_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The triplets with another head, in the first half, or another tail."""
        half = head_index.numel() // 2
        drawn = torch.randint(self.num_nodes, head_index.size(), device=head_index.device)
        head = torch.cat([drawn[:half], head_index[half:]])
        return head, rel_type, torch.cat([tail_index[:half], drawn[half:]])

    __repr__ = words("{self.num_nodes}, num_relations={self.num_relations}, hidden_channels={self.hidden_channels}")


def _with_a_bar(places: Any) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return places
    return tqdm(places)

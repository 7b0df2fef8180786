"""Embeddings that tell a graph from a corrupted one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.nn.declared import declared, words
from gdsl.nn.inits import reset, uniform
from gdsl.nn.models.probe import score
from gdsl.runtime.local import need_whole

EPS = 1e-15

_ON_PARTS = (
    "on parts, call the encoder and a corruption of own nodes, and give `discriminate` the summary of `part.mean` of "
    "their embeddings"
)


@declared
class DeepGraphInfomax(nn.Module):
    """Nodes of a graph and of a corrupted one, told apart by a summary. Velickovic et al., "Deep Graph Infomax", ICLR
    2019, section 3.4.

    hidden_channels: size of the embeddings
    encoder:         a module that gives them
    summary:         of embeddings and the arguments of the encoder, to a vector
    corruption:      of the arguments of the encoder, to others: a tuple, or one
    """

    hidden_channels: int
    encoder: nn.Module
    summary: Callable[..., Tensor]
    corruption: Callable[..., Any]

    def _setup(self) -> None:
        self.weight = nn.Parameter(torch.empty(self.hidden_channels, self.hidden_channels))

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        reset(self.encoder)
        reset(self.summary)
        uniform(self.hidden_channels, self.weight)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of the graph and of a corrupted one, and the summary of the first.

        Raises :class:`gdsl.GraphError` for a part of a distributed graph, of which functions of yours know nothing.
        """
        for given in (*args, *kwargs.values()):
            need_whole(given, "a summary of the graph", _ON_PARTS)
        found = self.encoder(*args, **kwargs)
        other = self.corruption(*args, **kwargs)
        other = other if isinstance(other, tuple) else (other,)
        named = {**kwargs, **dict(zip(kwargs, other[len(args) :], strict=False))}
        return found, self.encoder(*other[: len(args)], **named), self.summary(found, *args, **kwargs)

    def discriminate(self, z: Tensor, summary: Tensor, sigmoid: bool = True) -> Tensor:
        """How probable it is that nodes [N, channels] are of the graph of a summary, or the scores of this: [N]."""
        value = z @ (self.weight @ (summary.t() if summary.dim() > 1 else summary))
        return value.sigmoid() if sigmoid else value

    def loss(self, pos_z: Tensor, neg_z: Tensor, summary: Tensor) -> Tensor:
        """The binary cross entropy of nodes of the graph and of others."""
        good, bad = self.discriminate(pos_z, summary), self.discriminate(neg_z, summary)
        return -(good + EPS).log().mean() - (1 - bad + EPS).log().mean()

    test = staticmethod(score)
    __repr__ = words("{self.hidden_channels}")

"""Embeddings that tell a graph from a corrupted one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.errors import GraphError
from gdsl.module.meeting import excused, meeting, must_meet, shared_among
from gdsl.nn.declared import declared, words
from gdsl.nn.inits import reset, uniform
from gdsl.nn.models.probe import score
from gdsl.runtime.everywhere import all_rows
from gdsl.runtime.local import LocalGraph
from gdsl.runtime.together import alone, drawn_alike, mean_together

EPS = 1e-15


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

    @excused
    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of the graph and of a corrupted one, and the summary of the first.

        On a part of a distributed graph embeddings are those of own nodes. ``corruption`` and ``summary``, of which
        nothing is known, are given the rows of all nodes on each process: those of the first argument and of the
        embeddings. They draw there what they draw on one process. Raises ``GraphError`` where the first argument has no
        rows, and where ``corruption`` changes another one.
        """
        values = (*args, *kwargs.values())
        graph = shared_among(values)
        if must_meet(self, graph):
            with meeting(self, graph, values[0]):
                return self.forward(*args, **kwargs)
        part = graph if isinstance(graph, LocalGraph) else None
        found = self.encoder(*args, **kwargs)
        seen, known, named = found, args, kwargs
        if part is not None:
            if not isinstance(values[0], Tensor) or not isinstance(found, Tensor):
                raise GraphError(f"{type(self).__name__} on parts takes features first, and an encoder that gives rows")
            seen, rows = all_rows(part, found), all_rows(part, values[0])
            known = (rows, *args[1:]) if args else ()
            named = kwargs if args else {**kwargs, next(iter(kwargs)): rows}
        other = self._asked(part, self.corruption, *known, **named)
        other = other if isinstance(other, tuple) else (other,)
        if part is not None:
            other = (_own_rows(part, other, values[1:]), *other[1:])
        new = {**kwargs, **dict(zip(kwargs, other[len(args) :], strict=False))}
        negative = self.encoder(*other[: len(args)], **new)
        return found, negative, self._asked(part, self.summary, seen, *known, **named)

    def _asked(self, part: LocalGraph | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a function of yours gives: on parts, of the rows of all nodes, the same on each process."""
        if part is None:
            return function(*args, **kwargs)
        with drawn_alike(self.weight.device), alone():
            return function(*args, **kwargs)

    def discriminate(self, z: Tensor, summary: Tensor, sigmoid: bool = True) -> Tensor:
        """How probable it is that nodes [N, channels] are of the graph of a summary, or the scores of this: [N]."""
        value = z @ (self.weight @ (summary.t() if summary.dim() > 1 else summary))
        return value.sigmoid() if sigmoid else value

    @excused
    def loss(self, pos_z: Tensor, neg_z: Tensor, summary: Tensor) -> Tensor:
        """The binary cross entropy of nodes of the graph and of others; within :func:`gdsl.distributed.together`, of
        those of all processes."""
        good, bad = self.discriminate(pos_z, summary), self.discriminate(neg_z, summary)
        return -mean_together((good + EPS).log()) - mean_together((1 - bad + EPS).log())

    test = staticmethod(score)
    __repr__ = words("{self.hidden_channels}")


def _own_rows(part: LocalGraph, corrupted: tuple[Any, ...], others: tuple[Any, ...]) -> Tensor:
    """Of corrupted features those of own nodes."""
    rows, nodes = corrupted[0], part.total
    if any(new is not old for new, old in zip(corrupted[1:], others, strict=False)):
        raise GraphError("on parts of a distributed graph a corruption may change the first argument alone")
    if not isinstance(rows, Tensor) or rows.dim() == 0 or len(rows) != nodes:
        raise GraphError(f"a corruption gives features of all {nodes} nodes first")
    return rows.index_select(0, part.halo.own_ids)

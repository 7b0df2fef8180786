"""Skip connections around a layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gdsl.module.meeting import meeting, must_meet, shared_among
from gdsl.nn.declared import Module, declared
from gdsl.runtime.together import norms_over_all

BLOCKS = ("res+", "res", "dense", "plain")


@declared(shows="block", drawn=False)
class DeepGCNLayer(Module):
    """A layer with a skip connection. Li et al., "DeepGCNs", ICCV 2019, and "DeeperGCN", 2020, section 4.

    conv:      the layer on the edges
    norm, act: what comes after it, or before it for "res+"; may be None
    block:     "res+" (norm, act, dropout, conv, sum), "res", "dense" or "plain" (conv, norm, act, then the sum, both
               joined, or nothing, then dropout)
    dropout:   in training
    ckpt_grad: whether the layer runs again in the backward pass instead of keeping what it computed

    Raises AssertionError for another block.
    """

    conv: nn.Module | None = None
    norm: nn.Module | None = None
    act: nn.Module | None = None
    block: str = "res+"
    dropout: float = 0.0
    ckpt_grad: bool = False

    def _setup(self) -> None:
        self.block = self.block.lower()
        assert self.block in BLOCKS, f"the block is one of {BLOCKS}, not '{self.block}'"

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        parts: tuple[Any, ...] = (self.conv, self.norm)
        for part in parts:
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Features [N, channels] and the further arguments of the layer, to [N, channels]."""
        x, *others = args
        graph = shared_among((*others, *kwargs.values()))
        if must_meet(self, graph):
            norms = nn.ModuleList([] if self.norm is None else [self.norm])
            with meeting(self, graph, x), norms_over_all(norms):
                return self.forward(*args, **kwargs)
        if self.block == "res+":
            h = functional.dropout(self._normed(x), self.dropout, self.training)
            return x + self._convolved(h, others, kwargs)
        h = self._normed(self._convolved(x, others, kwargs))
        if self.block == "res":
            h = x + h
        elif self.block == "dense":
            h = torch.cat([x, h], dim=-1)
        return functional.dropout(h, self.dropout, self.training)

    def _normed(self, h: Tensor) -> Tensor:
        for part in (self.norm, self.act):
            h = h if part is None else part(h)
        return h

    def _convolved(self, h: Tensor, others: list[Any], kwargs: dict[str, Any]) -> Any:
        if self.ckpt_grad and h.requires_grad:
            return checkpoint(self.conv, h, *others, use_reentrant=False, **kwargs)
        conv: Any = self.conv
        return conv(h, *others, **kwargs)

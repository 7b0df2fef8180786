"""Aggregations with a parameter or two."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.ir import build, library
from gdsl.ir.library import op
from gdsl.ir.node import Node
from gdsl.ir.types import Dim, Domain
from gdsl.language.modules import Reader
from gdsl.nn.aggr.base import Aggregation
from gdsl.nn.declared import InitVar, declared, words


class SoftmaxAggregation(Aggregation):
    """sum softmax(t x) x for each feature. Li et al., "DeeperGCN", 2020.

    t:         the inverse temperature at first
    learn:     whether it is a parameter
    semi_grad: take no gradient through the softmax
    channels:  how many temperatures to learn: one, or one a feature

    Raises ValueError for choices that exclude each other.
    """

    def __init__(self, t: float = 1.0, learn: bool = False, semi_grad: bool = False, channels: int = 1):
        super().__init__()
        if learn and semi_grad:
            raise ValueError(
                f"Cannot enable 'semi_grad' in '{type(self).__name__}' in case the temperature term 't' is learnable"
            )
        if not learn and channels != 1:
            raise ValueError(f"Cannot set 'channels' greater than '1' in case '{type(self).__name__}' is not trainable")
        self._init_t = t
        self.learn, self.semi_grad, self.channels = learn, semi_grad, channels
        self.t = nn.Parameter(torch.empty(channels)) if learn else t
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the temperature at first."""
        if isinstance(self.t, Tensor):
            self.t.data.fill_(self._init_t)

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        alpha = library.segment_softmax(_parameter(reader, f"{path}.t", self.t, m) * m, end, rows)
        alpha = build.stop_gradient(alpha) if self.semi_grad else alpha
        return library.segment_sum(m * alpha, end, rows)

    __repr__ = words("learn={self.learn}")


@declared
class PowerMeanAggregation(Aggregation):
    """(mean x^p)^(1/p) of values held between two limits. Li et al., "DeeperGCN", 2020.

    p:         the power at first
    learn:     whether it is a parameter
    channels:  how many powers to learn: one, or one a feature
    clamp_min, clamp_max: the limits; None for no limit

    Raises ValueError for several powers that are not learned.
    """

    p: InitVar[float] = 1.0
    learn: bool = False
    channels: int = 1
    clamp_min: InitVar[float | None] = 1e-4
    clamp_max: InitVar[float | None] = 100.0

    def _setup(self) -> None:
        if not self.learn and self.channels != 1:
            raise ValueError(f"Cannot set 'channels' greater than '1' in case '{type(self).__name__}' is not trainable")
        self._init_p = self.p
        self.p = nn.Parameter(torch.empty(self.channels)) if self.learn else self.p
        self.min_value, self.max_value = self.clamp_min, self.clamp_max

    def reset_parameters(self) -> None:
        """Back to the power at first."""
        if isinstance(self.p, Tensor):
            self.p.data.fill_(self._init_p)

    def read_aggregation(self, reader: Reader, path: str, m: Node, end: str, rows: Domain) -> Node:
        if not self.learn and self.p == 1:
            return library.segment_mean(m, end, rows)
        p = _parameter(reader, f"{path}.p", self.p, m)
        mean = library.segment_mean(op("pow", self._held(m), p), end, rows)
        return op("pow", self._held(mean), 1.0 / p)

    def _held(self, x: Node) -> Node:
        low = -math.inf if self.min_value is None else self.min_value
        high = math.inf if self.max_value is None else self.max_value
        return library.clamp(x, low, high)

    __repr__ = words("learn={self.learn}")


def _parameter(reader: Reader, path: str, value: Any, like: Node) -> Node:
    """A number, a learned one [1], or learned ones over the last dim of a value."""
    if not isinstance(value, Tensor):
        return build.const(float(value))
    node = reader.load(path, (Dim(f"{path}.channels", value.numel()),))
    if value.numel() == 1:
        return build.select(node, f"{path}.channels", 0)
    return build.rename(node, {f"{path}.channels": like.dims[-1].name})

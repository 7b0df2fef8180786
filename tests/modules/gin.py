"""A layer whose update is a module, and what plain torch makes of the same module."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl

SOURCE = "layer L { module nn  node x[d]  aggregate a = sum(x[j])  update y = nn(x + a) }"
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 0, 0, 5, 5, 2]])
NODES = 6


def by_default(names: Iterable[str], fast: Iterable[str]) -> list[Any]:
    """Cases for a parametrised test, of which some run by default and all by --slow."""
    return [pytest.param(name, marks=[] if name in fast else pytest.mark.slow) for name in names]


def features(channels: int = 3, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(NODES, channels, generator=g, dtype=torch.float64).requires_grad_()


def layer(module: nn.Module, backend: str = "torch") -> Any:
    return gdsl.compile(SOURCE, nn=module, backend=backend)


def plain(module: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = module(x + torch.zeros_like(x).index_add(0, EDGES[1], x[EDGES[0]]))
    return y


def compare(conv: Any, x: Tensor | None = None) -> Tensor:
    """Fails where values, gradients, buffers or later values differ from those of a copy of the module in torch."""
    x = features() if x is None else x
    twin = copy.deepcopy(conv.nn)
    torch.manual_seed(1)
    found = conv(x, EDGES)
    torch.manual_seed(1)
    expected = plain(twin, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mine, theirs = [x, *conv.nn.parameters()], [x, *twin.parameters()]
    if found.requires_grad:
        ours = torch.autograd.grad((weights * found).sum(), mine, allow_unused=True)
        others = torch.autograd.grad((weights * expected).sum(), theirs, allow_unused=True)
        for a, b in zip(ours, others, strict=True):
            torch.testing.assert_close(0 * x.sum() if a is None else a, 0 * x.sum() if b is None else b)
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(conv.nn.get_buffer(name), buffer)
    return found


def how(conv: Any) -> str:
    """ "read into the program" or "runs as it is"."""
    text: str = conv.explain().split("nn: ")[1]
    return text.split(",")[0].strip()

"""Under torch.compile, too, a part is what it is at the call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import gdsl.nn as G
from tests.modules.gin import EDGES, layer

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def _gin() -> Any:
    conv = G.GINConv(nn.Sequential(nn.Linear(3, 3), nn.Dropout(1.0), nn.LeakyReLU(0.5)))
    conv.backend = "torch"
    return conv.eval()


@pytest.mark.parametrize("make", [_gin, lambda: layer(_gin().nn).eval()])
def test_flags_and_options_that_change(make: Any) -> None:
    torch.compiler.reset()
    conv = make()
    compiled = torch.compile(conv, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(X, EDGES), conv(X, EDGES))
    conv.nn[1].train()
    assert not compiled(X, EDGES).any()
    conv.nn[1].eval()
    torch.testing.assert_close(compiled(X, EDGES), conv(X, EDGES))
    conv.nn[2].negative_slope = 0.9
    torch.testing.assert_close(compiled(X, EDGES), conv(X, EDGES))


def test_hooks_that_were_there_before() -> None:
    torch.compiler.reset()
    conv = _gin()
    conv.nn[0].register_forward_hook(lambda m, args, y: 2 * y)
    compiled = torch.compile(conv, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(X, EDGES), conv(X, EDGES))


def test_pruned_parts() -> None:
    torch.compiler.reset()
    conv = _gin()
    prune.l1_unstructured(conv.nn[0], "weight", amount=4)
    conv(X, EDGES)
    compiled = torch.compile(conv, backend="eager")
    torch.testing.assert_close(compiled(X, EDGES), conv(X, EDGES))


def test_nested_layers() -> None:
    torch.compiler.reset()
    kinds, relations = ["a", "b"], [("a", "r", "b"), ("b", "s", "a")]
    conv: Any = G.HANConv(3, 4, (kinds, relations), heads=2)
    conv.backend = "torch"
    x = dict.fromkeys(kinds, X)
    edges = dict.fromkeys(relations, EDGES)
    compiled = torch.compile(conv, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, edges), conv(x, edges))

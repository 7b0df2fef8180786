"""A module inside a reducer works on edges; only the outermost call of an ``aggregate`` rule reduces."""

from __future__ import annotations

import torch
from torch import nn

import gdsl


def test_module_inside_a_reducer() -> None:
    source = "layer L { module nn  node x[d]  aggregate a = sum(nn(x[j]))  update y = a }"
    layer = gdsl.compile(source, nn=nn.Linear(3, 2))
    x, edge_index = torch.rand(4, 3), torch.tensor([[0, 1, 2], [3, 3, 1]])
    expected = torch.zeros(4, 2).index_add(0, edge_index[1], layer.nn(x)[edge_index[0]])
    torch.testing.assert_close(layer(x, edge_index), expected)

#!/usr/bin/env bash
# torch 2.13.0 with torch_geometric 2.8.1: under torch.compile `hasattr(edge_index, "sparse_size")` is False for an EdgeIndex, though the
# method is there and can be called in the same function. Code that asks a graph what it knows (duck typing, as libraries do that
# take many kinds of graphs) takes another branch when it is compiled: the sizes are forgotten, and isolated nodes with them.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   eager    True (5, 3)
#   compiled False (5, 3)
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric import EdgeIndex


def knows(edge_index):
    return hasattr(edge_index, "sparse_size"), edge_index.sparse_size()


edges = EdgeIndex([[0, 1], [1, 0]], sparse_size=(5, 3))
eager, compiled = knows(edges), torch.compile(knows, backend="eager")(edges)
print("eager   ", *eager)
print("compiled", *compiled)
assert eager == (True, (5, 3)), "changed"
assert compiled == (False, (5, 3)), "changed"
PY

#!/usr/bin/env bash
# torch_geometric 2.8.1: an explainer puts a mask of edges on a layer and calls it. Where an object of the parent class was made before
# the first one of a user's subclass, the subclass runs the code that was written for the parent's fused call, which reads no mask:
# every edge can be masked out, and the result stays. Without the parent's object the same mask works.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (`class Mine(SAGEConv): pass`, all edges masked out, largest change of the result):
#   Mine alone: above 0.1
#   after SAGEConv(1, 1): 0.0
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
cat >masked.py <<'PY'
import sys
import torch
from torch_geometric.explain.algorithm.utils import set_masks
from torch_geometric.nn import SAGEConv

if sys.argv[1:]:
    SAGEConv(1, 1)


class Mine(SAGEConv):
    pass


torch.manual_seed(0)
layer, x, edge_index = Mine(1, 1), torch.ones(2, 1), torch.tensor([[0], [1]])
before = layer(x, edge_index)
set_masks(layer, torch.zeros(1), edge_index, apply_sigmoid=False)
print(float((layer(x, edge_index) - before).abs().max()))
PY
python <<'PY'
import subprocess
import sys


def change(*first):
    done = subprocess.run([sys.executable, "-W", "ignore", "masked.py", *first], capture_output=True, text=True, check=True)
    return float(done.stdout)


alone, after = change(), change("parent")
print("Mine alone:", "above 0.1" if alone > 0.1 else alone)
print("after SAGEConv(1, 1):", after)
assert alone > 0.1 and after == 0.0, "changed"
PY

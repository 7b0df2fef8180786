#!/usr/bin/env bash
# torch_geometric 2.8.1: add_remaining_self_loops on a graph whose node has several loops keeps one of them, with its own weight,
# and drops the others' weights. GCNConv calls it, so that parallel loops (a transition matrix in COO form, say) lose mass that
# parallel edges keep.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   loops of 5 and 7 at node 0: [7.0, 1.0]
#   parallel edges of 5 and 7: [5.0, 7.0, 1.0, 1.0]
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.utils import add_remaining_self_loops

_, loops = add_remaining_self_loops(torch.tensor([[0, 0], [0, 0]]), torch.tensor([5.0, 7.0]), 1.0, 2)
_, edges = add_remaining_self_loops(torch.tensor([[0, 0], [1, 1]]), torch.tensor([5.0, 7.0]), 1.0, 2)
print("loops of 5 and 7 at node 0:", loops.tolist())
print("parallel edges of 5 and 7:", edges.tolist())
assert loops.tolist() == [7.0, 1.0], "changed"
assert edges.tolist() == [5.0, 7.0, 1.0, 1.0], "changed"
PY

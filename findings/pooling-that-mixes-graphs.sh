#!/usr/bin/env bash
# torch_geometric 2.8.1: DMoNPooling takes a batch of dense graphs and a mask of their nodes. Its cluster loss divides the losses of the
# graphs [B] by their numbers of nodes [B, 1], which is a table of all pairs: each graph's loss is also divided by the sizes of all
# others. Where all graphs are of one size nothing is to be seen.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (graphs of 6 and 3 nodes, the cluster loss of the batch and of the graphs alone):
#   the batch differs from the mean of its graphs: True
#   a batch of two equal graphs differs: False
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.nn import DMoNPooling

torch.manual_seed(0)
pool = DMoNPooling(4, 3).eval()
x, weight = torch.randn(2, 6, 4), torch.rand(2, 6, 6)
adj = (weight + weight.transpose(1, 2) > 0.9).float()


def difference(sizes):
    mask = torch.arange(6) < torch.tensor(sizes).view(-1, 1)
    kept = mask.float()
    masked = adj * kept.unsqueeze(1) * kept.unsqueeze(2)
    both = pool(x, masked, mask)[-1]
    alone = [pool(x[k : k + 1, :n], masked[k : k + 1, :n, :n])[-1] for k, n in enumerate(sizes)]
    return abs(float(both - sum(alone) / 2))


mixed, equal = difference([6, 3]), difference([6, 6])
print("the batch differs from the mean of its graphs:", mixed > 1e-3)
print("a batch of two equal graphs differs:", equal > 1e-5)
assert mixed > 1e-3, "changed"
assert equal < 1e-5, "changed"
PY

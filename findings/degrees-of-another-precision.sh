#!/usr/bin/env bash
# torch_geometric 2.8.1: ClusterGCNConv divides by degrees that it counts in torch's default dtype, whatever the dtype of its features and
# parameters. A layer that was made float64, to compare gradients or to solve an equation, gives float64 numbers that are right to eight
# digits only.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (a node with two edges and its loop, identity maps; largest distance from a third of the sum):
#   float64: above 1e-9
#   float64 with torch.set_default_dtype(torch.float64): below 1e-15
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.nn import ClusterGCNConv


def distance():
    layer = ClusterGCNConv(1, 1, diag_lambda=0.0, bias=False).double()
    with torch.no_grad():
        layer.lin_out.weight.fill_(1.0)
        layer.lin_root.weight.fill_(0.0)
    x = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    y = layer(x, torch.tensor([[1, 2], [0, 0]]))
    return abs(float(y[0]) - 7 / 3)


single = distance()
torch.set_default_dtype(torch.float64)
double = distance()
print("float64:", "above 1e-9" if single > 1e-9 else single)
print("float64 with torch.set_default_dtype(torch.float64):", "below 1e-15" if double < 1e-15 else double)
assert single > 1e-9 and double < 1e-15, "changed"
PY

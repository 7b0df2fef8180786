#!/usr/bin/env bash
# torch_geometric 2.8.1: the normalization of GCNConv, LGConv, SGConv and their kind raises degrees to the power -1/2 and puts 0 where
# that is infinite. With complex features the degrees are complex, and 0 to that power is NaN and not infinite: what a node without
# edges into it sends is NaN, where the same numbers as real ones give 0.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (LGConv on the path 0 -> 1 -> 2, features 1, 2 and 3; the same for GCNConv without loops):
#   real: [0.0, 0.0, 2.0]
#   complex: [0.0, nan, 2.0]
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.nn import GCNConv, LGConv

path = torch.tensor([[0, 1], [1, 2]])
x = torch.tensor([[1.0], [2.0], [3.0]])


def on(layer, x):
    with torch.no_grad():
        for weight in layer.parameters():
            weight.fill_(1.0)
    return torch.real(layer.to(x.dtype)(x, path).detach()).flatten().tolist()


for make in (LGConv, lambda: GCNConv(1, 1, add_self_loops=False, bias=False)):
    real, unreal = on(make(), x), on(make(), x.to(torch.complex64))
    if make is LGConv:
        print("real:", real)
        print("complex:", unreal)
    assert real == [0.0, 0.0, 2.0], "changed"
    assert unreal[0] == 0.0 and unreal[1] != unreal[1] and unreal[2] == 2.0, "changed"
PY

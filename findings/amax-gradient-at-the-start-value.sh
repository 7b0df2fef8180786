#!/usr/bin/env bash
# torch 2.13.0: scatter_reduce(..., "amax", include_self=False) leaves the tensor's own value out of the maximum, and counts it among
# the ties when the gradient is shared out. Where the maximum equals what the result tensor held before (0, after a ReLU, is the
# rule), the gradients of three equal members add up to 0.75. torch_geometric's max aggregation starts from zeros and inherits it.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   maximum 1: [0.333, 0.333, 0.333]
#   maximum 0: [0.25, 0.25, 0.25]
#   torch_geometric, maximum 0: [0.25, 0.25, 0.25]
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.nn import MaxAggregation

index = torch.zeros(3, dtype=torch.long)


def gradient(value, reduce):
    members = torch.full((3, 1), value, requires_grad=True)
    reduce(members).sum().backward()
    return [round(g, 3) for g in members.grad.flatten().tolist()]


def scatter(members):
    return torch.zeros(1, 1).scatter_reduce(0, index.view(-1, 1), members, "amax", include_self=False)


seen = [gradient(1.0, scatter), gradient(0.0, scatter), gradient(0.0, lambda m: MaxAggregation()(m, index))]
for name, found in zip(("maximum 1:", "maximum 0:", "torch_geometric, maximum 0:"), seen):
    print(name, found)
assert seen == [[0.333] * 3, [0.25] * 3, [0.25] * 3], "changed"
PY

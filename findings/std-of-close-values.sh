#!/usr/bin/env bash
# torch_geometric 2.8.1: the standard deviation of neighbours (StdAggregation, and so PNAConv and aggr="std") is the root of
# mean(x^2) - mean(x)^2. In float32 four temperatures near 101 have the deviation 0 and no gradient: a feature that carries
# nothing and does not train, without a word. torch.std on the same numbers has five digits.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   StdAggregation 0.0 gradient [0.0, 0.0, 0.0, 0.0]
#   torch.std 0.0187...
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.nn import StdAggregation

x = torch.tensor([[101.00], [101.02], [101.05], [101.01]], requires_grad=True)
found = StdAggregation()(x, torch.zeros(4, dtype=torch.long))
found.sum().backward()
right = x.detach().std(0, unbiased=False).item()
print("StdAggregation", found.item(), "gradient", x.grad.flatten().tolist())
print("torch.std", right)
assert found.item() == 0.0, "changed"
assert x.grad.abs().max().item() == 0.0, "changed"
assert abs(right - 0.018709225) < 1e-5, "changed"
PY

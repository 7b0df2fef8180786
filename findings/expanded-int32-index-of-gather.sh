#!/usr/bin/env bash
# torch 2.13.0, CPU: gather takes an int32 index and, where that index is a column expanded over the features, reads other rows than
# it names, without a word: the same numbers as int64, or contiguous, are right. scatter_add with such an index is right forward,
# and its gradient, a gather, is wrong; so is the gradient of torch_geometric 2.8.1's scatter for an int32 edge_index, which expands
# the index itself.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1, 20 draws each:
#   gather, expanded int32 as int64: right in 0 of 20
#   gather, contiguous int32 as int64: right in 20 of 20
#   gradient of scatter_add: right in 0 of 20
#   gradient of torch_geometric's scatter: right in 0 of 20
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.utils import scatter

ROWS, COLUMNS, DRAWS = 14, 8, 20


def summed(x, index):
    return x.new_zeros(ROWS, COLUMNS).scatter_add(0, index, x)


def gradient(function, index):
    x = torch.zeros(ROWS, COLUMNS, requires_grad=True)
    weight = torch.arange(float(ROWS * COLUMNS)).view(ROWS, COLUMNS)
    (found,) = torch.autograd.grad((function(x, index) * weight).sum(), x)
    return found


right = dict.fromkeys(("expanded", "contiguous", "scatter_add", "torch_geometric"), 0)
for seed in range(DRAWS):
    torch.manual_seed(seed)
    column = torch.randint(ROWS, (ROWS, 1), dtype=torch.int32)
    x, wide = torch.randn(ROWS, COLUMNS), column.expand(ROWS, COLUMNS)
    wanted = x.gather(0, wide.long())
    right["expanded"] += torch.equal(x.gather(0, wide), wanted)
    right["contiguous"] += torch.equal(x.gather(0, wide.contiguous()), wanted)
    right["scatter_add"] += torch.equal(gradient(summed, wide), gradient(summed, wide.long()))
    flat = column.flatten()
    theirs = [gradient(lambda x, index: scatter(x, index, 0, ROWS), index) for index in (flat, flat.long())]
    right["torch_geometric"] += torch.equal(*theirs)
print("gather, expanded int32 as int64: right in", right["expanded"], "of", DRAWS)
print("gather, contiguous int32 as int64: right in", right["contiguous"], "of", DRAWS)
print("gradient of scatter_add: right in", right["scatter_add"], "of", DRAWS)
print("gradient of torch_geometric's scatter: right in", right["torch_geometric"], "of", DRAWS)
assert right["contiguous"] == DRAWS, "changed"
assert right["expanded"] < DRAWS, "changed"
assert right["scatter_add"] < DRAWS, "changed"
assert right["torch_geometric"] < DRAWS, "changed"
PY

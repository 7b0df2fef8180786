#!/usr/bin/env bash
# torch 2.13.0 on a CPU: the sum of 1,000 ones in bfloat16 is 1000 or 256, by which of several functions that mean the same is called. Some
# add up in float32 and round once; others round after each addition, and 256 + 1 is 256 again. The gradient of `x[index]` is of the second
# kind and that of `x.index_select(0, index)` of the first: a row that a thousand edges read gets a quarter of its gradient. index_add is of
# either kind, by the number of columns, and segment_reduce's mean divides 256 by the true count: the mean of a thousand ones is 0.256.
#
# Seen with torch 2.13.0 (a thousand ones of bfloat16, for one node):
#   scatter_add 1000, index_add of rows of 4 1000, index_add 256, index_put 256, coalesce 256, COO matrix @ ones 256, segment_reduce 256,
#   gradient of index_select 1000, gradient of x[index] 256, gradient of an embedding 256
#   segment_reduce by mean: 0.256
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0
python <<'PY'
import torch
from torch.nn import functional as F

COUNT = 1000
to, ones = torch.zeros(COUNT, dtype=torch.long), torch.ones(COUNT, dtype=torch.bfloat16)
at_zero = torch.zeros(1, dtype=torch.bfloat16)
row = torch.sparse_coo_tensor(torch.stack([to, torch.arange(COUNT)]), ones, (1, COUNT))


def gradient(read):
    table = torch.ones(1, 4, dtype=torch.bfloat16, requires_grad=True)
    read(table).sum().backward()
    return table.grad[0, 0]


seen = {
    "scatter_add": at_zero.scatter_add(0, to, ones),
    "index_add of rows of 4": at_zero.expand(1, 4).clone().index_add(0, to, ones[:, None].expand(-1, 4))[0, 0],
    "index_add": at_zero.index_add(0, to, ones),
    "index_put": at_zero.index_put((to,), ones, accumulate=True),
    "coalesce": torch.sparse_coo_tensor(to[None], ones, (1,)).coalesce().values(),
    "COO matrix @ ones": torch.sparse.mm(row, ones[:, None]),
    "segment_reduce": torch.segment_reduce(ones, "sum", lengths=torch.tensor([COUNT])),
    "gradient of index_select": gradient(lambda x: x.index_select(0, to)),
    "gradient of x[index]": gradient(lambda x: x[to]),
    "gradient of an embedding": gradient(lambda x: F.embedding(to, x)),
}
seen = {name: int(value) for name, value in seen.items()}
mean = torch.segment_reduce(ones, "mean", lengths=torch.tensor([COUNT])).item()
print(", ".join(f"{name} {value}" for name, value in seen.items()))
print(f"segment_reduce by mean: {mean:.3f}")
assert {name for name, value in seen.items() if value == COUNT} == {
    "scatter_add", "index_add of rows of 4", "gradient of index_select"
}, "changed"  # fmt: skip
assert all(value in (256, COUNT) for value in seen.values()) and 0.25 < mean < 0.26, "changed"
PY

#!/usr/bin/env bash
# DGL 1.1.3: the maximum and the minimum over a node's messages leave NaN out and give 0 where every message is -inf (or +inf, for
# the minimum), as if the node had no edge; its sum and its mean keep both. A training run that has diverged goes on with numbers
# behind a max layer, and a mask of -inf becomes a 0 that wins against all negative features. torch's scatter_reduce keeps both.
# The gradient of equal messages goes to one of them; torch's is shared out: two libraries, one layer, other weights after a step.
#
# Seen with torch 2.13.0, dgl 1.1.3:
#   nan, 1, 2:   max 2.0 min 1.0 sum nan mean nan; torch amax nan
#   -inf, -inf:  max 0.0; torch amax -inf
#   ties:        dgl [0.0, 1.0] torch [0.5, 0.5]
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 numpy==2.4.6 scipy==1.17.1 "setuptools<70" packaging pydantic pyyaml psutil tqdm requests networkx
env/bin/python -m pip install --quiet --no-deps dgl==1.1.3 2>/dev/null
DGLBACKEND=pytorch HOME=$FOLDER python <<'PY'
import dgl
import dgl.function as fn
import torch

REDUCERS = ("max", "min", "sum", "mean")


def at_the_target(values, reducer):
    graph = dgl.graph((torch.arange(len(values)), torch.full((len(values),), len(values))))
    graph.ndata["h"] = torch.cat([values, torch.zeros(1)])
    graph.update_all(fn.copy_u("h", "m"), getattr(fn, reducer)("m", "o"))
    return graph.ndata["o"][-1]


def by_torch(values):
    return torch.zeros(1).scatter_reduce(0, torch.zeros(len(values), dtype=torch.long), values, "amax", include_self=False)[0]


numbers = torch.tensor([float("nan"), 1.0, 2.0])
seen = {name: at_the_target(numbers, name).item() for name in REDUCERS}
print("nan, 1, 2:  ", " ".join(f"{k} {v}" for k, v in seen.items()), "torch amax", by_torch(numbers).item())
assert (seen["max"], seen["min"]) == (2.0, 1.0), "changed"
assert seen["sum"] != seen["sum"], "changed"
assert by_torch(numbers).isnan(), "changed"

masked = torch.full((2,), -float("inf"))
print("-inf, -inf: ", "max", at_the_target(masked, "max").item(), "torch amax", by_torch(masked).item())
assert at_the_target(masked, "max").item() == 0.0, "changed"

grads = []
for function in (lambda v: at_the_target(v, "max"), by_torch):
    equal = torch.ones(2, requires_grad=True)
    function(equal).backward()
    grads.append(equal.grad.tolist())
print("ties:       ", "dgl", grads[0], "torch", grads[1])
assert sorted(grads[0]) == [0.0, 1.0], "changed"
assert grads[1] == [0.5, 0.5], "changed"
PY

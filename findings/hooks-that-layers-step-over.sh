#!/usr/bin/env bash
# torch_geometric 2.8.1: TAGConv, ChebConv and MixHopConv run most of their linear maps by `lin.forward(x)`, not by `lin(x)`, so that
# torch's hooks on them do not fire. Whoever prunes these maps (torch.nn.utils.prune works by such a hook) trains for one step: the
# pruned weight is never made again, and the second backward pass ends in an error about a graph that was freed.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   TAGConv 1 of 3 hooks, ChebConv 2 of 3, MixHopConv 1 of 3
#   pruned GCNConv trains for 3 steps, pruned TAGConv for 1
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch.nn.utils import prune
from torch_geometric.nn import ChebConv, GCNConv, MixHopConv, TAGConv

x, edges = torch.randn(4, 3), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
seen = {}
for conv in (TAGConv(3, 2, K=2), ChebConv(3, 2, K=3), MixHopConv(3, 2)):
    called = set()
    for k, lin in enumerate(conv.lins):
        lin.register_forward_hook(lambda *_, k=k: called.add(k))
    conv(x, edges)
    seen[type(conv).__name__] = (len(called), len(conv.lins))
print(", ".join(f"{name} {a} of {b}" for name, (a, b) in seen.items()))


def steps(conv, maps):
    for lin in maps:
        prune.l1_unstructured(lin, "weight", amount=1)
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1)
    for step in range(3):
        try:
            conv(x, edges).sum().backward()
        except RuntimeError as error:
            assert "backward through the graph a second time" in str(error), error
            return step
        optimizer.step()
    return 3


gcn, tag = GCNConv(3, 2), TAGConv(3, 2, K=2)
trained = steps(gcn, [gcn.lin]), steps(tag, tag.lins)
print(f"pruned GCNConv trains for {trained[0]} steps, pruned TAGConv for {trained[1]}")
assert seen == {"TAGConv": (1, 3), "ChebConv": (2, 3), "MixHopConv": (1, 3)}, "changed"
assert trained == (3, 1), "changed"
PY

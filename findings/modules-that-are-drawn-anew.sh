#!/usr/bin/env bash
# torch_geometric 2.8.1: layers and models that are given a module, as GINConv is its `nn`, draw its parameters anew when they are
# made, and reset the running statistics of its norms. A trained or loaded module that is put into one has lost its weights, and
# nothing says so. What has no `reset_parameters`, like a module with parameters of its own, is left alone, so that some of a module
# may be trained and some not. Other layers and aggregations that are given a module leave it as it is.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   drawn anew: DenseGINConv EdgeConv GAE GINConv GINEConv NNConv PPFConv PointNetConv PointTransformerConv
#   left alone: AttentionalAggregation DeepGCNLayer DeepSetsAggregation FiLMConv
#   GINConv of Sequential(Linear, BatchNorm1d, Scale): 0, 1 drawn anew, 2 left alone, mean of the norm 0.0
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric import nn


class Scale(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.by = torch.nn.Parameter(torch.full((4,), 3.0))

    def forward(self, x):
        return x * self.by


makers = {
    "AttentionalAggregation": nn.AttentionalAggregation,
    "DeepGCNLayer": nn.DeepGCNLayer,
    "DeepSetsAggregation": nn.DeepSetsAggregation,
    "DenseGINConv": nn.DenseGINConv,
    "EdgeConv": nn.EdgeConv,
    "FiLMConv": lambda module: nn.FiLMConv(4, 4, nn=module),
    "GAE": nn.GAE,
    "GINConv": nn.GINConv,
    "GINEConv": nn.GINEConv,
    "NNConv": lambda module: nn.NNConv(2, 2, module),
    "PPFConv": nn.PPFConv,
    "PointNetConv": nn.PointNetConv,
    "PointTransformerConv": lambda module: nn.PointTransformerConv(4, 4, pos_nn=module),
}
seen = {"drawn anew": [], "left alone": []}
for name, make in makers.items():
    given = torch.nn.Sequential(torch.nn.Linear(4, 4))
    before = given[0].weight.detach().clone()
    make(given)
    seen["left alone" if torch.equal(given[0].weight, before) else "drawn anew"].append(name)
for told, names in seen.items():
    print(f"{told}:", *names)

given = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), Scale())
torch.nn.init.constant_(given[1].weight, 2.0)
given(torch.randn(50, 4) + 5.0)
before = [[p.detach().clone() for p in part.parameters()] for part in given]
nn.GINConv(given)
parts = [all(map(torch.equal, old, part.parameters())) for old, part in zip(before, given, strict=True)]
mean = float(given[1].running_mean.abs().max())
kept = ", ".join(str(k) for k, same in enumerate(parts) if same)
drawn = ", ".join(str(k) for k, same in enumerate(parts) if not same)
print(f"GINConv of Sequential(Linear, BatchNorm1d, Scale): {drawn} drawn anew, {kept} left alone, mean of the norm {mean}")
assert seen["left alone"] == ["AttentionalAggregation", "DeepGCNLayer", "DeepSetsAggregation", "FiLMConv"], "changed"
assert parts == [False, False, True] and mean == 0.0, "changed"
PY

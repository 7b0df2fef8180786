#!/usr/bin/env bash
# torch_geometric 2.8.1: SAGEConv and GINConv take no edge weights, and multiply by them all the same where the graph comes as
# a sparse matrix of torch. One graph, one layer, one set of parameters: ten times the neighbours' mean by the container alone.
# Neither layer has an argument for weights, so nothing says that the values of a matrix count.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   SAGEConv edge_index [3.0, 1.0, 2.0] sparse matrix [30.0, 10.0, 20.0]
#   GINConv edge_index [4.0, 3.0, 5.0] sparse matrix [31.0, 12.0, 23.0]
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.nn import GINConv, SAGEConv

x = torch.tensor([[1.0], [2.0], [3.0]])
edges, weights = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.full((3,), 10.0)
adjacency = torch.sparse_coo_tensor(edges.flip(0), weights, (3, 3)).to_sparse_csr()  # rows are targets

sage, gin = SAGEConv(1, 1, root_weight=False, bias=False), GINConv(torch.nn.Identity())
torch.nn.init.ones_(sage.lin_l.weight)
seen = {}
for layer in (sage, gin):
    seen[type(layer).__name__] = [layer(x, graph).flatten().tolist() for graph in (edges, adjacency)]
    print(type(layer).__name__, "edge_index", seen[type(layer).__name__][0], "sparse matrix", seen[type(layer).__name__][1])
assert seen == {
    "SAGEConv": [[3.0, 1.0, 2.0], [30.0, 10.0, 20.0]],
    "GINConv": [[4.0, 3.0, 5.0], [31.0, 12.0, 23.0]],
}, "changed"
PY

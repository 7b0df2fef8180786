#!/usr/bin/env bash
# torch_geometric 2.8.1: layers that are made with `edge_dim=1` take a graph as a sparse matrix, and read the features of edges from
# its values. Where these are one number for each edge, as in any matrix of two dimensions, they are dropped without a word: the
# result is that of a graph without features, and the parameters of the features get no gradient. Values of shape [E, 1] are read.
# Matrices of torch_sparse do the same.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (values of shape [E], and [E, 1]):
#   GATConv: not read, read
#   GATv2Conv: not read, read
#   RGATConv: not read, read
#   GENConv: not read, read
#   GeneralConv: not read, read
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric import nn

torch.manual_seed(0)
x = torch.randn(4, 3)
edge_index, numbers = torch.tensor([[3, 0, 0, 1, 2], [0, 1, 2, 2, 3]]), torch.tensor([2.0, 3.0, 4.0, 5.0, 6.0])
layers = [
    nn.GATConv(3, 3, edge_dim=1, add_self_loops=False),
    nn.GATv2Conv(3, 3, edge_dim=1, add_self_loops=False),
    nn.RGATConv(3, 3, 2, edge_dim=1),
    nn.GENConv(3, 3, edge_dim=1),
    nn.GeneralConv(3, 3, in_edge_channels=1),
]

seen = []
for layer in layers:
    name = type(layer).__name__
    types = {"edge_type": torch.tensor([0, 1, 0, 1, 1])} if name == "RGATConv" else {}
    features = layer(x, edge_index, edge_attr=numbers[:, None], **types)
    without = layer(x, edge_index, **types)
    assert not torch.allclose(features, without, atol=1e-3), name
    told = []
    for values in (numbers, numbers[:, None]):
        matrix = torch.sparse_csr_tensor([0, 1, 2, 4, 5], edge_index[0], values, (4, 4))  # rows are targets, edges in this order
        found = layer(x, matrix, **types)
        told.append("read" if torch.allclose(found, features) else "not read" if torch.allclose(found, without) else "other")
    print(f"{name}:", ", ".join(told))
    seen.append(told)
assert seen == [["not read", "read"]] * len(layers), "changed"
PY

#!/usr/bin/env bash
# torch_geometric 2.8.1: a layer that takes its graph as a sparse matrix reads the weights of edges there, and where `edge_weight`
# comes beside the matrix, does not look at that argument: no error, no warning, and the result of a graph without weights. Beside
# an `edge_index` the same argument is read. PDNConv does so with `edge_attr`; LEConv reads both. So do matrices of torch_sparse.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (a matrix of ones, and the weights beside it):
#   as without weights: APPNP DNAConv GCN2Conv GCNConv GatedGraphConv GraphConv LGConv MixHopConv PDNConv SGConv SSGConv SimpleConv TAGConv
#   as with them: LEConv
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric import nn

torch.manual_seed(0)
x = torch.randn(4, 4)
edge_index, weights = torch.tensor([[3, 0, 1, 0, 2], [0, 1, 2, 2, 3]]), torch.tensor([2.0, 3.0, 4.0, 5.0, 6.0])
matrix = torch.sparse_csr_tensor([0, 1, 2, 4, 5], edge_index[0], torch.ones(5), (4, 4))  # rows are targets, edges in this order
layers = [
    nn.APPNP(2, 0.1),
    nn.DNAConv(4),
    nn.GCN2Conv(4, 0.5),
    nn.GCNConv(4, 4),
    nn.GatedGraphConv(4, 2),
    nn.GraphConv(4, 4),
    nn.LEConv(4, 4),
    nn.LGConv(),
    nn.MixHopConv(4, 4),
    nn.PDNConv(4, 4, 1, 4),
    nn.SGConv(4, 4),
    nn.SSGConv(4, 4, alpha=0.5),
    nn.SimpleConv(),
    nn.TAGConv(4, 4),
]

seen = {"as without weights": [], "as with them": []}
for layer in layers:
    name = type(layer).__name__
    given = {"DNAConv": (x.view(4, 1, 4),), "GCN2Conv": (x, x)}.get(name, (x,))
    own = weights[:, None] if name == "PDNConv" else weights
    plain, weighted, beside = layer(*given, edge_index), layer(*given, edge_index, own), layer(*given, matrix, own)
    assert not torch.allclose(plain, weighted, atol=1e-3), name
    if torch.allclose(beside, plain, atol=1e-5):
        seen["as without weights"].append(name)
    elif torch.allclose(beside, weighted, atol=1e-5):
        seen["as with them"].append(name)
for told, names in seen.items():
    print(f"{told}:", *names)
assert seen["as with them"] == ["LEConv"] and len(seen["as without weights"]) == 13, "changed"
PY

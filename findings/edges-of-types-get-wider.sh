#!/usr/bin/env bash
# torch_geometric 2.8.1: a batch of graphs with int32 edges has int32 edges, one of graphs with several types of nodes has int64
# ones: what is added to number the nodes on is a column of int64 there, and a plain number here. A model whose graphs are
# counted in 32 bits takes twice the memory for its edges after a step that nobody asked to convert anything.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   one type of nodes: torch.int32
#   named types: torch.int64
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.data import Batch, Data, HeteroData

edges = torch.tensor([[0, 1], [1, 0]], dtype=torch.int32)
plain = Data(x=torch.ones(2, 1), edge_index=edges)
named = HeteroData()
named["atom"].x = torch.ones(2, 1)
named["atom", "bond", "atom"].edge_index = edges
one = Batch.from_data_list([plain, plain]).edge_index.dtype
several = Batch.from_data_list([named, named])["atom", "bond", "atom"].edge_index.dtype
print("one type of nodes:", one)
print("named types:", several)
assert one == torch.int32, "changed"
assert several == torch.int64, "changed"
PY

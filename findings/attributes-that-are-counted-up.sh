#!/usr/bin/env bash
# torch_geometric 2.8.1: what a batch does with an attribute goes by its name, whatever it holds. "index" or "batch" anywhere in it
# means that node numbers are counted up, so that a refractive_index of the second graph grows by the nodes of the first; an edge
# attribute without "edge" in its name is taken for one of nodes where there are as many edges as nodes, so that taking a part of
# the nodes cuts it by their numbers.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   refractive_index of two graphs of 2 nodes, all 1.5: [1.5, 1.5, 3.5, 3.5]
#   weight of 4 edges, nodes 2 and 3 kept: [2.0, 3.0] and of 5 edges: [3.0]
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.data import Batch, Data

graphs = [Data(x=torch.ones(2, 1), refractive_index=torch.full((2,), 1.5)) for _ in range(2)]
counted = Batch.from_data_list(graphs).refractive_index.tolist()
print("refractive_index of two graphs of 2 nodes, all 1.5:", counted)


def kept(edges):
    index = torch.tensor([[0, 1, 2, 2, 1][:edges], [1, 0, 0, 3, 1][:edges]])
    data = Data(x=torch.ones(4, 1), edge_index=index, weight=torch.arange(float(edges)))
    return data.subgraph(torch.tensor([2, 3])).weight.tolist()


print("weight of 4 edges, nodes 2 and 3 kept:", kept(4), "and of 5 edges:", kept(5))
assert counted == [1.5, 1.5, 3.5, 3.5], "changed"
assert kept(4) == [2.0, 3.0] and kept(5) == [3.0], "changed"
PY

#!/usr/bin/env bash
# torch_geometric 2.8.1: messages that go against the edges (`flow="target_to_source"`) in a layer whose two ends have features of their
# own. With a mask of edges, as explainers set it, the layer takes another path, on which the two ends of a pair are the other way round:
# a mask that leaves every edge as it is gives another result. With messages along the edges it gives the same.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (GATv2Conv on a cycle of three nodes, a mask of ones, largest change of the result):
#   source_to_target: 0.0
#   target_to_source: above 0.1
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.explain.algorithm.utils import set_masks
from torch_geometric.nn import GATv2Conv


def change(flow):
    torch.manual_seed(0)
    layer = GATv2Conv(2, 2, flow=flow, add_self_loops=False)
    x, edge_index = torch.randn(3, 2), torch.tensor([[0, 1, 2], [1, 2, 0]])
    before = layer(x, edge_index)
    set_masks(layer, torch.ones(3), edge_index, apply_sigmoid=False)
    return float((layer(x, edge_index) - before).abs().max())


along, against = change("source_to_target"), change("target_to_source")
print("source_to_target:", along)
print("target_to_source:", "above 0.1" if against > 0.1 else against)
assert along < 1e-6 and against > 0.1, "changed"
PY

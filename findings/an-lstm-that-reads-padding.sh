#!/usr/bin/env bash
# torch_geometric 2.8.1: LSTMAggregation (and SAGEConv(aggr="lstm")) fills the rows of each group up with zeros to the longest group of
# the call and takes the last step of its LSTM, which has then read the zeros. So the result for a node is another one where any other
# node has more neighbours: a batch differs from its graphs alone, a sampled neighbourhood from the whole. GRUAggregation does the same.
# In a batch where all groups are as long nothing is to be seen.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (two rows, alone and beside a group of three, and beside one of two):
#   LSTMAggregation: beside a longer group as alone: False beside an equal one: True
#   GRUAggregation: beside a longer group as alone: False beside an equal one: True
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.nn import GRUAggregation, LSTMAggregation

torch.manual_seed(0)
x = torch.randn(5, 2)
for kind in (LSTMAggregation, GRUAggregation):
    aggregation = kind(2, 2).eval()
    alone = aggregation(x[:2], torch.tensor([0, 0]))[0]
    longer = aggregation(x, torch.tensor([0, 0, 1, 1, 1]))[0]
    equal = aggregation(x[:4], torch.tensor([0, 0, 1, 1]))[0]
    as_alone, as_equal = torch.allclose(longer, alone, atol=1e-3), torch.allclose(equal, alone)
    print(f"{kind.__name__}: beside a longer group as alone: {as_alone} beside an equal one: {as_equal}")
    assert not as_alone and as_equal, "changed"
PY

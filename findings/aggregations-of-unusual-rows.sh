#!/usr/bin/env bash
# torch_geometric 2.8.1: aggregations take rows of any dtype and any value, and some answers are not those of the function they name.
# The mean of True and False is 1.0, since their sum is a bool again. The softmax aggregation of uint8 is NaN, since differences
# wrap around. A median and a quantile take NaN for the largest number where torch.median and torch.quantile give NaN.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1:
#   mean of True, False: 1.0
#   softmax of 1, 3 as uint8: nan
#   of 1, nan, 3: median 3.0 torch.median nan, quantile 3.0 torch.quantile nan
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import math

import torch
from torch_geometric.nn import MeanAggregation, MedianAggregation, QuantileAggregation, SoftmaxAggregation


def aggregated(aggregation, rows):
    column = torch.as_tensor(rows).view(-1, 1)
    return aggregation(column, torch.zeros(len(column), dtype=torch.long)).item()


mean = aggregated(MeanAggregation(), [True, False])
softmax = aggregated(SoftmaxAggregation(), torch.tensor([1, 3], dtype=torch.uint8))
rows = torch.tensor([1.0, math.nan, 3.0])
median, quantile = aggregated(MedianAggregation(), rows), aggregated(QuantileAggregation(q=0.5), rows)
print("mean of True, False:", mean)
print("softmax of 1, 3 as uint8:", softmax)
print("of 1, nan, 3: median", median, "torch.median", rows.median().item(), end=", ")
print("quantile", quantile, "torch.quantile", rows.quantile(0.5).item())
assert mean == 1.0, "changed"
assert math.isnan(softmax), "changed"
assert (median, quantile) == (3.0, 3.0), "changed"
assert rows.median().isnan(), "changed"
assert rows.quantile(0.5).isnan(), "changed"
PY

#!/usr/bin/env bash
# torch_geometric 2.8.1: NormalizeFeatures, documented to make the features of a row sum up to one, first subtracts the smallest number of
# the whole tensor, and then divides by no less than 1. What a row becomes so depends on all other rows of the same `Data`: a graph that is
# transformed by itself and the same graph inside a batch get other features, and rows of small numbers do not sum up to one at all.
#
# Seen with torch 2.13.0, torch_geometric 2.8.1 (the row [1, 3]; then with a row [-4, 0] beside it; then the row [0, 0.5] alone):
#   alone: [0.0, 1.0]
#   beside a row [-4, 0]: [0.4167, 0.5833]
#   [0, 0.5] sums up to 0.5
. "$(dirname "$0")/lib.sh"
packages torch==2.13.0 torch_geometric==2.8.1
python <<'PY'
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeFeatures


def first_row(*rows):
    return [round(v, 4) for v in NormalizeFeatures()(Data(x=torch.tensor(rows))).x[0].tolist()]


alone, beside, small = first_row([1.0, 3.0]), first_row([1.0, 3.0], [-4.0, 0.0]), first_row([0.0, 0.5])
print("alone:", alone)
print("beside a row [-4, 0]:", beside)
print("[0, 0.5] sums up to", sum(small))
assert (alone, beside, sum(small)) == ([0.0, 1.0], [0.4167, 0.5833], 0.5), "changed"
PY
